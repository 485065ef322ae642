package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/proxy/steady"
)

// Session is what a connection that carries many requests at a time is to its pool.
type Session interface {
	// Run reads until the connection has ended.
	Run() error
	// Ready is closed when the endpoint has said how many requests it takes, or the connection has ended.
	Ready() <-chan struct{}
	// Unsettled tells, once Ready is closed, why the connection has ended before the endpoint said that; nil if it has. said is the
	// beginning of what it has said, where that was of another protocol; else empty.
	Unsettled() (said string, why error)
	// Available is how many more requests it can carry now.
	Available() int
	// Shut is for how long the endpoint has left no room for bodies on it, of whichever request; 0 while there is some. It is cheap.
	Shut() time.Duration
	// Opened gives a channel that is closed when there is room again, or the connection has ended.
	Opened() <-chan struct{}
	// Draining reports whether it takes no further ones.
	Draining() bool
	// Close ends it at once.
	Close() error
}

// mux keeps the connections to one endpoint on which requests are multiplexed: as few as their limits allow.
type mux struct {
	p     *Pool
	plain atomic.Bool // the endpoint has chosen HTTP/1.1 instead
	// foreign is when the endpoint was last found not to speak HTTP/2, in ns of Unix time; 0 for never.
	foreign atomic.Int64
	// spoke is set by a connection on which the endpoint spoke HTTP/2, and taken back by one that has ended before it did.
	spoke atomic.Bool

	mu      sync.Mutex
	conns   []*Conn
	dialing bool
	waiters []*leaser
	closed  bool
}

// leaser is a caller that waits for a connection to have room. It receives nil when it may look again, or was granted one.
type leaser struct {
	ready   chan error
	granted *Conn // set before nil is sent
}

// ErrHTTP1 is the cause of an Error of an endpoint that was asked for HTTP/2 and has chosen HTTP/1.1. The connection is kept for Get.
var ErrHTTP1 = errors.New("endpoint has chosen HTTP/1.1")

// HTTP1Only reports whether the endpoint has chosen HTTP/1.1 where it was left the choice.
func (p *Pool) HTTP1Only() bool { return p.mux.plain.Load() }

// ErrNotHTTP2 is the cause of an Error of an endpoint that has answered the preface of HTTP/2 with something else, or by ending the
// connection: it has acted on no request.
var ErrNotHTTP2 = errors.New("the endpoint does not speak HTTP/2")

// ErrSilent is the cause of an Error of an endpoint that has ended the connection before it spoke HTTP/2: it has acted on no request.
var ErrSilent = errors.New("the endpoint closed the connection before it spoke HTTP/2")

// silentError is ErrSilent of an endpoint that may know HTTP/1 alone.
type silentError struct{}

func (silentError) Error() string {
	return ErrSilent.Error() + ": is it an application of HTTP/1? Then name its port http-NAME, or set appProtocol: http"
}

func (silentError) Is(target error) bool { return target == ErrSilent || target == ErrNotHTTP2 }

// ErrEnded is the cause of an Error, whose Op is Closed, of an endpoint that speaks HTTP/2 and has ended the connection before it took a
// request, as those do that are about to leave.
var ErrEnded = errors.New("the endpoint ended the connection before it took a request")

// foreignError tells what it answered with.
type foreignError struct{ said string }

func (e *foreignError) Error() string {
	if strings.HasPrefix(e.said, "HTTP/1.") {
		return "the endpoint speaks HTTP/1, not HTTP/2"
	}
	return fmt.Sprintf("the endpoint does not speak HTTP/2: it answered %q", e.said)
}

func (e *foreignError) Is(target error) bool { return target == ErrNotHTTP2 }

// foreignTime is how long an endpoint is remembered for that: another program may listen there by then.
const foreignTime = 10 * time.Second

// NotHTTP2 reports whether the endpoint was lately found not to speak HTTP/2.
func (p *Pool) NotHTTP2() bool {
	at := p.mux.foreign.Load()
	return at != 0 && steady.Time(time.Now()).UnixNano()-at < int64(foreignTime)
}

