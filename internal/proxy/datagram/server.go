// Package datagram relays the datagrams that come to a gateway's port of UDP. Those of one client are a session: one endpoint gets them
// all, and what it answers goes back to the client. A session ends when nothing came for a while, when its endpoint refuses or leaves,
// and when there are too many: then the one that was idle for longest.
package datagram

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
)

// Options are what a server needs of the proxy around it. All but Sessions are required.
type Options struct {
	Log *slog.Logger
	// Listener gives the newest configuration of the port; nil when there is none any more.
	Listener func() *conf.Listener
	// Cluster gives the newest version of a cluster; nil when there is none.
	Cluster func(name string) *cluster.Cluster
	// Dial opens a socket that is connected to an endpoint.
	Dial func(ctx context.Context, address netip.AddrPort) (*net.UDPConn, error)
	// Enter counts a session in, if the proxy can bear it; Leave counts it out.
	Enter func() bool
	Leave func()
	// Edge makes the metrics of what goes to an endpoint.
	Edge func(c *cluster.Cluster, to *cluster.Endpoint) *telemetry.Edge
	// Write takes a line of the access log for each session that has ended.
	Write func(e *telemetry.Entry, logs []conf.AccessLog)
	Now   func() time.Time
	// Sessions bounds those that are open; 0 is DefaultSessions.
	Sessions int
}

// Bounds that nothing configures.
const (
	DefaultSessions = 4096
	defaultIdle     = time.Minute
	drainIdle       = time.Second // while draining: whoever comes again finds the next proxy
	sweepEvery      = 500 * time.Millisecond
	largest         = 64 << 10 // of a datagram, in bytes
)

// Server relays what comes to one socket. Serve is called once; the other methods may be called from any goroutine.
type Server struct {
	o      Options
	counts counts
	ended  chan struct{}  // closed by Close
	work   sync.WaitGroup // the sweeper and the sessions

	socket *net.UDPConn // set once, by Serve

	mu       sync.Mutex
	sessions map[netip.AddrPort]*session
	order    list.List // of sessions, the one that was idle for longest first
	draining bool
	closed   bool
	spoken   time.Time // when a refusal was last logged
}

// New makes a server.
func New(o Options) *Server {
	if o.Sessions == 0 {
		o.Sessions = DefaultSessions
	}
	return &Server{o: o, ended: make(chan struct{}), sessions: map[netip.AddrPort]*session{}}
}

// buffers hold datagrams while they are passed on: as many as are passed on at a time.
var buffers = sync.Pool{New: func() any { return new([largest]byte) }}

// Serve relays until Drain or Close is called, or the socket fails. Sessions go on after Drain.
func (s *Server) Serve(pc net.PacketConn) error {
	u, ok := pc.(*net.UDPConn)
	if !ok {
		return errors.New("datagrams are relayed by sockets of the system alone")
	}
	if err := tellDestination(u); err != nil {
		s.o.Log.Debug("replies may come from another address than the client's datagrams went to", "error", err)
	}
	if !s.begin(u) {
		return nil
	}
	buf, control := buffers.Get().(*[largest]byte), make([]byte, controlSize)
	defer buffers.Put(buf)
	for {
		n, c, _, from, err := u.ReadMsgUDPAddrPort(buf[:], control)
		switch {
		case err == nil:
			s.receive(buf[:n], control[:c], from)
		case s.leaving():
			return nil
		case errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded):
			return err
		default: // such as a lack of memory in the kernel: what comes next may fit
			s.counts.receiveErrors.Add(1)
		}
	}
}

// begin starts the sweeper, unless the end came first.
func (s *Server) begin(u *net.UDPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.socket = u
	if s.closed || s.draining {
		return false
	}
	s.work.Go(s.sweeper) // ends by Close, or when all sessions have drained
	return true
}

func (s *Server) leaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.draining
}

