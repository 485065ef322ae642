package http2

import (
	"github.com/weftmesh/weft/internal/proxy/http2/hpack"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// What a field is to a head, found out once per table entry.
const (
	kindPlain = iota // see message.Header.AddPlain
	kindMethod
	kindScheme
	kindAuthority
	kindPath
	kindStatus
	kindProtocol
	kindLength
	kindCookie
	kindHost
	kindExpect
	kindHop // concerns the next connection too
	kindBad // makes its message malformed
)

var tags = hpack.NewTags(classify)

// classify is RFC 9113 sections 8.2.1, 8.2.2 and 8.3.
func classify(name, value string) uint8 {
	if name == "" || !validValue(value) {
		return kindBad
	}
	if name[0] == ':' {
		return pseudoKind(name)
	}
	for i := 0; i < len(name); i++ {
		if !lowerToken[name[i]] {
			return kindBad
		}
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return kindBad
	case "te":
		if value != "trailers" {
			return kindBad
		}
		return kindHop
	case "http2-settings":
		return kindHop
	case "content-length":
		return kindLength
	case "cookie":
		return kindCookie
	case "host":
		return kindHost
	case "expect":
		return kindExpect
	}
	return kindPlain
}

func pseudoKind(name string) uint8 {
	switch name {
	case ":method":
		return kindMethod
	case ":scheme":
		return kindScheme
	case ":authority":
		return kindAuthority
	case ":path":
		return kindPath
	case ":status":
		return kindStatus
	case ":protocol":
		return kindProtocol
	}
	return kindBad
}

// head is a decoded field section. It is filled by the reader, and handed whole to a stream.
type head struct {
	fields message.Header
	store  *block // for strings that are in no table

	pseudo  [kindProtocol + 1]string
	seen    uint16 // bit 1<<kind
	host    string
	hosts   int
	length  int64 // -1: not declared
	expect  bool
	unmet   bool // an expectation that nobody knows
	cookies int
	cookie  []byte // the crumbs joined, if there are several

	size  int
	large *Error
	bad   string // why the message is malformed; empty if it is not
}

// release lets go of the strings and their memory.
func (h *head) release() {
	h.fields.Reset()
	if h.store == nil {
		return // nothing was decoded into it since
	}
	putBlock(h.store)
	cookie := h.cookie[:0]
	if cap(cookie) > 4<<10 {
		cookie = nil
	}
	*h = head{fields: h.fields, cookie: cookie, length: -1}
}

func (h *head) has(kind int) bool { return h.seen&(1<<kind) != 0 }

// decode fills h from a whole block. Its error is the connection's.
func (h *head) decode(d *hpack.Decoder, blk []byte, o *Options) error {
	h.release()
	h.store = getBlock(hpack.StoreSize(len(blk)))
	d.Begin(blk, h.store.b)
	var f hpack.Field
	for {
		ok, err := d.Next(&f)
		if !ok {
			if h.cookies > 1 && h.large == nil {
				h.fields.Set("cookie", str(h.cookie))
			}
			return err
		}
		h.size += hpack.Size(f.Name, f.Value)
		if h.large == nil {
			h.large = o.Refusal(h.size, h.fields.Len()+1)
		}
		if h.large != nil {
			continue // the rest is decoded for the table's sake
		}
		if f.Tag == kindPlain {
			h.seen |= 1
			h.fields.AddPlain(f.Name, f.Value, f.Sensitive)
			continue
		}
		h.special(&f)
	}
}

func (h *head) special(f *hpack.Field) {
	switch f.Tag {
	case kindBad:
		h.malformed("field " + f.Name + " is not allowed")
		return
	case kindLength:
		h.declare(f.Value)
	case kindHost:
		h.hosts++
		h.host = f.Value
		h.seen |= 1
		return
	case kindExpect:
		known := message.EqualFold(f.Value, "100-continue")
		h.expect, h.unmet = h.expect || known, h.unmet || !known
	case kindCookie:
		if h.crumb(f.Value) {
			return
		}
	case kindHop:
	default:
		if h.seen&(1|1<<f.Tag) != 0 {
			h.malformed("pseudo-header field repeated or after others")
			return
		}
		h.seen |= 1 << f.Tag
		h.pseudo[f.Tag] = f.Value
		return
	}
	h.seen |= 1
	h.fields.Add(f.Name, f.Value)
}

func (h *head) malformed(why string) {
	if h.bad == "" {
		h.bad = why
	}
}

// declare takes a content-length, of which there may be one: an equal second one, too, tells of a sender that somebody has fooled.
func (h *head) declare(value string) {
	n, ok := message.ParseLength(value)
	if !ok || h.length >= 0 {
		h.malformed("invalid content-length")
		return
	}
	h.length = n
}

// crumb joins cookies (RFC 9113 section 8.2.3) and reports whether it took this one.
func (h *head) crumb(value string) bool {
	if h.cookies++; h.cookies == 1 {
		h.cookie = append(h.cookie[:0], value...)
		return false
	}
	h.cookie = append(append(h.cookie, "; "...), value...)
	return true
}

// checkTrailers is RFC 9113 section 8.1.
func (h *head) checkTrailers() {
	if h.seen&^1 != 0 {
		h.malformed("pseudo-header field in trailers")
	}
	if h.large != nil {
		h.malformed("trailers: " + h.large.Reason)
	}
}

// request fills r, whose header takes over the fields. It finds out whether the head is malformed.
func (h *head) request(r *message.Request, scheme string, ended bool) {
	if h.large != nil {
		h.refused(r)
		return
	}
	if h.checkRequest(); h.bad != "" {
		return
	}
	*r = message.Request{Proto: message.HTTP2, Method: message.UsualMethod(h.pseudo[kindMethod]), Scheme: h.pseudo[kindScheme],
		Authority: h.pseudo[kindAuthority], Path: h.pseudo[kindPath], Header: h.fields, KeepAlive: true}
	h.fields = message.Header{}
	if r.Authority == "" {
		r.Authority = h.host
	}
	switch {
	case r.Scheme == "":
		r.Scheme = scheme
	case message.EqualFold(r.Scheme, "https"):
		r.Scheme = "https" // RFC 9110 section 4.2.3: in any case
	default:
		r.Scheme = "http"
	}
	if h.has(kindProtocol) {
		r.Method, r.Upgrade = "GET", h.pseudo[kindProtocol]
		return
	}
	if r.Method == "CONNECT" {
		r.Absolute = true
		return
	}
	r.Body = h.body(ended)
	if r.ExpectContinue = h.expect && !ended; h.expect && ended {
		r.Header.Del("Expect") // nobody waits: the next recipient must not be told so (RFC 9110 section 10.1.1)
	}
	if ended && h.length > 0 {
		h.malformed("no content despite its content-length")
	}
}

// refused fills r with what came before the limit was met, as far as it can be shown.
func (h *head) refused(r *message.Request) {
	*r = message.Request{Proto: message.HTTP2, Header: h.fields, KeepAlive: true}
	h.fields = message.Header{}
	if m := h.pseudo[kindMethod]; message.IsToken(m) {
		r.Method = message.UsualMethod(m)
	}
	if a := h.pseudo[kindAuthority]; message.ValidAuthority(a) {
		r.Authority = a
	}
	if p := h.pseudo[kindPath]; message.TargetChars.All(p) {
		r.Path = p
	}
}

func (h *head) body(ended bool) message.Body {
	switch {
	case h.length >= 0:
		return message.Body{Kind: message.Sized, Length: h.length}
	case ended:
		return message.Body{}
	}
	return message.Body{Kind: message.Chunked}
}

// checkRequest is RFC 9113 section 8.3.1 and RFC 8441 section 4.
func (h *head) checkRequest() {
	switch {
	case h.bad != "":
	case h.has(kindStatus):
		h.malformed(":status in a request")
	case !message.IsToken(h.pseudo[kindMethod]):
		h.malformed("no valid :method")
	case h.hosts > 1:
		h.malformed("more than one host")
	case h.hosts == 1 && h.has(kindAuthority) && !message.EqualFold(h.host, h.pseudo[kindAuthority]):
		h.malformed("host differs from :authority")
	case h.pseudo[kindMethod] == "CONNECT" && !h.has(kindProtocol):
		if h.has(kindScheme) || h.has(kindPath) || !message.ValidAuthority(h.pseudo[kindAuthority]) {
			h.malformed("CONNECT with more or less than :authority")
		}
	case h.has(kindProtocol) && (h.pseudo[kindMethod] != "CONNECT" || !message.IsToken(h.pseudo[kindProtocol])):
		h.malformed("invalid use of :protocol")
	default:
		h.checkTarget()
	}
}

func (h *head) checkTarget() {
	path, scheme := h.pseudo[kindPath], h.pseudo[kindScheme]
	authority := h.pseudo[kindAuthority]
	if !h.has(kindAuthority) {
		authority = h.host
	}
	switch {
	case !message.EqualFold(scheme, "http") && !message.EqualFold(scheme, "https"):
		h.malformed("no :scheme of HTTP")
	case path == "" || path[0] != '/' && (path != "*" || h.pseudo[kindMethod] != "OPTIONS"):
		h.malformed("invalid :path")
	case !message.TargetChars.All(path):
		h.malformed("invalid character in :path")
	case !message.ValidAuthority(authority):
		h.malformed("no valid :authority")
	}
}

// response fills r, whose header takes over the fields.
func (h *head) response(r *message.Response, a asked, ended bool) {
	s := h.pseudo[kindStatus]
	switch {
	case h.bad != "":
		return
	case h.seen&^(1|1<<kindStatus) != 0 || len(s) != 3 || s[0] < '1' || s[0] > '9' || s[1]-'0' > 9 || s[2]-'0' > 9:
		h.malformed("no valid :status, or other pseudo-header fields")
		return
	case h.large != nil:
		h.malformed(h.large.Reason)
		return
	}
	*r = message.Response{Proto: message.HTTP2, Status: int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0'), Header: h.fields, KeepAlive: true}
	h.fields = message.Header{}
	switch {
	case r.Status < 200:
		if ended || r.Status == 101 {
			h.malformed("informational response that ends the stream, or 101")
		}
	case a.upgrade && r.Status == 200:
		r.Status, r.Upgrade = 101, a.protocol
	case !a.bodyless(r.Status):
		if r.Body = h.body(ended); ended && h.length > 0 {
			h.malformed("no content despite its content-length")
		}
	}
}

// asked is what a response must be read or written with: facts of its request.
type asked struct {
	head, connect, upgrade bool
	protocol               string
}

func askedBy(r *message.Request) asked {
	return asked{head: r.Method == "HEAD", connect: r.Method == "CONNECT", upgrade: r.Upgrade != "", protocol: r.Upgrade}
}

// bodyless says which responses have no content, whatever their fields say, tunnels among them.
func (a asked) bodyless(status int) bool {
	return a.head || status < 200 || status == 204 || status == 304 || a.tunnel(status)
}

func (a asked) tunnel(status int) bool {
	return a.upgrade && status == 101 || a.connect && status >= 200 && status < 300
}