// Lease gives a connection on which another request may begin: its Session was made by PoolOptions.Start. ctx and the deadline (which
// may be zero) bound the waiting for it. body says that bytes follow the head, for which the endpoint must leave room. used says that the connection has carried others before.
// All errors are *Error. Each Lease is ended by Return.
func (p *Pool) Lease(ctx context.Context, deadline time.Time, body bool) (c *Conn, used bool, err error) {
	m := &p.mux
	if p.opt.Alone {
		c, err := m.alone(ctx, deadline)
		return c, false, err
	}
	for waited, anyway := false, false; ; {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, false, &Error{Closed, p.way.Address, errRetired}
		}
		c, shut := m.room()
		switch {
		case c == nil:
		case body && !waited && shut > 0 && shut < shutTime:
			m.mu.Unlock()
			c.opens(ctx, deadline, shutTime-shut)
			waited = true
			continue
		case !body || shut < shutTime || anyway || !m.another(ctx):
			used := m.take(c)
			m.mu.Unlock()
			return c, used, nil
		}
		granted, err := m.wait(ctx, deadline) // unlocks
		switch {
		case granted != nil:
			return granted, false, nil
		case err != nil && (c == nil || over(ctx, deadline) || errors.Is(err, ErrHTTP1) || errors.Is(err, ErrNotHTTP2)):
			return nil, false, err
		}
		anyway = err != nil // there is none but that which is shut
	}
}

// shutTime is how long a connection may leave no room for bodies before it takes no further ones until it does again, and others are
// made beside it: an endpoint that does not read one body holds up all. For a moment there is no room with every large body.
const shutTime = 100 * time.Millisecond

// opens waits for room for bodies on the connection, no longer than that.
func (c *Conn) opens(ctx context.Context, deadline time.Time, most time.Duration) {
	if !deadline.IsZero() {
		most = min(most, time.Until(deadline))
	}
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case <-c.session.Opened():
	case <-limit.C:
	case <-ctx.Done():
	}
}

// over reports whether the time of a caller is.
func over(ctx context.Context, deadline time.Time) bool {
	return ctx.Err() != nil || !deadline.IsZero() && !time.Now().Before(deadline)
}

// take counts another request on the connection, and reports whether there were any before. mu is held.
func (m *mux) take(c *Conn) (used bool) {
	used = c.Carried > 0
	c.active++
	c.Carried++
	if most := m.p.opt.MaxRequests; most > 0 && c.Carried >= most {
		c.leaving = true
	}
	return used
}

