package http1

import (
	"bytes"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// parseRequest fills r from a whole head. r's strings share the head's memory.
func parseRequest(head []byte, scheme string, lim *Limits, r *message.Request) error {
	end := bytes.IndexByte(head, '\n')
	if end < 1 || head[end-1] != '\r' {
		return errBareLF
	}
	if end-1 > lim.TargetBytes {
		return errTargetLong
	}
	target, err := parseRequestLine(head[:end-1], r)
	if err != nil {
		return err
	}
	var f framing
	if err := parseFields(head[end+1:], &r.Header, &f, lim.Fields, false); err != nil {
		return err
	}
	if r.Body, err = f.body(r.Proto); err != nil {
		return err
	}
	if r.Method == "TRACE" && r.Body.Kind != message.NoBody && r.Body != (message.Body{Kind: message.Sized}) {
		return errTraceBody // RFC 9110 section 9.3.8
	}
	r.KeepAlive = f.persistent(r.Proto)
	if r.Proto == message.HTTP11 { // RFC 9110 sections 7.8 and 10.1.1: from HTTP/1.0 neither is heeded
		if f.expectsMore {
			return errExpectation
		}
		r.ExpectContinue = f.expect && r.Body != message.Body{} && r.Body != message.Body{Kind: message.Sized}
		if f.upgrades && !offersHTTP2(f.upgrade) {
			r.Upgrade = f.upgrade
		}
	}
	if f.expect && !r.ExpectContinue {
		r.Header.Del("Expect") // nobody waits: the next recipient must not be told so
	}
	r.Scheme = scheme
	return setTarget(target, &f, r)
}

// offersHTTP2: upgrading to h2c, which RFC 9113 withdrew, would lead the requests that follow past whatever reads this
// connection. A server may ignore an Upgrade (RFC 9110 section 7.8), so nobody learns of this one.
func offersHTTP2(upgrade string) bool {
	for upgrade != "" {
		var protocol string
		protocol, upgrade = cutElement(upgrade)
		if len(protocol) >= 2 && message.EqualFold(protocol[:2], "h2") {
			return true
		}
	}
	return false
}

// parseRequestLine takes "method SP request-target SP HTTP-version" with exactly single spaces: RFC 9112 section 3 lets a
// recipient split on any white space and warns of what comes of it.
func parseRequestLine(line []byte, r *message.Request) (target string, err error) {
	sp := bytes.IndexByte(line, ' ')
	if sp < 1 {
		return "", errRequestLine
	}
	if r.Method = message.UsualMethod(str(line[:sp])); !message.IsToken(r.Method) {
		return "", errMethod
	}
	line = line[sp+1:]
	if sp = bytes.IndexByte(line, ' '); sp < 1 {
		return "", errRequestLine
	}
	if target = str(line[:sp]); !message.TargetChars.All(target) {
		return "", errTarget
	}
	r.Proto, err = parseVersion(line[sp+1:], errRequestLine)
	return target, err
}

// checkRequestLine finds what is wrong with a request line before the rest of the head is there.
func checkRequestLine(line []byte) error {
	var r message.Request
	_, err := parseRequestLine(line, &r)
	return err
}

// parseVersion takes a minor version above 1 for 1.1 (RFC 9110 section 2.5).
func parseVersion(b []byte, malformed error) (message.Proto, error) {
	if len(b) != len("HTTP/1.1") || string(b[:5]) != "HTTP/" || b[6] != '.' || !digit(b[5]) || !digit(b[7]) {
		return 0, malformed
	}
	switch {
	case b[5] != '1':
		return 0, errVersion
	case b[7] == '0':
		return message.HTTP10, nil
	}
	return message.HTTP11, nil
}

func digit(b byte) bool { return b-'0' <= 9 }

// setTarget sorts out the four forms of RFC 9112 section 3.2 and sets Authority and Path.
func setTarget(target string, f *framing, r *message.Request) error {
	if err := checkHost(f, r); err != nil {
		return err
	}
	switch {
	case r.Method == "CONNECT":
		return setAuthorityForm(target, f, r)
	case target[0] == '/':
		r.Path = target
		return nil
	case target == "*":
		if r.Method != "OPTIONS" {
			return errTargetForm
		}
		r.Path = target
		return nil
	}
	return setAbsoluteForm(target, f, r)
}

// checkHost refuses by RFC 9112 section 3.2. The empty Host that the section provides for targets without an authority is
// refused as well: there are none among http and https URIs, which all that is routed here is.
func checkHost(f *framing, r *message.Request) error {
	switch {
	case f.hosts > 1:
		return errHostTwice
	case f.hosts == 0 && r.Proto != message.HTTP10:
		return errHostMissing
	case f.hosts == 0 || f.host == "" && r.Proto == message.HTTP10:
		return nil
	case !message.ValidAuthority(f.host):
		return errHost
	}
	r.Authority = f.host
	return nil
}

func setAuthorityForm(target string, f *framing, r *message.Request) error {
	if r.Body != (message.Body{}) {
		// RFC 9110 section 9.3.6: what follows is the tunnel's.
		return errConnectBody
	}
	if !message.ValidAuthority(target) || !hasPort(target) {
		return errTargetForm
	}
	r.Absolute = true
	setAuthority(target, f, r)
	return nil
}

// setAbsoluteForm takes the authority of the target and overwrites a Host that differs. RFC 9112 section 3.2.2 demands just
// that of a proxy; refusing would fail correct requests through a gateway, and after the overwrite no later step or peer can
// see the other name.
func setAbsoluteForm(target string, f *framing, r *message.Request) error {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case !ok:
		return errTarget
	case message.EqualFold(scheme, "http"):
		r.Scheme = "http"
	case message.EqualFold(scheme, "https"):
		r.Scheme = "https"
	default:
		return errTarget
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if !message.ValidAuthority(rest[:end]) {
		return errHost
	}
	r.Absolute = true
	setAuthority(rest[:end], f, r)
	switch r.Path = rest[end:]; {
	case r.Path == "" && r.Method == "OPTIONS":
		r.Path = "*" // RFC 9112 section 3.2.4
	case r.Path == "":
		r.Path = "/"
	case r.Path[0] == '?':
		r.Path = "/" + r.Path
	}
	return nil
}

func setAuthority(authority string, f *framing, r *message.Request) {
	r.Authority = authority
	if f.hosts > 0 && f.host != authority {
		r.Header.Set("Host", authority)
	}
}

func hasPort(authority string) bool {
	i := strings.LastIndexByte(authority, ':')
	return i >= 0 && i+1 < len(authority) && authority[len(authority)-1] != ']'
}
