package side

import (
	"errors"
	"io"

	"github.com/weftmesh/weft/internal/proxy/filter/grpcweb"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Web is a client of gRPC-Web, seen as one of gRPC.
type Web struct {
	Client
	call    grpcweb.Call
	decoder grpcweb.Decoder
	encoder grpcweb.Encoder
	text    []byte // as it is read
	bytes   []byte // the storage of decoded
	decoded []byte // and not read yet
	ended   bool   // the text has
	framed  bool   // the response is one of gRPC with a body, whose end holds the trailers
}

// NewWeb makes a client whose request was one of gRPC-Web.
func NewWeb(c Client, call grpcweb.Call) *Web {
	return &Web{Client: c, call: call}
}

// Err tells what ended the client's stream, where it is one.
func (c *Web) Err() error {
	if s, ok := c.Client.(interface{ Err() error }); ok {
		return s.Err()
	}
	return nil
}

// BodyBuffered implements relay.Source: text of less than a quad gives nothing to read.
func (c *Web) BodyBuffered() int {
	n := c.Client.BodyBuffered()
	if c.call.TextIn && n < c.decoder.Missing() {
		n = 0
	}
	return len(c.decoded) + n
}

// BodyDone implements Client.
func (c *Web) BodyDone() bool { return len(c.decoded) == 0 && c.Client.BodyDone() }

// ReadBody implements relay.Source.
func (c *Web) ReadBody(p []byte) (int, error) {
	if !c.call.TextIn {
		return c.Client.ReadBody(p)
	}
	for len(c.decoded) == 0 {
		if c.ended {
			return 0, io.EOF
		}
		if err := c.readText(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.decoded)
	c.decoded = c.decoded[n:]
	return n, nil
}

// textBuffer is how much text is read at a time.
const textBuffer = 4 << 10

// readText decodes what comes next.
func (c *Web) readText() error {
	if c.text == nil {
		c.text = make([]byte, textBuffer)
	}
	n, err := c.Client.ReadBody(c.text)
	c.ended = errors.Is(err, io.EOF)
	var bad error
	if c.decoded, bad = c.decoder.Decode(c.bytes[:0], c.text[:n]); bad == nil && c.ended {
		bad = c.decoder.End()
	}
	c.bytes = c.decoded
	switch {
	case bad != nil:
		return &http1.Error{Status: 400, Reason: bad.Error()}
	case c.ended:
		return nil
	}
	return err
}

// WriteResponse implements Client.
func (c *Web) WriteResponse(r *message.Response) error {
	c.framed = c.call.Leave(r) && r.Body.Kind != message.NoBody
	return c.Client.WriteResponse(r)
}

// WriteBody implements relay.Sink.
func (c *Web) WriteBody(p []byte) error {
	if !c.framed || !c.call.TextOut {
		return c.Client.WriteBody(p)
	}
	return c.Client.WriteBody(c.encoder.Encode(p))
}

// Flush implements relay.Sink: what was written is whole for the client.
func (c *Web) Flush() error {
	if err := c.pad(); err != nil {
		return err
	}
	return c.Client.Flush()
}

func (c *Web) pad() error {
	text := c.encoder.Flush()
	if len(text) == 0 {
		return nil
	}
	return c.Client.WriteBody(text)
}

// FinishBody implements relay.Sink: trailers are the last frame of the body.
func (c *Web) FinishBody(trailers *message.Header) error {
	if c.framed {
		if err := c.WriteBody(grpcweb.Trailers(trailers)); err != nil {
			return err
		}
		if err := c.pad(); err != nil {
			return err
		}
		trailers = nil
	}
	return c.Client.FinishBody(trailers)
}