// alone makes a connection for the caller and nobody else.
func (m *mux) alone(ctx context.Context, deadline time.Time) (*Conn, error) {
	p := m.p
	m.mu.Lock()
	closed := m.closed
	allowed := !closed && m.allowed()
	m.mu.Unlock()
	switch {
	case closed:
		return nil, &Error{Closed, p.way.Address, errRetired}
	case !allowed:
		return nil, p.overflow()
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	c, err := m.connect(ctx, m.way())
	if err == nil && c.ALPN == "http/1.1" {
		c.Close() // who comes back for HTTP/1.1 makes one of his own
		m.plain.Store(true)
		err = &Error{Connect, p.way.Address, ErrHTTP1}
	}
	if err != nil {
		p.breaker.connections.give()
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.session.Draining() {
		c.session.Close()
		p.breaker.connections.give()
		return nil, &Error{Closed, p.way.Address, ErrEnded}
	}
	c.leaving, c.active, c.Carried = true, 1, 1
	m.conns = append(m.conns, c)
	return c, nil
}

// way is how connections on which requests are multiplexed are made.
func (m *mux) way() Way {
	way := m.p.way
	if way.MuxTLS != nil {
		way.TLS = way.MuxTLS
	}
	return way
}

// room gives a connection that can carry another request: one that has room for bodies, else the one that has had none for the
// shortest time, which shut is. mu is held.
func (m *mux) room() (best *Conn, shut time.Duration) {
	for _, c := range m.conns {
		if c.leaving || c.limit != 0 && c.active >= c.limit {
			continue
		}
		d := c.session.Shut()
		if d == 0 {
			return c, 0
		}
		if best == nil || d < shut {
			best, shut = c, d
		}
	}
	return best, shut
}

// another reports whether a further connection is being made; it begins that where the limit allows it. mu is held.
func (m *mux) another(ctx context.Context) bool {
	if !m.dialing && m.allowed() {
		m.dialing = true
		go m.dial(context.WithoutCancel(ctx)) // ends with its attempt, which Way.Timeout bounds
	}
	return m.dialing
}

// wait sees to it that there will be room, and waits for it; it may be granted a connection. mu is held and released.
func (m *mux) wait(ctx context.Context, deadline time.Time) (*Conn, error) {
	p := m.p
	if !p.breaker.pending.take() {
		m.mu.Unlock()
		return nil, p.overflow()
	}
	defer p.breaker.pending.give()
	w := &leaser{ready: make(chan error, 1)}
	m.waiters = append(m.waiters, w)
	m.another(ctx)
	m.mu.Unlock()
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	select {
	case err := <-w.ready:
		return w.granted, err
	case <-ctx.Done():
	}
	m.mu.Lock()
	i := slices.Index(m.waiters, w)
	if i >= 0 {
		m.waiters = slices.Delete(m.waiters, i, i+1)
	} else {
		m.wake() // somebody has told us of room that we do not use
	}
	dialing, granted := m.dialing, w.granted
	m.mu.Unlock()
	switch {
	case granted != nil:
		return granted, nil // it came at the last moment
	case dialing:
		return nil, &Error{Connect, p.way.Address, os.ErrDeadlineExceeded}
	}
	return nil, &Error{Overflow, p.way.Address, os.ErrDeadlineExceeded}
}

// allowed takes another connection's share of the limit; each endpoint may have one in any case. mu is held.
func (m *mux) allowed() bool {
	if m.p.breaker.connections.take() {
		return true
	}
	if len(m.conns) > 0 {
		return false
	}
	m.p.breaker.connections.force()
	return true
}

// dial makes a connection. Everyone who waits hears how that went.
func (m *mux) dial(ctx context.Context) {
	p := m.p
	way := m.way()
	c, err := m.connect(ctx, way)
	if err == nil && c.ALPN == "http/1.1" {
		p.adopt(c)
		m.plain.Store(true)
		c, err = nil, &Error{Connect, way.Address, ErrHTTP1}
	} else if err != nil {
		p.breaker.connections.give()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialing = false
	if err == nil && (c.session.Draining() || m.closed && len(m.waiters) == 0) {
		c.session.Close()
		p.breaker.connections.give()
		if err = (&Error{Closed, way.Address, errRetired}); !m.closed {
			err = &Error{Closed, way.Address, ErrEnded}
		}
	}
	if err == nil {
		m.conns = append(m.conns, c)
	}
	for i, w := range m.waiters {
		if err == nil && m.closed {
			m.grant(w, c, i)
		}
		w.ready <- err
	}
	m.waiters = nil
}

// grant gives a connection that came when its endpoint was already removed to the caller who waits for it as the n-th: such a one is
// served as if its request had been under way. Whoever it has no room for finds the pool closed. mu is held.
func (m *mux) grant(w *leaser, c *Conn, n int) {
	c.leaving = true
	if c.limit == 0 || n < c.limit {
		w.granted = c
		c.active++
		c.Carried++
	}
}

// connect makes a connection and waits for what the endpoint says of it, unless that has chosen HTTP/1.1.
func (m *mux) connect(ctx context.Context, way Way) (*Conn, error) {
	c, err := way.Connect(ctx, time.Time{})
	if err != nil || c.ALPN == "http/1.1" {
		return c, err
	}
	c.pool, c.idleFrom = m.p, time.Now()
	c.made = c.idleFrom
	c.session = m.p.opt.Start(c)
	go m.run(c) // ends with the connection
	limit := time.NewTimer(cmp.Or(way.Timeout, DefaultConnectTimeout))
	defer limit.Stop()
	select {
	case <-c.session.Ready():
		if said, why := c.session.Unsettled(); why != nil {
			c.session.Close()
			return nil, m.unsettled(c, way.Address, said, why)
		}
		m.spoke.Store(true)
		return c, nil
	case <-limit.C:
		c.session.Close()
		return nil, &Error{Connect, way.Address, os.ErrDeadlineExceeded}
	}
}

// unsettled makes the error of a connection that has ended before HTTP/2 was spoken on it, and takes note of an endpoint that does not
// speak it: of one that has ended it without a word where nothing says that it does. One that has spoken HTTP/2 before may be about
// to leave.
func (m *mux) unsettled(c *Conn, address, said string, why error) *Error {
	var alert *net.OpError
	switch {
	case said != "":
		why = &foreignError{said}
	case errors.As(why, &alert) && alert.Op == "remote error": // of TLS 1.3, where a client has ended its handshake before it is refused
		return &Error{Handshake, address, alert}
	case !cut(why):
		return &Error{Connect, address, why}
	case m.spoke.Swap(false):
		return &Error{Closed, address, ErrEnded}
	case c.ALPN == "h2" || m.some():
		return &Error{Connect, address, ErrSilent}
	default:
		why = silentError{}
	}
	m.foreign.Store(steady.Time(time.Now()).UnixNano())
	return &Error{Connect, address, why}
}

// cut reports whether an error is no more than the end of a connection.
func cut(err error) bool {
	return slices.ContainsFunc(ends[:], func(end error) bool { return errors.Is(err, end) })
}

var ends = [...]error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE}

// some reports whether there are connections.
func (m *mux) some() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns) > 0
}

