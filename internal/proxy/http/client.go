package http1

import (
	"io"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// ClientConn is the upstream side of a connection: it writes requests and reads responses. The package comment gives the
// order of calls, the rules for goroutines and how long strings live.
type ClientConn struct {
	c conn.Conn // set once

	input  // owned by the reading goroutine
	output // owned by the writing goroutine

	// Of the current exchange. Written by WriteRequest, then owned by the reading goroutine.
	ask      asked
	started  bool // bytes of a response have arrived
	keep     bool // the response lets the connection persist
	awaiting bool // the final response's head is to come
	informed int  // informational responses seen
}

// NewClientConn speaks to the server on c. A nil limits means DefaultLimits.
func NewClientConn(c conn.Conn, limits *Limits) *ClientConn {
	if limits == nil {
		limits = &defaultLimits
	}
	cc := &ClientConn{c: c, input: input{c: c, lim: limits}, output: output{c: c}}
	cc.input.beginBody(message.Body{})
	return cc
}

// WriteRequest writes a head, always as HTTP/1.1 and in origin-form (CONNECT: authority-form, from Authority). It need not
// leave before Flush or FinishBody; call FinishBody also when there is no body. Host is r.Authority, empty if that is. A
// request for upgrade is one with r.Upgrade set. ErrBadHead leaves the connection as it was.
func (c *ClientConn) WriteRequest(r *message.Request) error {
	if c.output.err != nil {
		return c.output.err
	}
	if c.awaiting || c.output.open {
		return ErrState
	}
	target := r.Path
	if r.Method == "CONNECT" {
		target = r.Authority
	}
	if !message.IsToken(r.Method) || target == "" || !message.TargetChars.All(target) || r.Body.Kind == message.UntilClose {
		return ErrBadHead
	}
	if r.Authority != "" && !message.ValidAuthority(r.Authority) {
		return ErrBadHead
	}
	w := headWriter{host: true, authority: r.Authority, upgrade: r.Upgrade, body: r.Body}
	if r.Body.Kind == message.NoBody && expectsContent(r.Method) {
		w.body.Kind = message.Sized
	}
	c.output.acquire()
	b := append(append(c.output.buf, r.Method...), ' ')
	b = append(append(b, target...), " HTTP/1.1\r\n"...)
	b, err := w.fields(b, &r.Header)
	if err != nil {
		c.output.buf = c.output.buf[:0]
		return err
	}
	c.output.buf = b
	c.output.begin(r.Body, false)
	c.ask, c.started, c.keep, c.awaiting, c.informed = askedBy(r), false, false, true, 0
	c.input.beginBody(message.Body{})
	return nil
}

// expectsContent is RFC 9110 section 8.6: these say "Content-Length: 0" when they have none.
func expectsContent(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}

// WaitResponse blocks, holding no read buffer, until ReadResponse has something to read or the read deadline passes.
func (c *ClientConn) WaitResponse() error {
	if c.input.buffered() > 0 {
		return nil
	}
	return c.c.Wait()
}

// ReadResponse reads the head of a response into r. A response with a Status below 200 other than 101 is informational:
// call it again for the next. It fails with io.EOF if the server closed the connection without a byte of a response,
// io.ErrUnexpectedEOF if within the head, *Error with Status 502 if the response must be refused, or the connection's error.
// It does not flush.
func (c *ClientConn) ReadResponse(r *message.Response) error {
	if !c.awaiting {
		return ErrState
	}
	r.Reset()
	head, err := c.input.readHead(c.input.lim.HeadBytes, nil)
	c.started = c.started || err == nil || c.input.buffered() > 0
	if err == nil {
		err = parseResponse(head, c.ask, c.input.lim, r)
	}
	if err == nil && r.Status < 200 && r.Status != 101 {
		if c.informed++; c.informed <= maxInformational {
			return nil
		}
		err = errInformational
	}
	c.awaiting = false
	if err != nil {
		return asUpstream(err)
	}
	c.keep = r.KeepAlive
	c.input.beginBody(r.Body)
	return nil
}

// ReadBody is as on the server's side; broken framing is *Error with Status 502.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	n, err := c.input.ReadBody(p)
	if err != nil && err != io.EOF {
		err = asUpstream(err)
	}
	return n, err
}

// ResponseStarted reports whether any byte of a response to the current request has arrived. If none has and the
// connection failed, and it had carried a request before, the server may have closed it without having seen this one.
func (c *ClientConn) ResponseStarted() bool { return c.started }

// Reusable reports whether the connection can carry another request: this one and its response were carried whole, the
// server lets the connection persist, and it has sent nothing beyond the response.
func (c *ClientConn) Reusable() bool {
	return c.keep && !c.awaiting && c.output.finished() && c.input.BodyDone() && c.input.buffered() == 0
}

// EndExchange ends the life of the response's strings, lets go of the buffers and reports whether the connection can carry
// another request. If it reports false, Close.
func (c *ClientConn) EndExchange() bool {
	reuse := c.Reusable()
	c.keep = false
	c.output.release()
	c.input.release()
	return reuse
}

// Quiet reports whether a connection between exchanges is fit for the next request: its server has neither closed it nor
// sent anything unasked. It does not block. A server may still close it a moment later.
func (c *ClientConn) Quiet() bool { return c.input.buffered() == 0 && conn.Quiet(c.c) }

// Conn gives the connection, for its deadlines and addresses.
func (c *ClientConn) Conn() conn.Conn { return c.c }

// Hijack flushes and hands the connection over to another protocol, after a 101 or a 2xx to CONNECT, with the bytes that
// were read beyond the response. It ends the life of the response's strings; c must not be used again.
func (c *ClientConn) Hijack() (conn.Conn, error) {
	err := c.Flush()
	c.output.release()
	c.keep = false
	return conn.WithPrefix(c.c, c.input.take()), err
}

// Close closes the connection and lets go of the buffers. Strings of a response die.
func (c *ClientConn) Close() error {
	err := c.c.Close()
	c.output.release()
	c.input.discard()
	return err
}
