// Package grpcweb translates between gRPC-Web, which browsers can speak, and gRPC: trailers travel in the body, and bodies may be
// text. Source: PROTOCOL-WEB.md of gRPC, and Envoy's filter envoy.filters.http.grpc_web, whose choices in what that leaves open are
// kept.
package grpcweb

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/message"
)

const (
	grpcMedia = "application/grpc"
	webMedia  = "application/grpc-web"
	textMedia = "application/grpc-web-text"
)

// Call is how a call's bodies are written: in bytes, or in text of base64.
type Call struct{ TextIn, TextOut bool }

// Enter makes a request of gRPC-Web one of gRPC; it is false, and the request as it was, for others.
func Enter(r *message.Request) (c Call, ok bool) {
	if r.Method != "POST" {
		return Call{}, false
	}
	v, _ := r.Header.Get("Content-Type")
	suffix, text, ok := cutMedia(v)
	if !ok {
		return Call{}, false
	}
	c = Call{TextIn: text, TextOut: text}
	if accept, ok := r.Header.Get("Accept"); ok {
		if _, text, ok := cutMedia(accept); ok {
			c.TextOut = text
		}
	}
	r.Header.Set("Content-Type", grpcMedia+suffix)
	r.Header.Set("TE", "trailers")
	r.Header.Set("Grpc-Accept-Encoding", "identity,deflate,gzip")
	if c.TextIn && r.Body.Kind == message.Sized {
		r.Header.Del("Content-Length")
		r.Body = message.Body{Kind: message.Chunked}
	}
	return c, true
}

// cutMedia takes "application/grpc-web" or "-web-text" off a media type, and leaves "+proto" and parameters.
func cutMedia(v string) (suffix string, text, ok bool) {
	for _, media := range [...]string{textMedia, webMedia} {
		if len(v) < len(media) || !message.EqualFold(v[:len(media)], media) {
			continue
		}
		if rest := v[len(media):]; rest == "" || rest[0] == '+' || rest[0] == ';' {
			return rest, media == textMedia, true
		}
	}
	return "", false, false
}

// Leave makes the head of a response of gRPC one of gRPC-Web. It is false for others, which stay as they are.
func (c Call) Leave(r *message.Response) bool {
	v, _ := r.Header.Get("Content-Type")
	if len(v) < len(grpcMedia) || !message.EqualFold(v[:len(grpcMedia)], grpcMedia) {
		return false
	}
	suffix := v[len(grpcMedia):]
	switch {
	case suffix == "":
		suffix = "+proto"
	case suffix[0] != '+' && suffix[0] != ';':
		return false
	}
	media := webMedia
	if c.TextOut {
		media = textMedia
	}
	r.Header.Set("Content-Type", media+suffix)
	r.Header.Del("Trailer") // what it names comes in the body
	if r.Body.Kind != message.NoBody {
		r.Header.Del("Content-Length")
		r.Body = message.Body{Kind: message.Chunked}
	}
	return true
}

// trailerFlag marks the frame that holds trailers in place of a message.
const trailerFlag = 0x80

// Trailers gives the frame that stands for trailers, at the end of a response's body.
func Trailers(h *message.Header) []byte {
	b := make([]byte, 5, 64)
	b[0] = trailerFlag
	if h != nil {
		for f := range h.All() {
			b = append(append(append(append(b, strings.ToLower(f.Name)...), ':'), f.Value...), '\r', '\n')
		}
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-5))
	return b
}

// ErrText is text that is no base64.
var ErrText = errors.New("the body is not valid base64, which application/grpc-web-text asks for")

// Decoder reads base64 that comes in parts, and of which parts may be padded each (PROTOCOL-WEB.md). The zero value is at the
// beginning.
type Decoder struct {
	quad [4]byte
	have int
}

// Decode appends the bytes that text stands for; what does not make a whole quad yet is kept.
func (d *Decoder) Decode(out, text []byte) ([]byte, error) {
	for _, c := range text {
		d.quad[d.have] = c
		if d.have++; d.have < len(d.quad) {
			continue
		}
		d.have = 0
		var three [3]byte
		n, err := base64.StdEncoding.Decode(three[:], d.quad[:])
		if err != nil {
			return out, ErrText
		}
		out = append(out, three[:n]...)
	}
	return out, nil
}

// Missing is how many characters the next quad lacks.
func (d *Decoder) Missing() int { return len(d.quad) - d.have }

// End reports text that ends within a quad.
func (d *Decoder) End() error {
	if d.have > 0 {
		return ErrText
	}
	return nil
}

// Encoder writes base64 of what comes in parts. The zero value is at the beginning.
type Encoder struct {
	rest [3]byte
	have int
	text []byte
}

// Encode gives the text of whole triples, and keeps the rest. It is valid until the next call.
func (e *Encoder) Encode(p []byte) []byte {
	e.text = e.text[:0]
	for e.have > 0 && len(p) > 0 {
		e.rest[e.have] = p[0]
		p = p[1:]
		if e.have++; e.have == len(e.rest) {
			e.have = 0
			e.text = base64.StdEncoding.AppendEncode(e.text, e.rest[:])
		}
	}
	whole := len(p) - len(p)%len(e.rest)
	e.text = base64.StdEncoding.AppendEncode(e.text, p[:whole])
	e.have += copy(e.rest[e.have:], p[whole:])
	return e.text
}

// Flush gives the text of the rest, padded.
func (e *Encoder) Flush() []byte {
	e.text = base64.StdEncoding.AppendEncode(e.text[:0], e.rest[:e.have])
	e.have = 0
	return e.text
}