func (m *mux) run(c *Conn) {
	c.session.Run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drop(c) {
		m.wake() // whoever waits may make another; what comes of one that was never used they hear from dial
	}
}

// drop forgets a connection, and reports whether it was known; mu is held.
func (m *mux) drop(c *Conn) bool {
	i := slices.Index(m.conns, c)
	if i < 0 {
		return false
	}
	m.conns = slices.Delete(m.conns, i, i+1)
	m.p.breaker.connections.give()
	return true
}

// wake lets the first waiter look again; mu is held.
func (m *mux) wake() {
	if len(m.waiters) > 0 {
		w := m.waiters[0]
		m.waiters = slices.Delete(m.waiters, 0, 1)
		w.ready <- nil
	}
}

// Return ends a Lease. broken says that no further request could begin on the connection: it is asked why.
func (p *Pool) Return(c *Conn, now time.Time, broken bool) {
	m := &p.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	c.active--
	if broken {
		if c.session.Draining() {
			c.leaving = true
		} else {
			c.limit = max(c.active, 1)
		}
	}
	if c.active == 0 {
		c.idleFrom = now
		if c.leaving || m.closed {
			c.session.Close()
			m.drop(c)
		}
	}
	m.wake()
}

// muxIdle is how long a connection without requests is kept. An endpoint that ends one says so with a GOAWAY, so no request is lost
// to it, as it would be with HTTP/1.
const muxIdle = 5 * time.Minute

// sweep ends connections that nobody uses and that are old, refused, or made with earlier certificates.
func (m *mux) sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range slices.Clone(m.conns) {
		c.limit = 0
		c.leaving = c.leaving || m.p.outdated(c) || c.session.Draining() || m.p.opt.MaxAge > 0 && now.Sub(c.made) > m.p.opt.MaxAge
		if c.active == 0 && (c.leaving || now.Sub(c.idleFrom) > m.p.muxIdle) {
			c.session.Close()
			m.drop(c)
		}
	}
}

// trim ends the connections without requests.
func (m *mux) trim() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range slices.Clone(m.conns) {
		if c.active == 0 {
			c.session.Close()
			m.drop(c)
		}
	}
}

// close retires the connections: those in use end when the last request has.
func (m *mux) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, c := range slices.Clone(m.conns) {
		if c.leaving = true; c.active == 0 {
			c.session.Close()
			m.drop(c)
		}
	}
	if m.dialing {
		return // what comes of that is theirs who wait
	}
	for _, w := range m.waiters {
		w.ready <- nil // it finds the pool closed
	}
	m.waiters = nil
}

func (m *mux) count() (open, idle int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		if open++; c.active == 0 {
			idle++
		}
	}
	return open, idle
}
