package http2

import (
	"strconv"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http2/head"
	"github.com/weftmesh/weft/internal/proxy/http2/hpack"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// ServerConn is the downstream side of a connection. The package comment gives the order of calls and the rules for goroutines.
type ServerConn struct {
	core

	// Set once.
	scheme string
	handle func(*ServerStream)

	free     []*ServerStream // guarded by mu
	finishBy time.Time       // guarded by mu
	slow     slow.Reader     // of a write to the transport; guarded by mu

	work    chan *ServerStream // hands requests to goroutines that have nothing to do
	workers sync.WaitGroup
}

// NewServerConn serves c, whose clients mean scheme ("http" or "https") when they name none. A nil Options means DefaultOptions. c
// begins with the client's preface; conn.WithPrefix puts back what was sniffed of it. An upgrade from HTTP/1.1 (h2c), which RFC 9113
// withdrew, is not provided.
func NewServerConn(c conn.Conn, scheme string, o *Options) *ServerConn {
	s := &ServerConn{scheme: scheme, work: make(chan *ServerStream)}
	s.core.server = s
	s.core.init(c, o)
	return s
}

// Serve reads until the connection ends and calls handle for each request on a goroutine of its own, which is used again for later
// ones. It returns when all handlers have returned: nil if the connection drained, was closed here, or by the client without a
// stream in flight; else *ConnError or the transport's error.
func (s *ServerConn) Serve(handle func(*ServerStream)) error {
	s.handle = handle
	err := s.run()
	close(s.work)
	s.workers.Wait()
	return err
}

func (s *ServerConn) start(st *ServerStream) {
	select {
	case s.work <- st:
	default:
		s.workers.Add(1)
		go s.worker(st) // ends when tick has nothing for it to do, or with Serve
	}
}

func (s *ServerConn) worker(st *ServerStream) {
	defer s.workers.Done()
	for st != nil {
		s.handle(st)
		s.mu.Lock()
		st.finish()
		st.recycle()
		s.mu.Unlock()
		st = <-s.work
	}
}

// Streams gives how many requests are in flight.
func (s *ServerConn) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// Idle gives for how long the connection has had no stream, as its clock saw it; 0 while it has any.
func (s *ServerConn) Idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active > 0 || s.watchdog.idle.IsZero() {
		return 0
	}
	return time.Since(s.watchdog.idle)
}

// Conn gives the connection, for its addresses.
func (s *ServerConn) Conn() conn.Conn { return s.c }

// Close ends the connection at once, with the streams in flight.
func (s *ServerConn) Close() error {
	s.close(errClosed)
	return nil
}

// Drain asks the client to begin no further streams (RFC 9113 section 6.8): a GOAWAY that lets pass what is on its way, a PING, and
// when that came back the GOAWAY that names the last stream taken. Serve returns once the streams in flight have ended.
func (s *ServerConn) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain(time.Now())
	s.flush(false)
}

func (s *ServerConn) drain(now time.Time) {
	if s.draining || s.err != nil {
		return
	}
	s.draining = true
	s.watchdog.asked = now
	s.room(2*frameHeader + 16)
	s.out.buf = appendGoAway(s.out.buf, maxStreamID, NoError)
	s.out.buf = appendPing(s.out.buf, 0, drainPing)
}

// sayFarewell sends the final GOAWAY. mu is held.
func (s *ServerConn) sayFarewell() {
	if s.farewell {
		return
	}
	s.farewell, s.goAwayMax = true, s.last
	s.room(frameHeader + 8)
	s.out.buf = appendGoAway(s.out.buf, s.last, NoError)
}

// finish ends our side of the transport once everything was said. The client's end then ends the reading. mu is held.
func (s *ServerConn) finish() {
	if !s.farewell || s.finishing || s.active > 0 || s.err != nil || s.out.writing || len(s.out.buf) > 0 {
		return
	}
	s.finishing = true
	if s.c.CloseWrite() != nil {
		s.c.Close()
	}
	s.finishBy = time.Now().Add(finishMost)
	s.bear()
}

