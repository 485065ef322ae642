// Package message holds the heads of HTTP messages as the request path sees them, whatever the framing that carried them.
//
// The codec (HTTP/1.1, HTTP/2, HTTP/3) fills a Request or Response; routing, policy, balancing and telemetry read and change
// it; the codec of the other side writes it out. Strings in a head may point into the codec's buffers: they stay valid until
// the exchange they belong to has ended. Whoever keeps one longer clones it (strings.Clone).
package message

import "math"

// Proto is the HTTP version of a message.
type Proto uint8

// The versions that can be carried.
const (
	HTTP10 Proto = iota + 1
	HTTP11
	HTTP2
	HTTP3
)

// String gives the form that access logs use ("HTTP/1.1").
func (p Proto) String() string {
	switch p {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	case HTTP3:
		return "HTTP/3"
	}
	return "-"
}

// BodyKind says how a body is delimited (RFC 9112 section 6).
type BodyKind uint8

// The ways a body is delimited.
const (
	// NoBody means that no body follows the head.
	NoBody BodyKind = iota
	// Sized means that exactly Length bytes follow.
	Sized
	// Chunked means transfer coding "chunked", or DATA frames without a declared length.
	Chunked
	// UntilClose means that the body ends with the connection (responses only).
	UntilClose
)

// Body is the framing of a message's body.
type Body struct {
	Kind   BodyKind
	Length int64 // bytes; for Sized only
}

// Request is the head of a request.
type Request struct {
	Proto  Proto
	Method string
	// Scheme is "http" or "https": what the client spoke to us, or what an absolute-form target said.
	Scheme string
	// Authority is the host with an optional port: from an absolute-form target if there is one, else from Host
	// (RFC 9112 section 3.2.2). Empty only for HTTP/1.0 without Host.
	Authority string
	// Path is the origin-form target: absolute path with its query ("/a/b?c=d"), "*" for OPTIONS *, empty for CONNECT.
	Path   string
	Header Header
	Body   Body
	// KeepAlive says whether the connection may carry another request after this one.
	KeepAlive bool
	// Upgrade is the value of the Upgrade field when Connection lists it, else empty. An extended CONNECT of HTTP/2 (RFC 8441) is a
	// GET with the value of :protocol here.
	Upgrade string
	// ExpectContinue is set by "Expect: 100-continue".
	ExpectContinue bool
	// Absolute is set when the client sent an absolute-form target or CONNECT, that is, spoke to a proxy by choice.
	Absolute bool
}

// Response is the head of a response.
type Response struct {
	Proto  Proto
	Status int
	Reason string // reason phrase as received, may be empty
	Header Header
	Body   Body
	// KeepAlive says whether the connection that carried it may be used again once the body was read.
	KeepAlive bool
	// Upgrade is the protocol of a 101, else empty.
	Upgrade string
}

// Reset clears r for reuse and keeps the header's storage.
func (r *Request) Reset() {
	h := r.Header
	h.Reset()
	*r = Request{Header: h}
}

// Reset clears r for reuse and keeps the header's storage.
func (r *Response) Reset() {
	h := r.Header
	h.Reset()
	*r = Response{Header: h}
}

// SplitPath gives the path without its query, and the query without its question mark.
func (r *Request) SplitPath() (path, query string) {
	for i := 0; i < len(r.Path); i++ {
		if r.Path[i] == '?' {
			return r.Path[:i], r.Path[i+1:]
		}
	}
	return r.Path, ""
}

// Lookup gives a field as conditions see it: ":method", ":scheme", ":authority" (also as "host") and ":path" (with its query) come
// from the request line, and a field that occurs several times is joined by commas (RFC 9110 section 5.3). It allocates only to
// join.
func (r *Request) Lookup(name string) (value string, present bool) {
	if name == "" {
		return "", false
	}
	if name[0] == ':' {
		return r.pseudo(name)
	}
	if EqualFold(name, "host") {
		return r.Authority, r.Authority != ""
	}
	for _, f := range r.Header.fields {
		switch {
		case !EqualFold(f.Name, name):
		case present:
			value += "," + f.Value
		default:
			value, present = f.Value, true
		}
	}
	return value, present
}

func (r *Request) pseudo(name string) (value string, present bool) {
	switch name {
	case ":method":
		value = r.Method
	case ":scheme":
		value = r.Scheme
	case ":authority":
		value = r.Authority
	case ":path":
		value = r.Path
	}
	return value, value != ""
}

// ParseLength takes a Content-Length: 1*DIGIT that fits an int64 (RFC 9110 section 8.6). No sign, no space, no list.
func ParseLength(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 || n > (math.MaxInt64-int64(d))/10 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}
