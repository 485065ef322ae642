package http2

import (
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http2/head"
	"github.com/weftmesh/weft/internal/proxy/http2/hpack"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// ClientConn is the upstream side of a connection. The package comment gives the order of calls and the rules for goroutines.
type ClientConn struct {
	core

	// Guarded by mu.
	next    uint32 // the number of the next stream
	refused bool   // the server sent GOAWAY
	free    []*ClientStream
	shutAt  time.Time     // when the connection's window was used up
	opened  chan struct{} // see Opened; nil while nobody waits

	// shut is set while the connection's window is used up; written with mu held.
	shut atomic.Bool

	// ready is closed with the server's first SETTINGS, or the end of the connection.
	ready chan struct{}
	// foreign and unsettled are written before ready is closed.
	foreign   string
	unsettled error
}

// NewClientConn speaks to the server on c. A nil Options means DefaultOptions. Streams may be opened at once.
func NewClientConn(c conn.Conn, o *Options) *ClientConn {
	cc := &ClientConn{next: 1, ready: make(chan struct{})}
	cc.core.client = cc
	cc.core.init(c, o)
	return cc
}

// Run reads until the connection ends, which it must for any response to arrive. It returns nil if the connection was closed here,
// or by the server without a stream in flight; else *ConnError or the transport's error. The transport is closed then.
func (c *ClientConn) Run() error {
	err := c.run()
	if !c.settled {
		close(c.ready)
	}
	return err
}

// Ready gives a channel that is closed when the server's first SETTINGS have come, before which nobody knows how many streams it
// takes, or the connection has ended.
func (c *ClientConn) Ready() <-chan struct{} { return c.ready }

// Unsettled tells, once Ready is closed, why the connection has ended before the server's first SETTINGS; nil if these have come. said is
// the beginning of what the server has answered the preface with, where that was not HTTP/2; else empty. Such a server has not acted on
// a request, whatever was sent.
func (c *ClientConn) Unsettled() (said string, why error) { return c.foreign, c.unsettled }

// Close ends the connection at once, with the streams in flight.
func (c *ClientConn) Close() error {
	c.close(errClosed)
	return nil
}

// Conn gives the connection, for its addresses.
func (c *ClientConn) Conn() conn.Conn { return c.c }

// Streams gives how many streams are open.
func (c *ClientConn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Available gives how many more streams may be opened now.
func (c *ClientConn) Available() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends() {
		return 0
	}
	return max(min(c.o.MaxStreams, c.peer.streams)-c.active, 0)
}

// Shut gives for how long the server has left no room for DATA in the connection's window, which all streams share; 0 while there is
// some.
func (c *ClientConn) Shut() time.Duration {
	if !c.shut.Load() {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut.Load() {
		return 0
	}
	return time.Since(c.shutAt) + 1
}

// Opened gives a channel that is closed when there is room again, or the connection has ended.
func (c *ClientConn) Opened() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut.Load() {
		return alwaysOpen
	}
	if c.opened == nil {
		c.opened = make(chan struct{})
	}
	return c.opened
}

var alwaysOpen = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// reopen takes note that there is room in the connection's window. mu is held.
func (c *ClientConn) reopen() {
	c.shut.Store(false)
	if c.opened != nil {
		close(c.opened)
		c.opened = nil
	}
}

// Draining reports whether the connection takes no further streams: the server said GOAWAY, it ended, or its numbers are used up.
// It can be closed when Streams is 0.
func (c *ClientConn) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends()
}

func (c *ClientConn) ends() bool {
	return c.refused || c.draining || c.err != nil || c.next > maxStreamID-2*uint32(c.o.MaxStreams)
}

// Drain lets the connection take no further streams.
func (c *ClientConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = true
}

// Idle gives for how long the connection has had no stream, as its clock saw it; 0 while it has any.
func (c *ClientConn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active > 0 || c.watchdog.idle.IsZero() {
		return 0
	}
	return time.Since(c.watchdog.idle)
}

// Ping asks the server for a sign of life. If none comes within Options.PingTimeout, the connection ends.
func (c *ClientConn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.watchdog.pinged {
		return
	}
	c.watchdog.pinged, c.watchdog.asked = true, time.Now()
	c.room(frameHeader + 8)
	c.out.buf = appendPing(c.out.buf, 0, keepAlivePing)
	c.flush(false)
}

