package http1

import (
	"bytes"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// asked is what a response must be read or written with: facts of its request.
type asked struct {
	head, connect bool
	upgrade       string // the protocols on offer; shares the request's memory
}

func askedBy(r *message.Request) asked {
	return asked{head: r.Method == "HEAD", connect: r.Method == "CONNECT", upgrade: r.Upgrade}
}

// offered reports whether a protocol, without its version, is among those that the request would change to (RFC 9110 section 7.8).
func (a asked) offered(protocol string) bool {
	protocol, _, _ = strings.Cut(protocol, "/")
	for list := a.upgrade; list != ""; {
		var offer string
		offer, list = cutElement(list)
		offer, _, _ = strings.Cut(offer, "/")
		if message.EqualFold(offer, protocol) {
			return true
		}
	}
	return false
}

// bodyless is RFC 9112 section 6.3, items 1 and 2: responses whose head is their end, whatever its fields say.
func (a asked) bodyless(status int) bool {
	return a.head || status < 200 || status == 204 || status == 304 || a.tunnel(status)
}

func (a asked) tunnel(status int) bool {
	return status == 101 || a.connect && status >= 200 && status < 300
}

// parseResponse fills r from a whole head. r's strings share the head's memory.
func parseResponse(head []byte, a asked, lim *Limits, r *message.Response) error {
	end := bytes.IndexByte(head, '\n')
	if end < 1 || head[end-1] != '\r' {
		return errBareLF
	}
	if err := parseStatusLine(head[:end-1], r); err != nil {
		return err
	}
	var f framing
	if err := parseFields(head[end+1:], &r.Header, &f, lim.Fields, true); err != nil {
		return err
	}
	if r.Status == 101 {
		if !f.upgrades || f.upgrade == "" || !a.offered(f.upgrade) {
			return errUpgrade
		}
		r.Upgrade = f.upgrade
		return nil
	}
	body, err := f.body(r.Proto)
	if err != nil {
		return err
	}
	r.KeepAlive = f.persistent(r.Proto)
	if r.Status == 426 && f.upgrades {
		r.Upgrade = f.upgrade // RFC 9110 section 15.5.22: no such answer is without the protocols that it asks for
	}
	if a.bodyless(r.Status) {
		// A 204 with content would put that content before the next response: such a connection ends here.
		if a.tunnel(r.Status) || r.Status == 204 && (body.Kind == message.Chunked || body.Length > 0) {
			r.KeepAlive = false
		}
		return nil
	}
	if r.Body = body; body.Kind == message.NoBody {
		r.Body.Kind = message.UntilClose
		r.KeepAlive = false
	}
	return nil
}

// parseStatusLine takes a line without the space before an absent reason phrase, which many servers leave out.
func parseStatusLine(line []byte, r *message.Response) (err error) {
	const version = len("HTTP/1.1")
	if len(line) < version+4 || line[version] != ' ' {
		return errStatusLine
	}
	if r.Proto, err = parseVersion(line[:version], errStatusLine); err != nil {
		return err
	}
	s := line[version+1:]
	if !digit(s[0]) || !digit(s[1]) || !digit(s[2]) || s[0] == '0' || len(s) > 3 && s[3] != ' ' {
		return errStatusLine
	}
	r.Status = int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	if len(s) > 4 {
		if !message.ValidValue(s[4:]) {
			return errStatusLine
		}
		r.Reason = str(s[4:])
	}
	return nil
}
