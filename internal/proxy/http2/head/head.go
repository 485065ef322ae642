// Package head makes requests and responses of decoded field sections, and says which are malformed (RFC 9113 section 8).
package head

import (
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/http2/block"
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

// NewDecoder makes a decoder for Decode, with a table of so many bytes.
func NewDecoder(table int) *hpack.Decoder { return hpack.NewDecoder(table, tags) }

// classify is RFC 9113 sections 8.2.1, 8.2.2 and 8.3.
func classify(name, value string) uint8 {
	if name == "" || !ValidValue(value) {
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

// Head is a decoded field section. It is filled by the reader, and handed whole to a stream.
type Head struct {
	Fields message.Header
	Length int64 // -1: not declared
	Unmet  bool  // an expectation that nobody knows
	Large  *Error
	Bad    string // why the message is malformed; empty if it is not

	store *block.Block // for strings that are in no table

	pseudo  [kindProtocol + 1]string
	seen    uint16 // bit 1<<kind
	host    string
	hosts   int
	expect  bool
	cookies int
	cookie  []byte // the crumbs joined, if there are several

	size int
}

// New gives an empty one.
func New() *Head { return &Head{Length: -1} }

// Held reports whether it holds memory for strings.
func (h *Head) Held() bool { return h.store != nil }

// Release lets go of the strings and their memory.
func (h *Head) Release() {
	h.Fields.Reset()
	if h.store == nil {
		return // nothing was decoded into it since
	}
	block.Put(h.store)
	cookie := h.cookie[:0]
	if cap(cookie) > 4<<10 {
		cookie = nil
	}
	*h = Head{Fields: h.Fields, cookie: cookie, Length: -1}
}

func (h *Head) has(kind int) bool { return h.seen&(1<<kind) != 0 }

// Decode fills h from a whole block, by a decoder that NewDecoder made. Its error is the connection's.
func (h *Head) Decode(d *hpack.Decoder, blk []byte, most Limits) error {
	h.Release()
	h.store = block.Get(hpack.StoreSize(len(blk)))
	d.Begin(blk, h.store.B)
	var f hpack.Field
	for {
		ok, err := d.Next(&f)
		if !ok {
			if h.cookies > 1 && h.Large == nil {
				h.Fields.Set("cookie", unsafe.String(unsafe.SliceData(h.cookie), len(h.cookie)))
			}
			return err
		}
		h.size += hpack.Size(f.Name, f.Value)
		if h.Large == nil {
			h.Large = most.Refusal(h.size, h.Fields.Len()+1)
		}
		if h.Large != nil {
			continue // the rest is decoded for the table's sake
		}
		if f.Tag == kindPlain {
			h.seen |= 1
			h.Fields.AddPlain(f.Name, f.Value, f.Sensitive)
			continue
		}
		h.special(&f)
	}
}

func (h *Head) special(f *hpack.Field) {
	switch f.Tag {
	case kindBad:
		h.Malformed("field " + f.Name + " is not allowed")
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
		h.expect, h.Unmet = h.expect || known, h.Unmet || !known
	case kindCookie:
		if h.crumb(f.Value) {
			return
		}
	case kindHop:
	default:
		if h.seen&(1|1<<f.Tag) != 0 {
			h.Malformed("pseudo-header field repeated or after others")
			return
		}
		h.seen |= 1 << f.Tag
		h.pseudo[f.Tag] = f.Value
		return
	}
	h.seen |= 1
	h.Fields.Add(f.Name, f.Value)
}

// Malformed says that the message is, unless that was said before.
func (h *Head) Malformed(why string) {
	if h.Bad == "" {
		h.Bad = why
	}
}

// declare takes a content-length, of which there may be one: an equal second one, too, tells of a sender that somebody has fooled.
func (h *Head) declare(value string) {
	n, ok := message.ParseLength(value)
	if !ok || h.Length >= 0 {
		h.Malformed("invalid content-length")
		return
	}
	h.Length = n
}

// crumb joins cookies (RFC 9113 section 8.2.3) and reports whether it took this one.
func (h *Head) crumb(value string) bool {
	if h.cookies++; h.cookies == 1 {
		h.cookie = append(h.cookie[:0], value...)
		return false
	}
	h.cookie = append(append(h.cookie, "; "...), value...)
	return true
}

// CheckTrailers is RFC 9113 section 8.1.
func (h *Head) CheckTrailers() {
	if h.seen&^1 != 0 {
		h.Malformed("pseudo-header field in trailers")
	}
	if h.Large != nil {
		h.Malformed("trailers: " + h.Large.Reason)
	}
}

// Request fills r, whose header takes over the fields. It finds out whether the head is malformed.
func (h *Head) Request(r *message.Request, scheme string, ended bool) {
	if h.Large != nil {
		h.refused(r)
		return
	}
	if h.checkRequest(); h.Bad != "" {
		return
	}
	*r = message.Request{Proto: message.HTTP2, Method: message.UsualMethod(h.pseudo[kindMethod]), Scheme: h.pseudo[kindScheme],
		Authority: h.pseudo[kindAuthority], Path: h.pseudo[kindPath], Header: h.Fields, KeepAlive: true}
	h.Fields = message.Header{}
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
	if ended && h.Length > 0 {
		h.Malformed("no content despite its content-length")
	}
}

// refused fills r with what came before the limit was met, as far as it can be shown.
func (h *Head) refused(r *message.Request) {
	*r = message.Request{Proto: message.HTTP2, Header: h.Fields, KeepAlive: true}
	h.Fields = message.Header{}
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

func (h *Head) body(ended bool) message.Body {
	switch {
	case h.Length >= 0:
		return message.Body{Kind: message.Sized, Length: h.Length}
	case ended:
		return message.Body{}
	}
	return message.Body{Kind: message.Chunked}
}

// checkRequest is RFC 9113 section 8.3.1 and RFC 8441 section 4.
func (h *Head) checkRequest() {
	switch {
	case h.Bad != "":
	case h.has(kindStatus):
		h.Malformed(":status in a request")
	case !message.IsToken(h.pseudo[kindMethod]):
		h.Malformed("no valid :method")
	case h.hosts > 1:
		h.Malformed("more than one host")
	case h.hosts == 1 && h.has(kindAuthority) && !message.EqualFold(h.host, h.pseudo[kindAuthority]):
		h.Malformed("host differs from :authority")
	case h.pseudo[kindMethod] == "CONNECT" && !h.has(kindProtocol):
		if h.has(kindScheme) || h.has(kindPath) || !message.ValidAuthority(h.pseudo[kindAuthority]) {
			h.Malformed("CONNECT with more or less than :authority")
		}
	case h.has(kindProtocol) && (h.pseudo[kindMethod] != "CONNECT" || !message.IsToken(h.pseudo[kindProtocol])):
		h.Malformed("invalid use of :protocol")
	default:
		h.checkTarget()
	}
}

func (h *Head) checkTarget() {
	path, scheme := h.pseudo[kindPath], h.pseudo[kindScheme]
	authority := h.pseudo[kindAuthority]
	if !h.has(kindAuthority) {
		authority = h.host
	}
	switch {
	case !message.EqualFold(scheme, "http") && !message.EqualFold(scheme, "https"):
		h.Malformed("no :scheme of HTTP")
	case path == "" || path[0] != '/' && (path != "*" || h.pseudo[kindMethod] != "OPTIONS"):
		h.Malformed("invalid :path")
	case !message.TargetChars.All(path):
		h.Malformed("invalid character in :path")
	case !message.ValidAuthority(authority):
		h.Malformed("no valid :authority")
	}
}

// Response fills r, whose header takes over the fields.
func (h *Head) Response(r *message.Response, a Asked, ended bool) {
	s := h.pseudo[kindStatus]
	switch {
	case h.Bad != "":
		return
	case h.seen&^(1|1<<kindStatus) != 0 || len(s) != 3 || s[0] < '1' || s[0] > '9' || s[1]-'0' > 9 || s[2]-'0' > 9:
		h.Malformed("no valid :status, or other pseudo-header fields")
		return
	case h.Large != nil:
		h.Malformed(h.Large.Reason)
		return
	}
	*r = message.Response{Proto: message.HTTP2, Status: int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0'), Header: h.Fields, KeepAlive: true}
	h.Fields = message.Header{}
	switch {
	case r.Status < 200:
		if ended || r.Status == 101 {
			h.Malformed("informational response that ends the stream, or 101")
		}
	case a.upgrade && r.Status == 200:
		r.Status, r.Upgrade = 101, a.protocol
	case !a.Bodyless(r.Status):
		if r.Body = h.body(ended); ended && h.Length > 0 {
			h.Malformed("no content despite its content-length")
		}
	}
}

// Asked is what a response must be read or written with: facts of its request.
type Asked struct {
	head, connect, upgrade bool
	protocol               string
}

// AskedBy gives those of a request.
func AskedBy(r *message.Request) Asked {
	return Asked{head: r.Method == "HEAD", connect: r.Method == "CONNECT", upgrade: r.Upgrade != "", protocol: r.Upgrade}
}

// Bodyless says which responses have no content, whatever their fields say, tunnels among them.
func (a Asked) Bodyless(status int) bool {
	return a.head || status < 200 || status == 204 || status == 304 || a.Tunnel(status)
}

// Tunnels reports whether the request is for a tunnel.
func (a Asked) Tunnels() bool { return a.connect || a.upgrade }

// Upgrades reports whether it is by an upgrade, and not by CONNECT alone.
func (a Asked) Upgrades() bool { return a.upgrade }

// Tunnel reports whether a response begins one.
func (a Asked) Tunnel(status int) bool {
	return a.upgrade && status == 101 || a.connect && status >= 200 && status < 300
}