// AllowsUpgrade reports whether the server has enabled extended CONNECT, as far as is known.
func (c *ClientConn) AllowsUpgrade() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.connect
}

// Open takes a stream, which EndExchange gives back. It fails with ErrBusy, ErrDraining or the connection's *ConnError, and nothing
// was sent then.
func (c *ClientConn) Open() (*ClientStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, &ConnError{Err: c.err, untouched: true}
	case c.ends():
		return nil, ErrDraining
	case c.active >= min(c.o.MaxStreams, c.peer.streams):
		return nil, ErrBusy
	}
	st := c.take()
	st.begin(0)
	return st, nil
}

func (c *ClientConn) take() *ClientStream {
	if n := len(c.free); n > 0 {
		st := c.free[n-1]
		c.free = c.free[:n-1]
		return st
	}
	st := &ClientStream{}
	st.init(&c.core)
	st.owner = st
	return st
}

// tick drops what is kept for further streams. mu is held.
func (c *ClientConn) tick(now time.Time) {
	switch w := &c.watchdog; {
	case c.active > 0:
	case w.idle.IsZero():
		w.idle = now
	default:
		c.dropFree()
	}
}

// onResponse takes the head in scratch as a response's. mu is held.
func (c *ClientConn) onResponse(s *stream, ended bool) error {
	st, h := s.owner, c.scratch
	var r *response
	if at := st.used + st.waiting; at < len(st.heads) {
		r = &st.heads[at]
	} else {
		st.heads = append(st.heads, response{head: head.New()})
		r = &st.heads[len(st.heads)-1]
	}
	r.res.Reset()
	spare := r.res.Header
	h.Response(&r.res, st.ask, ended)
	if h.Bad != "" {
		r.res = message.Response{Header: spare}
		return c.reset(s, ProtocolError, h.Bad, true)
	}
	h.Fields = spare
	st.informed++
	switch final := r.res.Status >= 200 || r.res.Status == 101; {
	case final:
		s.headed, s.remoteEnded, s.declared = true, ended, h.Length
		s.empty = st.ask.Bodyless(r.res.Status) && !st.ask.Tunnel(r.res.Status)
		if st.ask.Tunnel(r.res.Status) {
			s.declared = -1
		}
	case st.informed > maxInformational:
		return c.reset(s, EnhanceYourCalm, "too many informational responses", true)
	case st.waiting >= maxWaiting:
		return nil // nobody reads them: the final one matters
	}
	c.scratch, r.head = r.head, h
	st.waiting++
	c.wakeReader(s)
	return nil
}

const (
	// maxInformational bounds the 1xx responses before a final one, maxWaiting those that wait to be read.
	maxInformational = 100
	maxWaiting       = 4
)

// onGoAway is RFC 9113 section 6.8. mu is held.
func (c *ClientConn) onGoAway(last uint32, code ErrCode) error {
	c.refused = true
	for id, st := range c.streams {
		if id > last {
			st.end(&StreamError{Code: RefusedStream, Remote: true, Reason: "GOAWAY: " + code.String(), untouched: true})
		}
	}
	if code != NoError && last == 0 {
		return &ConnError{Code: code, Remote: true}
	}
	return nil
}

// ClientStream is a request and its response.
type ClientStream struct {
	stream

	heads    []response // used were read, and waiting after them are to be; guarded by mu
	used     int
	waiting  int
	informed int
}

// response is a head with the memory of its strings.
type response struct {
	res  message.Response
	head *head.Head
}

// WriteRequest writes a head. It need not leave before Flush or FinishBody; call FinishBody also when there is no body. A request
// for upgrade is one with r.Upgrade set; it fails with ErrNoUpgrade where the server has not enabled that. ErrBadHead and
// ErrNoUpgrade leave the stream as it was.
func (s *ClientStream) WriteRequest(r *message.Request) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.id != 0 {
		return ErrState
	}
	cost, ok := fieldsCost(&r.Header)
	if !ok || !validRequest(r) {
		return ErrBadHead
	}
	if r.Upgrade != "" && !c.peer.connect {
		return ErrNoUpgrade
	}
	if err := s.roomForHead(); err != nil {
		return err
	}
	if c.client.ends() {
		return &StreamError{Code: RefusedStream, Remote: true, untouched: true}
	}
	s.ask = head.AskedBy(r)
	s.id, c.last = c.client.next, c.client.next
	c.client.next += 2
	s.sendWin = c.peer.window
	c.streams[s.id] = &s.stream
	at, b := s.beginHead(cost + len(r.Method) + len(r.Authority) + len(r.Path) + len(r.Scheme) + len(r.Upgrade) + 80)
	b = c.requestLine(b, r)
	w := fieldWriter{c: c, body: r.Body}
	end := r.Body.Kind == message.NoBody && !s.ask.Tunnels()
	s.endHead(at, w.fields(b, &r.Header), end)
	body := r.Body
	if s.ask.Tunnels() {
		body.Kind = message.Chunked
	}
	s.beginBody(body, false)
	return nil
}

