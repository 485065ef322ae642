package http1

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// ServerConn is the downstream side of a connection: it reads requests and writes responses. The package comment gives the
// order of calls, the rules for goroutines and how long strings live.
type ServerConn struct {
	// Set once.
	c      conn.Conn
	scheme string

	closing atomic.Bool // CloseAfter

	input  // owned by the reading goroutine
	output // owned by the writing goroutine

	// Of the current request; written by ReadRequest, read by both halves.
	ask       asked
	proto     message.Proto
	keep      bool // the request lets the connection persist
	expect    bool // the client may hold its body back until a 100
	continued bool // it was told to go on; owned by the writing goroutine
	announced bool // the response said that the connection persists
	long      bool // the request's body is longer than what is drained
	awaiting  bool // a request was read, or refused, and has no final response yet
}

// NewServerConn serves c, whose clients mean scheme ("http" or "https") by an origin-form target. A nil limits means
// DefaultLimits.
func NewServerConn(c conn.Conn, scheme string, limits *Limits) *ServerConn {
	if limits == nil {
		limits = &defaultLimits
	}
	s := &ServerConn{c: c, scheme: scheme, input: input{c: c, lim: limits}, output: output{c: c}}
	s.input.beginBody(message.Body{})
	return s
}

// WaitRequest blocks, holding no buffer, until a request's first bytes, the end of the connection or an error can be read,
// or the read deadline passes. Bytes of a pipelined request end it at once.
func (s *ServerConn) WaitRequest() error {
	if s.input.buffered() > 0 {
		return nil
	}
	s.input.release()
	return s.c.Wait()
}

// ReadRequest reads a head into r. It fails with io.EOF if the client closed the connection between requests, *Error if the
// request must be refused (answer with its Status through WriteResponse, then Shut), io.ErrUnexpectedEOF if the connection
// ended within the head, or the connection's error, os.ErrDeadlineExceeded among them.
func (s *ServerConn) ReadRequest(r *message.Request) error {
	r.Reset()
	s.ask, s.proto, s.keep, s.expect = asked{}, message.HTTP11, false, false
	s.continued, s.announced, s.long, s.awaiting = false, false, false, true
	s.input.beginBody(message.Body{})
	err := s.input.skipEmptyLine()
	if err != nil {
		return err
	}
	if !message.TokenChars[s.input.blk.b[s.input.r]] {
		return errMethod // TLS or other bytes that may never make a line: do not wait for one
	}
	head, err := s.input.readHead(s.input.lim.TargetBytes, checkRequestLine)
	if err != nil {
		return err
	}
	if err = parseRequest(head, s.scheme, s.input.lim, r); err != nil {
		return err
	}
	s.ask, s.proto, s.keep, s.expect = askedBy(r), r.Proto, r.KeepAlive, r.ExpectContinue
	s.long = r.Body.Kind == message.Sized && r.Body.Length > s.input.lim.DrainBytes
	s.input.beginBody(r.Body)
	return nil
}

// CloseAfter makes the response whose head is written next the last one of the connection. Anyone may call it.
func (s *ServerConn) CloseAfter() { s.closing.Store(true) }

// WriteInformational sends a 1xx other than 101 at once. An HTTP/1.0 client, which cannot take one, is sent nothing.
func (s *ServerConn) WriteInformational(status int, h *message.Header) error {
	if status < 100 || status > 199 || status == 101 || !s.awaiting {
		return ErrState
	}
	if s.proto == message.HTTP10 {
		return nil
	}
	s.continued = s.continued || status == 100
	if err := s.writeHead(status, http.StatusText(status), h, &headWriter{}); err != nil {
		return err
	}
	return s.Flush()
}

// WriteResponse writes the final head (or 101) of the current request, also after ReadRequest failed with *Error. It need not
// leave before Flush or FinishBody. r.Body says what will be written; a body of unknown length is chunked for HTTP/1.1 and
// ends with the connection for HTTP/1.0. Whether the connection persists is decided and told here; r.KeepAlive, which speaks
// of the connection that r came from, is not looked at.
func (s *ServerConn) WriteResponse(r *message.Response) error {
	if !s.awaiting || r.Status < 200 && r.Status != 101 || r.Status > 999 {
		return ErrState
	}
	s.awaiting = false
	w := headWriter{upgrade: r.Upgrade}
	if s.proto == message.HTTP10 {
		w.upgrade = "" // which such a client cannot ask for
	}
	body, discard := s.responseBody(r, &w)
	// A client may send a tunnel's bytes before it knows that there is none: they must not be read as requests.
	s.announced = s.keep && !s.closing.Load() && body.Kind != message.UntilClose && !s.ask.connect && r.Status != 101 &&
		(s.input.body.done.Load() || s.mayDrain(r.Status))
	w.close = !s.announced && !s.ask.tunnel(r.Status)
	w.keepAlive = s.announced && s.proto == message.HTTP10
	reason := r.Reason
	if reason == "" {
		reason = http.StatusText(r.Status)
	}
	if err := s.writeHead(r.Status, reason, &r.Header, &w); err != nil {
		return err
	}
	s.output.begin(body, discard)
	return nil
}