// receive passes a client's datagram on.
func (s *Server) receive(datagram, control []byte, from netip.AddrPort) {
	s.counts.received(len(datagram))
	l := s.o.Listener()
	if l == nil || l.Datagrams == nil {
		s.counts.dropped.Add(1)
		return
	}
	e := s.find(from)
	if e != nil && !e.keeps(l) {
		e.end(nil)
		e = nil
	}
	if e == nil {
		if e = s.open(l, from, control); e == nil {
			s.counts.dropped.Add(1)
			return
		}
	}
	e.send(datagram)
}

// find gives a client's session, which is in use then.
func (s *Server) find(from netip.AddrPort) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.sessions[from]
	if e != nil {
		s.touch(e)
	}
	return e
}

// touch is called with mu held.
func (s *Server) touch(e *session) {
	e.used = s.o.Now()
	s.order.MoveToBack(e.at)
}

// admit puts a session among the others, in the place of the one that was idle for longest where there are too many.
func (s *Server) admit(e *session) bool {
	for {
		s.mu.Lock()
		full := len(s.sessions) >= s.o.Sessions
		var oldest *session
		if front := s.order.Front(); front != nil {
			oldest = front.Value.(*session)
		}
		switch {
		case s.closed || s.draining:
			s.mu.Unlock()
			return false
		case !full && s.o.Enter():
			e.used = s.o.Now()
			e.at = s.order.PushBack(e)
			s.sessions[e.client] = e
			s.work.Go(e.answers) // ends when the session's socket is closed
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		if oldest == nil {
			return false
		}
		s.counts.evicted.Add(1)
		oldest.end(errCrowded)
	}
}

var errCrowded = errors.New("there are more sessions than may be, and this one was idle for longest")

// remove reports whether a session was among the others.
func (s *Server) remove(e *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[e.client] != e {
		return false
	}
	delete(s.sessions, e.client)
	s.order.Remove(e.at)
	return true
}

// sweeper ends sessions that are idle, or that the configuration takes back.
func (s *Server) sweeper() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		if s.sweep() {
			return
		}
	}
}

// sweep reports whether the server drains and has nothing left.
func (s *Server) sweep() bool {
	l := s.o.Listener()
	now := s.o.Now()
	s.mu.Lock()
	draining := s.draining
	all := make([]*session, 0, len(s.sessions))
	for _, e := range s.sessions {
		all = append(all, e)
	}
	idle := make([]bool, len(all))
	for i, e := range all {
		limit := idleOf(l)
		if draining {
			limit = min(limit, drainIdle)
		}
		idle[i] = now.Sub(e.used) >= limit
	}
	s.mu.Unlock()
	for i, e := range all {
		switch {
		case idle[i]:
			s.counts.idle.Add(1)
			e.end(nil)
		case l != nil && !draining && !e.keeps(l):
			e.end(nil)
		}
	}
	return draining && s.Open() == 0
}

func idleOf(l *conf.Listener) time.Duration {
	if l == nil || l.Datagrams == nil || l.Datagrams.IdleTimeout == 0 {
		return defaultIdle
	}
	return l.Datagrams.IdleTimeout
}

// Drain takes nothing more from clients and waits until the sessions have ended, which they do soon when idle, or ctx does.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	s.halt()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the sessions, which Close ends
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// halt ends reading; mu is held. The socket, which another process may share, stays as it is.
func (s *Server) halt() {
	if s.socket != nil {
		_ = s.socket.SetReadDeadline(time.Unix(1, 0)) // a closed socket has ended reading already
	}
}

// Close ends all sessions and waits for their ends. The socket is the caller's to close.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.halt()
	var all []*session
	for _, e := range s.sessions {
		all = append(all, e)
	}
	s.mu.Unlock()
	if first {
		close(s.ended)
	}
	for _, e := range all {
		e.end(nil)
	}
	s.work.Wait()
	return nil
}

// Open is the number of sessions.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
