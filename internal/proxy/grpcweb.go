package proxy

import (
	"errors"
	"io"

	"github.com/weftmesh/weft/internal/proxy/filter/grpcweb"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// webClient is a client of gRPC-Web, seen as one of gRPC.
type webClient struct {
	clientSide
	call    grpcweb.Call
	decoder grpcweb.Decoder
	encoder grpcweb.Encoder
	text    []byte // as it is read
	bytes   []byte // the storage of decoded
	decoded []byte // and not read yet
	ended   bool   // the text has
	framed  bool   // the response is one of gRPC with a body, whose end holds the trailers
}

// translate takes a request of gRPC-Web for one of gRPC, where the listener says so.
func (x *exchange) translate() {
	if x.http == nil || !x.http.GRPCWeb || x.isGRPC {
		return
	}
	if call, ok := grpcweb.Enter(&x.req); ok {
		x.down, x.isGRPC = &webClient{clientSide: x.down, call: call}, true
	}
}

// translated reports whether the request was one of gRPC-Web. What it is now knows HTTP/2 alone.
func (x *exchange) translated() bool {
	_, ok := x.down.(*webClient)
	return ok
}

// Err tells what ended the client's stream, where it is one.
func (c *webClient) Err() error {
	if s, ok := c.clientSide.(interface{ Err() error }); ok {
		return s.Err()
	}
	return nil
}

// BodyBuffered implements relay.Source: text of less than a quad gives nothing to read.
func (c *webClient) BodyBuffered() int {
	n := c.clientSide.BodyBuffered()
	if c.call.TextIn && n < c.decoder.Missing() {
		n = 0
	}
	return len(c.decoded) + n
}

// BodyDone implements clientSide.
func (c *webClient) BodyDone() bool { return len(c.decoded) == 0 && c.clientSide.BodyDone() }

// ReadBody implements relay.Source.
func (c *webClient) ReadBody(p []byte) (int, error) {
	if !c.call.TextIn {
		return c.clientSide.ReadBody(p)
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
func (c *webClient) readText() error {
	if c.text == nil {
		c.text = make([]byte, textBuffer)
	}
	n, err := c.clientSide.ReadBody(c.text)
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

// WriteResponse implements replier.
func (c *webClient) WriteResponse(r *message.Response) error {
	c.framed = c.call.Leave(r) && r.Body.Kind != message.NoBody
	return c.clientSide.WriteResponse(r)
}

// WriteBody implements relay.Sink.
func (c *webClient) WriteBody(p []byte) error {
	if !c.framed || !c.call.TextOut {
		return c.clientSide.WriteBody(p)
	}
	return c.clientSide.WriteBody(c.encoder.Encode(p))
}

// Flush implements relay.Sink: what was written is whole for the client.
func (c *webClient) Flush() error {
	if err := c.pad(); err != nil {
		return err
	}
	return c.clientSide.Flush()
}

func (c *webClient) pad() error {
	text := c.encoder.Flush()
	if len(text) == 0 {
		return nil
	}
	return c.clientSide.WriteBody(text)
}

// FinishBody implements relay.Sink: trailers are the last frame of the body.
func (c *webClient) FinishBody(trailers *message.Header) error {
	if c.framed {
		if err := c.WriteBody(grpcweb.Trailers(trailers)); err != nil {
			return err
		}
		if err := c.pad(); err != nil {
			return err
		}
		trailers = nil
	}
	return c.clientSide.FinishBody(trailers)
}
