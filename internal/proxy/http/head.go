package http1

import (
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// headWriter appends the field lines of one head, with framing and connection fields of the codec's own making.
type headWriter struct {
	body       message.Body // what Content-Length and Transfer-Encoding are to say; NoBody: neither
	keepLength bool         // copy Content-Length: it describes a body that is not sent (HEAD, 304)
	host       bool         // a request: write Host
	authority  string
	close      bool // Connection: close
	keepAlive  bool // Connection: keep-alive, for HTTP/1.0
	upgrade    string

	te, framed, hosted bool // written so far
}

// fields appends h and the fields that h lacks, and the empty line. It fails with ErrBadHead.
func (w *headWriter) fields(b []byte, h *message.Header) ([]byte, error) {
	if w.host && !hasHost(h) {
		if b = w.field(b, "Host", w.authority); b == nil {
			return nil, ErrBadHead
		}
		w.hosted = true
	}
	for i := range h.Len() {
		if line := h.Line(i); line != "" && !ours(h.Name(i)) {
			b = append(b, line...) // it was checked when it came
			continue
		}
		f := h.At(i)
		if b = w.one(b, f.Name, f.Value); b == nil {
			return nil, ErrBadHead
		}
	}
	if !w.framed {
		b = w.framing(b, "Content-Length", "Transfer-Encoding")
	}
	if b = w.connection(b); b == nil {
		return nil, ErrBadHead
	}
	return append(b, '\r', '\n'), nil
}

// ours reports whether one looks at fields of that name.
func ours(name string) bool {
	return framingName(name) || len(name) == 2 && message.EqualFold(name, "TE")
}

func hasHost(h *message.Header) bool {
	_, ok := h.Get("Host")
	return ok
}

// one appends a field of the list, or what the codec has to say in its place. It gives nil for a field that breaks the head.
func (w *headWriter) one(b []byte, name, value string) []byte {
	if framingName(name) {
		switch len(name) {
		case len("Host"):
			if !w.host {
				break
			}
			if w.hosted {
				return b
			}
			w.hosted = true
			return w.field(b, name, w.authority)
		case len("Content-Length"):
			if w.keepLength {
				break
			}
			if w.body.Kind == message.Sized && !w.framed {
				return w.framing(b, name, "")
			}
			return b
		case len("Transfer-Encoding"):
			if w.body.Kind == message.Chunked && !w.framed {
				return w.framing(b, "", name)
			}
			return b
		default:
			return b
		}
	}
	if len(name) == 2 && message.EqualFold(name, "TE") {
		w.te = true
	}
	return w.field(b, name, value)
}

func (w *headWriter) field(b []byte, name, value string) []byte {
	if !message.IsToken(name) || !message.ValidValue(raw(value)) {
		return nil
	}
	return appendField(b, name, value)
}

// framing appends the field that delimits the body, by the name in which the head had it.
func (w *headWriter) framing(b []byte, length, coding string) []byte {
	w.framed = true
	switch w.body.Kind {
	case message.Sized:
		b = append(b, length...)
		b = append(b, ':', ' ')
		b = strconv.AppendInt(b, w.body.Length, 10)
		return append(b, '\r', '\n')
	case message.Chunked:
		return appendField(b, coding, "chunked")
	}
	return b
}

// connection lists TE when it is there (RFC 9110 section 10.1.4).
func (w *headWriter) connection(b []byte) []byte {
	option := ""
	switch {
	case w.upgrade != "":
		if b = w.field(b, "Upgrade", w.upgrade); b == nil {
			return nil
		}
		if option = "Upgrade"; w.close {
			option = "Upgrade, close"
		}
	case w.close:
		option = "close"
	case w.keepAlive:
		option = "keep-alive"
	}
	switch {
	case w.te && option != "":
		b = append(b, "Connection: TE, "...)
	case w.te:
		return append(b, "Connection: TE\r\n"...)
	case option != "":
		b = append(b, "Connection: "...)
	default:
		return b
	}
	return append(append(b, option...), '\r', '\n')
}

// framingName reports whether a field of that name is made by the codec and never copied.
func framingName(name string) bool {
	switch len(name) {
	case len("Host"):
		return message.EqualFold(name, "Host")
	case len("Upgrade"):
		return message.EqualFold(name, "Upgrade")
	case len("Connection"):
		return message.EqualFold(name, "Connection") || message.EqualFold(name, "Keep-Alive")
	case len("Content-Length"):
		return message.EqualFold(name, "Content-Length")
	case len("Proxy-Connection"):
		return message.EqualFold(name, "Proxy-Connection")
	case len("Transfer-Encoding"):
		return message.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

// StripHopByHop removes the fields that concern one connection only (RFC 9110 section 7.6.1) and those that Connection
// lists. TE keeps "trailers" if it had it. Call it on a head before it is changed and forwarded: the lists are the sender's,
// and must not reach the fields that the proxy adds.
//
// A list cannot remove Host, Content-Length, Transfer-Encoding or Expect: a sender must not name fields meant for all
// recipients, and without these the message would mean something else to the next one.
func StripHopByHop(h *message.Header) {
	hop := false
	for i := 0; i < h.Len(); i++ {
		name := h.Name(i)
		if len(name) == len("Connection") && message.EqualFold(name, "Connection") {
			hop = true
			i -= stripListed(h, h.At(i).Value, i)
		} else if !hop {
			hop = hopName(name)
		}
	}
	if !hop {
		return
	}
	if !keepsTrailers(h) {
		h.DelFunc(hopName)
		return
	}
	h.Set("TE", "trailers")
	h.DelFunc(func(name string) bool { return len(name) > len("TE") && hopName(name) })
}

func hopName(name string) bool {
	switch len(name) {
	case len("TE"):
		return message.EqualFold(name, "TE")
	case len("Host"):
		return false
	case len("HTTP2-Settings"):
		return message.EqualFold(name, "HTTP2-Settings")
	}
	return framingName(name)
}

// stripListed removes the listed fields and gives how many of them stood before index at.
func stripListed(h *message.Header, list string, at int) int {
	if list == "keep-alive" || list == "close" {
		return 0
	}
	before := 0
	for list != "" {
		var name string
		name, list = cutElement(list)
		if name == "" || hopName(name) || endToEnd(name) {
			continue
		}
		for i := range min(at-before, h.Len()) {
			if message.EqualFold(h.Name(i), name) {
				before++
			}
		}
		h.Del(name)
	}
	return before
}

func endToEnd(name string) bool {
	return message.EqualFold(name, "Host") || message.EqualFold(name, "Content-Length") || message.EqualFold(name, "Expect")
}

func keepsTrailers(h *message.Header) bool {
	for v := range h.Values("TE") {
		for v != "" {
			var coding string
			coding, v = cutElement(v)
			if message.EqualFold(coding, "trailers") {
				return true
			}
		}
	}
	return false
}
