// Package listen takes connections in: it accepts them, finds where a redirected one was going, looks at the first bytes
// without consuming them, and terminates TLS. What a connection then does is decided by whoever handles it.
package listen

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Accepted is a connection of which nothing was read yet.
type Accepted struct {
	Conn conn.Conn
	// Destination is where the client was connecting to: the original destination of a redirected connection, else the local
	// address.
	Destination netip.AddrPort
	// Redirected tells the two cases apart.
	Redirected bool

	life *life // shared by the copies
}

// life is what a server keeps of a connection between the goroutines that serve it. It is owned by the one that does.
type life struct {
	inner bool // set once
	atEnd []func()
	rest  *rest // asked for by the handler that runs
}

type rest struct {
	conn   conn.Conn
	resume func()
}

// AtEnd has f called when the connection has ended: what a handler defers is done when it returns, which may be for a rest. The last
// one comes first.
func (a Accepted) AtEnd(f func()) { a.life.atEnd = append(a.life.atEnd, f) }

// Within is for a connection that another one carries and whose handler's goroutine serves it: it does not rest. Its handler's caller
// calls end when that has returned.
func Within(c conn.Conn) (a Accepted, end func()) {
	a = Accepted{Conn: c, life: &life{inner: true}}
	return a, a.life.end
}

// Rests reports whether the connection may rest at all.
func (a Accepted) Rests() bool { return !a.life.inner }

func (l *life) end() {
	for _, f := range slices.Backward(l.atEnd) {
		f()
	}
}

// Rest lets the handler return without ending the connection. When there is something to read from c, which is the accepted
// connection or TLS and the like over it, resume serves on in the handler's place, on a new goroutine. conn.OnReady says when c is
// ready for that.
func (a Accepted) Rest(c conn.Conn, resume func()) { a.life.rest = &rest{c, resume} }

// Gate limits the connections of a Server. Each Enter that is true is followed by a Leave.
type Gate interface {
	Enter() bool
	Leave()
	// Closed says that nothing is to be accepted for now, Full that there is no room before another connection ends.
	Closed() bool
	Full() bool
	// Exhausted is told that there is no descriptor for a connection that waits. It makes room.
	Exhausted()
}

// Server owns the goroutines of the connections that its listeners accept. Its methods may be called from any goroutine.
type Server struct {
	// Set once, before Serve.

	// Handle serves one connection on a goroutine of its own; the connection is closed when it returns without having asked for a
	// rest, or panics.
	Handle func(Accepted)
	Log    *slog.Logger
	// Gate decides which connections are served; nil lets all in.
	Gate Gate

	wg sync.WaitGroup

	mu     sync.Mutex
	open   map[conn.Conn]struct{}
	closed bool
}

// Serve accepts until the listener is closed, and then returns nil. Running out of descriptors or memory makes it pause, not
// end.
func (s *Server) Serve(l net.Listener) error {
	var pause time.Duration
	var told time.Time
	tell := func(why string, facts ...any) {
		if now := time.Now(); now.Sub(told) >= tellEvery {
			told = now
			s.Log.Warn(why, append(facts, "listener", l.Addr().String())...)
		}
	}
	for {
		if s.Gate != nil && s.Gate.Closed() {
			time.Sleep(gatePause) // one connection is turned away in each; the kernel keeps the others waiting
		}
		s.awaitRoom(tell)
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		case temporary(err):
			pause = min(max(2*pause, 5*time.Millisecond), maxPause)
			if s.Gate != nil && conn.TableFull(err) {
				tell("no file descriptor (ulimit -n) is left for a client that waits: idle connections are closed", "error", err)
				s.Gate.Exhausted()
			} else {
				tell("accepting connections pauses", "pause", pause, "error", err)
			}
			time.Sleep(pause)
		default:
			return fmt.Errorf("listener %s: %w", l.Addr(), err)
		}
	}
}

// awaitRoom returns when another connection may be accepted.
func (s *Server) awaitRoom(tell func(string, ...any)) {
	if s.Gate == nil || !s.Gate.Full() {
		return
	}
	tell("accepting connections pauses: the table of file descriptors (ulimit -n), or the memory that is left, bears no more")
	for s.Gate.Full() {
		time.Sleep(roomPause)
	}
}

// tellEvery is how often the log is told that accepting pauses, at most.
const tellEvery = time.Second

// maxPause bounds the pause after a failure that may be over any time.
const maxPause = 100 * time.Millisecond

// roomPause is how often a full gate is looked at.
const roomPause = 2 * time.Millisecond

// gatePause is how long a closed gate holds up accepting.
const gatePause = 100 * time.Millisecond

// temporary reports what a later Accept may survive: a full table of descriptors, a client that has left already.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) start(nc net.Conn) {
	if s.Gate != nil && !s.Gate.Enter() {
		reset(nc)
		return
	}
	a := accepted(nc)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		a.Conn.Close()
		s.left()
		return
	}
	if s.open == nil {
		s.open = map[conn.Conn]struct{}{}
	}
	s.open[a.Conn] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go s.run(a, func() { s.Handle(a) }) // ends when the connection does, or rests; Close and Wait end it
}

// run serves a connection until it ends or rests.
func (s *Server) run(a Accepted, serve func()) {
	rests := false
	defer func() {
		if !rests {
			s.end(a)
		}
	}()
	for serve != nil {
		s.guarded(a, serve)
		r := a.life.rest
		if a.life.rest = nil; r == nil {
			return
		}
		if rests = conn.OnReady(r.conn, func() { s.run(a, r.resume) }); rests {
			return // another goroutine may own it already
		}
		serve = r.resume
	}
}

// guarded makes a panic end this connection alone.
func (s *Server) guarded(a Accepted, serve func()) {
	defer func() {
		if p := recover(); p != nil {
			a.life.rest = nil
			s.Log.Error("a connection's handler panicked", "client", a.Conn.RemoteAddr(), "destination", a.Destination,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	serve()
}

func (s *Server) end(a Accepted) {
	defer s.wg.Done()
	a.life.end()
	a.Conn.Close()
	s.mu.Lock()
	delete(s.open, a.Conn)
	s.mu.Unlock()
	s.left()
}

func (s *Server) left() {
	if s.Gate != nil {
		s.Gate.Leave()
	}
}

// reset ends a connection so that the client knows at once, and nothing of it stays behind.
func reset(nc net.Conn) {
	if t, ok := nc.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	nc.Close()
}

// Open is the number of connections being served.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Close closes every connection, now and from now on. It does not wait.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	open := make([]conn.Conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// Wait returns when no connection is served. The listeners must be closed before.
func (s *Server) Wait() { s.wg.Wait() }

// accepted finds out where a connection was going.
func accepted(nc net.Conn) Accepted {
	a := Accepted{Conn: conn.FromNet(nc), life: &life{}}
	a.Destination, _ = originalDst(nc, a.Conn)
	local := a.Conn.LocalAddr()
	if !a.Destination.IsValid() {
		a.Destination = local
	}
	a.Redirected = a.Destination != local
	return a
}

// originalDst gives where a connection was going before it was redirected to us, as nc says itself (in-memory connections) or as
// the kernel's connection tracking knows it.
func originalDst(nc net.Conn, c conn.Conn) (netip.AddrPort, bool) {
	if o, ok := nc.(interface{ OriginalDst() netip.AddrPort }); ok {
		dst := o.OriginalDst()
		return dst, dst.IsValid()
	}
	if c.LocalAddr().IsValid() {
		return redirectedFrom(c)
	}
	return netip.AddrPort{}, false
}