// mayDrain reports whether the rest of a request's body, which has not been read to its end, may be waited for behind a response.
// It is not read where the client may hold it back, where its framing is lost, and, behind an error, where there is too much of it.
func (s *ServerConn) mayDrain(status int) bool {
	return (!s.expect || s.continued) && !s.input.body.broken.Load() && !(s.long && status >= 400)
}

// responseBody gives the framing on the wire and what the head is to say of it.
func (s *ServerConn) responseBody(r *message.Response, w *headWriter) (b message.Body, discard bool) {
	if b = r.Body; s.ask.bodyless(r.Status) {
		// RFC 9110 section 8.6: no length in 1xx, 204 and in 2xx to CONNECT; that of HEAD and 304 is the one a GET would have.
		if r.Status == 304 || s.ask.head && r.Status != 204 {
			w.keepLength = b.Kind == message.NoBody
			if b.Kind == message.Sized {
				w.body = b
			}
		}
		return message.Body{}, true
	}
	switch b.Kind {
	case message.NoBody:
		b = message.Body{Kind: message.Sized}
	case message.Chunked, message.UntilClose:
		if b = (message.Body{Kind: message.Chunked}); s.proto == message.HTTP10 {
			b.Kind = message.UntilClose
		}
	}
	w.body = b
	return b, false
}

func (s *ServerConn) writeHead(status int, reason string, h *message.Header, w *headWriter) error {
	if s.output.err != nil {
		return s.output.err
	}
	s.output.acquire()
	start := len(s.output.buf)
	b := append(s.output.buf, "HTTP/1.1 "...)
	b = append(b, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10), ' ')
	if !message.ValidValue(raw(reason)) {
		return ErrBadHead
	}
	b = append(append(b, reason...), '\r', '\n')
	b, err := w.fields(b, h)
	if err != nil {
		s.output.buf = s.output.buf[:start]
		s.awaiting = true
		return err
	}
	s.output.buf = b
	return nil
}

// Reusable reports whether the connection can carry another request: the response was finished and said so, and nothing
// failed. The rest of an unread body is EndExchange's business.
func (s *ServerConn) Reusable() bool {
	return s.announced && s.output.finished() && (s.input.body.err == nil || s.input.body.err == io.EOF)
}

// EndExchange ends the life of the request's strings, lets go of the buffers and reports whether the connection can carry
// another request. To that end it reads what is left of the request's body within the limits for draining, for which it sets
// the read deadline and clears it. If it reports false, call Shut.
func (s *ServerConn) EndExchange() bool {
	reuse := s.Reusable() && s.drain()
	s.output.release()
	s.input.release()
	return reuse
}

func (s *ServerConn) drain() bool {
	if s.input.BodyDone() {
		return true
	}
	if s.expect && !s.continued || s.input.body.kind == message.Sized && s.input.body.left > s.input.lim.DrainBytes {
		return false
	}
	s.c.SetReadDeadline(time.Now().Add(s.input.lim.DrainTime))
	defer s.c.SetReadDeadline(time.Time{})
	k := getBlock(4 * smallBlock)
	defer putBlock(k)
	for total := int64(0); total <= s.input.lim.DrainBytes; {
		n, err := s.input.ReadBody(k.b)
		if total += int64(n); err != nil {
			return err == io.EOF
		}
	}
	return false
}

// Shut closes the connection so that the last response arrives: closing a TCP connection with unread input resets it, and
// a reset destroys what the client has not read yet (a reset is what becomes of a body that ends with the connection and is not whole). So it ends the sending side and reads on for a while (RFC 9112 section
// 9.6), for as long as draining may take.
func (s *ServerConn) Shut() error {
	s.output.release()
	unread := s.input.body.err != io.EOF || s.input.buffered() > 0 || s.awaiting
	if unread && s.output.err == nil && !s.output.untilClose() && s.c.CloseWrite() == nil {
		s.linger()
	}
	s.input.discard()
	return s.c.Close()
}

func (s *ServerConn) linger() {
	s.c.SetReadDeadline(time.Now().Add(s.input.lim.DrainTime))
	k := getBlock(4 * smallBlock)
	defer putBlock(k)
	for {
		if _, err := s.c.Read(k.b); err != nil {
			return
		}
	}
}

// Hijack flushes and hands the connection over to another protocol, after a 101 or a 2xx to CONNECT, with the bytes that
// were read beyond the request. It ends the life of the request's strings; s must not be used again.
func (s *ServerConn) Hijack() (conn.Conn, error) {
	err := s.Flush()
	s.output.release()
	s.announced = false
	return conn.WithPrefix(s.c, s.input.take()), err
}

// Conn gives the connection, for its deadlines and addresses.
func (s *ServerConn) Conn() conn.Conn { return s.c }