// bear lets the client be silent for a while longer, after finish. It may still be taking what lies in the kernel's queue, and says so
// by opening its windows: each such frame, once the connection is closed, would make the kernel reset it and drop the rest. mu is held.
func (s *ServerConn) bear() {
	t := time.Now().Add(finishTime)
	if s.finishBy.Before(t) {
		t = s.finishBy
	}
	s.c.SetReadDeadline(t)
}

const (
	// finishTime is how long a client whose connection has drained may be silent before it is closed from here.
	finishTime = 5 * time.Second
	// finishMost is how long it may take altogether.
	finishMost = 5 * time.Minute
)

// tick ends goroutines that had nothing to do for a while, and an idle connection. mu is held.
func (s *ServerConn) tick(now time.Time) {
	w := &s.watchdog
	if s.active > 0 || s.err != nil { // the connection may have ended during a write of this tick: then nobody takes from work
		return
	}
	if w.idle.IsZero() {
		w.idle = now
		return
	}
	s.dropFree()
	for more := true; more; {
		select {
		case s.work <- nil:
		default:
			more = false
		}
	}
	if s.o.IdleTimeout > 0 && now.Sub(w.idle) > s.o.IdleTimeout {
		s.drain(now)
	}
	s.flush(false)
}

// onRequest takes the head in scratch as a new stream's. mu is held.
func (s *ServerConn) onRequest(id uint32, ended bool) error {
	switch {
	case id&1 == 0:
		return connError(ProtocolError, "client began a stream with an even number")
	case id <= s.last:
		if s.closed.how(id) == 0 {
			return connError(ProtocolError, "stream numbers must rise")
		}
		return s.stray(id, true)
	}
	s.last = id
	switch {
	case id > s.goAwayMax:
		return s.noisy(1) // the GOAWAY has told that it is not taken
	case s.counted >= s.o.MaxStreams, s.active >= 2*s.o.MaxStreams: // as many handlers as that do not merely tidy up
		return s.refuse(id, RefusedStream)
	}
	st := s.take()
	h := s.scratch
	h.Request(&st.req, s.scheme, ended)
	if h.Bad != "" {
		st.req.Reset()
		st.recycle()
		return s.refuse(id, ProtocolError)
	}
	switch {
	case h.Large != nil:
		st.refusal = h.Large
	case h.Unmet:
		st.refusal = head.ErrExpectation
	}
	s.scratch, st.message = st.message, h
	st.begin(id)
	st.declared, st.ask, st.awaiting = h.Length, head.AskedBy(&st.req), true
	st.remoteEnded = ended
	if st.ask.Tunnels() {
		st.declared = -1
	}
	s.streams[id] = &st.stream
	s.starts = append(s.starts, st)
	return nil
}

func (s *ServerConn) take() *ServerStream {
	if n := len(s.free); n > 0 {
		st := s.free[n-1]
		s.free = s.free[:n-1]
		return st
	}
	st := &ServerStream{}
	st.init(&s.core)
	return st
}

// refuse resets a stream that no handler sees. mu is held.
func (s *ServerConn) refuse(id uint32, code ErrCode) error {
	s.room(frameHeader + 4)
	s.out.buf = appendRST(s.out.buf, id, code)
	s.closed.add(id, resetByUs)
	if err := s.tooMuchQueued(); err != nil {
		return err
	}
	return s.faulted()
}

// ServerStream is a request and its response.
type ServerStream struct {
	stream

	// Kept is the handler's, from one request to the next that is served with the same memory.
	Kept any

	req      message.Request // owned by the handler
	refusal  *Error
	awaiting bool // no final response was written yet; owned by the writing goroutine
	ended    bool // guarded by mu
}

// Request gives the request, which the handler may change. What it refers to is valid until EndExchange.
func (s *ServerStream) Request() *message.Request { return &s.req }