func validRequest(r *message.Request) bool {
	switch {
	case !message.IsToken(r.Method) || r.Body.Kind == message.UntilClose || r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https":
		return false
	case r.Authority != "" && !message.ValidAuthority(r.Authority):
		return false
	case r.Method == "CONNECT":
		return r.Authority != ""
	}
	return r.Path != "" && message.TargetChars.All(r.Path) && (r.Upgrade == "" || message.IsToken(r.Upgrade))
}

// requestLine appends the pseudo-header fields. mu is held.
func (c *core) requestLine(b []byte, r *message.Request) []byte {
	switch {
	case r.Upgrade != "":
		b = c.enc.Field(b, ":method", "CONNECT")
		b = c.enc.Field(b, ":protocol", r.Upgrade)
	case r.Method == "GET":
		b = hpack.Static(b, hpack.MethodGet)
	case r.Method == "POST":
		b = hpack.Static(b, hpack.MethodPost)
	default:
		b = c.enc.Field(b, ":method", r.Method)
	}
	if r.Method != "CONNECT" {
		if r.Scheme == "https" {
			b = hpack.Static(b, hpack.SchemeTLS)
		} else {
			b = hpack.Static(b, hpack.SchemeHTTP)
		}
	}
	if r.Authority != "" {
		b = c.enc.Field(b, ":authority", r.Authority)
	}
	switch {
	case r.Method == "CONNECT":
	case r.Path == "/":
		b = hpack.Static(b, hpack.PathRoot)
	default:
		b = c.enc.Field(b, ":path", r.Path)
	}
	return b
}

// ReadResponse reads the head of a response into r. A response with a Status below 200 other than 101 is informational: call it
// again for the next. It fails with *StreamError, *ConnError or os.ErrDeadlineExceeded. It does not flush.
func (s *ClientStream) ReadResponse(r *message.Response) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.waiting == 0 {
		switch {
		case s.err != nil:
			return s.err
		case s.id == 0 || s.headed:
			return ErrState
		}
		if err := s.waitRead(); err != nil {
			return err
		}
	}
	r.Reset()
	s.heads[s.used].res, *r = *r, s.heads[s.used].res
	s.used++
	s.waiting--
	return nil
}

// ResponseStarted reports whether any part of a response to the request has arrived.
func (s *ClientStream) ResponseStarted() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.informed > 0
}

// ID gives the stream's number, 0 before WriteRequest.
func (s *ClientStream) ID() uint32 { return s.id }

// ClientConn gives the stream's connection.
func (s *ClientStream) ClientConn() *ClientConn { return s.c.client }

// EndExchange ends the life of the response's strings and gives the stream back, after which it must not be used: what is not at
// its end is reset. It reports whether the connection can carry further requests.
func (s *ClientStream) EndExchange() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.out.buf)
	s.leave(Cancel)
	if len(c.out.buf) > before {
		c.flush(c.active > 0)
	}
	s.recycle()
	return !c.client.ends()
}

func (s *ClientStream) recycle() {
	for i := range s.heads {
		s.heads[i].res.Reset()
		s.heads[i].head.Release()
	}
	s.heads = s.heads[:min(len(s.heads), 2)]
	s.used, s.waiting, s.informed = 0, 0, 0
	s.forget()
	if s.c.err != nil {
		s.still()
		return
	}
	s.c.client.free = append(s.c.client.free, s)
}

// dropFree lets go of what is kept for further streams. mu is held.
func (c *ClientConn) dropFree() {
	for _, st := range c.free {
		st.still()
	}
	c.free = nil
}