// Refusal gives why the request must not be carried out, or nil. It is to be answered with the Status; Request has what was read
// before the limit was met.
func (s *ServerStream) Refusal() *Error { return s.refusal }

// ID gives the stream's number.
func (s *ServerStream) ID() uint32 { return s.id }

// ServerConn gives the stream's connection.
func (s *ServerStream) ServerConn() *ServerConn { return s.c.server }

// WriteInformational sends a 1xx other than 101 at once.
func (s *ServerStream) WriteInformational(status int, h *message.Header) error {
	if status < 100 || status > 199 || status == 101 || !s.awaiting {
		return ErrState
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.head(status, h, &fieldWriter{c: c}, false); err != nil {
		return err
	}
	c.flush(c.active > 1)
	return nil
}

// WriteResponse writes the final head (or 101) of the request, also if it is to be refused. It need not leave before Flush or
// FinishBody. r.Body says what will be written; a body of unknown length ends with the stream.
func (s *ServerStream) WriteResponse(r *message.Response) error {
	if !s.awaiting || r.Status < 200 && (r.Status != 101 || !s.ask.Upgrades()) || r.Status > 999 {
		return ErrState
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	w := fieldWriter{c: c}
	status, end := r.Status, false
	switch {
	case s.ask.Tunnel(r.Status):
		if status == 101 {
			status = 200
		}
	case s.ask.Bodyless(r.Status):
		// RFC 9110 section 8.6: no length in 204; that of HEAD and 304 is the one a GET would have.
		end = true
		if r.Status != 204 {
			w.keepLength = r.Body.Kind == message.NoBody
			w.body = r.Body
		}
	default:
		w.body, end = r.Body, r.Body.Kind == message.NoBody
	}
	if err := s.head(status, &r.Header, &w, end); err != nil {
		return err
	}
	s.awaiting = false
	if s.ask.Tunnel(r.Status) {
		s.beginBody(message.Body{Kind: message.Chunked}, false)
		return nil
	}
	s.beginBody(r.Body, s.ask.Bodyless(r.Status))
	return nil
}

// head queues a head. mu is held.
func (s *ServerStream) head(status int, h *message.Header, w *fieldWriter, end bool) error {
	cost, ok := fieldsCost(h)
	if !ok {
		return ErrBadHead
	}
	if err := s.roomForHead(); err != nil {
		return err
	}
	at, b := s.beginHead(cost + 48)
	var digits [3]byte
	b = s.c.pseudo(b, hpack.StatusIndex(status), ":status", str(strconv.AppendInt(digits[:0], int64(status), 10)))
	s.endHead(at, w.fields(b, h), end)
	return nil
}

// EndExchange ends the life of the request's strings and the stream: a response that was not finished is reset, and so is the
// rest of a request that nobody wanted (RFC 9113 section 8.1). The return of the handler does the same.
func (s *ServerStream) EndExchange() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.finish()
}

// finish does it. mu is held, and may be given up meanwhile.
func (s *ServerStream) finish() {
	c := s.c
	if s.ended {
		return
	}
	s.ended = true
	code := Cancel
	if s.localEnded {
		code = NoError
	} else if s.awaiting {
		code = InternalError
	}
	before := len(c.out.buf)
	s.leave(code)
	if len(c.out.buf) > before {
		c.flush(c.active > 0)
	}
	c.server.finish()
}

// recycle puts the stream back. Nobody uses it any more. mu is held.
func (s *ServerStream) recycle() {
	s.message.Fields = s.req.Header
	s.req = message.Request{}
	s.refusal, s.awaiting = nil, false
	s.ended = false
	s.forget()
	if s.c.err != nil {
		s.still()
		return
	}
	s.c.server.free = append(s.c.server.free, s)
}

// dropFree lets go of what is kept for further streams. mu is held.
func (s *ServerConn) dropFree() {
	for _, st := range s.free {
		st.still()
	}
	s.free = nil
}
