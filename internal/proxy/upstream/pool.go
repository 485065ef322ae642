package upstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Pool keeps the connections to one endpoint, one request on each at a time. Its methods may be called from any goroutine.
type Pool struct {
	// Set once.
	way     Way
	breaker *Breaker
	opt     PoolOptions

	muxIdle time.Duration
	mux     mux // of connections that carry many requests at a time

	high    atomic.Pointer[Pool] // see High; nil until it is asked for
	learned atomic.Int64         // nanoseconds of idleness that the endpoint bears; 0: not known

	mu      sync.Mutex
	idle    []*Conn // the last one used is the last one here and the first one taken
	open    int     // idle and in use
	waiters []*waiter
	closed  bool
}

// PoolOptions are the rules of a pool.
type PoolOptions struct {
	// IdleTimeout ends connections that nobody used for that long; 0 means DefaultIdle.
	IdleTimeout time.Duration
	// Alone makes a connection for each Lease, in its context, and uses it for nothing else: it begins with what is true of one client.
	Alone bool
	// MaxRequests on one connection; 0 for no limit.
	MaxRequests uint32
	// MaxAge ends a connection at the first request after it, or after the last of those that share it; 0 for never.
	MaxAge time.Duration
	// Start begins the multiplexing of requests on a new connection; needed for Lease.
	Start func(*Conn) Session
}

// DefaultIdle is below the keep-alive time of the servers that have the shortest: 5 s of Node.js and Apache. Those that close
// earlier still are learnt.
const DefaultIdle = 4 * time.Second

// waiter is a caller that a limit keeps from connecting. It receives a connection, or nil when it may make one, or the closing
// of the channel when the pool retires.
type waiter struct {
	ready chan *Conn
}

// NewPool makes the pool of an endpoint.
func NewPool(w Way, b *Breaker, o PoolOptions) *Pool {
	p := &Pool{way: w, breaker: b, opt: o, muxIdle: max(o.IdleTimeout, 0)}
	p.mux.p = p
	if p.muxIdle == 0 {
		p.muxIdle = muxIdle
	}
	if o.IdleTimeout <= 0 {
		p.opt.IdleTimeout = DefaultIdle
	}
	return p
}

// High gives the pool of the same endpoint for requests of high priority, which count in b: as in Envoy they have connections of their
// own. It lives as long as p.
func (p *Pool) High(b *Breaker) *Pool {
	if h := p.high.Load(); h != nil {
		return h
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.high.Load(); h != nil {
		return h
	}
	h := NewPool(p.way, b, p.opt)
	h.muxIdle = p.muxIdle
	if p.closed {
		h.Close()
	}
	p.high.Store(h)
	return h
}

// ErrOverflow is the cause of an Error whose Op is Overflow.
var ErrOverflow = errors.New("too many connections or waiting requests")

var errRetired = errors.New("endpoint was removed")

// quietFrom is the idleness from which a connection is asked whether it is still open: the question costs a system call, and
// a server that has just answered has not timed out.
const quietFrom = time.Millisecond

// Get gives a connection: one kept, or a new one. ctx and the deadline (which may be zero) bound connecting and waiting; they
// are not looked at when a kept one will do. now is the caller's clock. All errors are *Error. The connection goes back by Put
// or Discard.
func (p *Pool) Get(ctx context.Context, now, deadline time.Time) (*Conn, error) {
	for {
		p.mu.Lock()
		c := p.pop()
		if c == nil {
			return p.more(ctx, deadline) // unlocks
		}
		p.mu.Unlock()
		if p.fit(c, now) {
			return c, nil
		}
		p.Discard(c)
	}
}

// Fresh is Get that never reuses: after a kept connection has failed a request, others may be dead for the same reason.
func (p *Pool) Fresh(ctx context.Context, deadline time.Time) (*Conn, error) {
	p.mu.Lock()
	return p.more(ctx, deadline)
}

// pop is called with mu held.
func (p *Pool) pop() *Conn {
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	c := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	return c
}

// fit reports whether a kept connection may carry another request.
func (p *Pool) fit(c *Conn, now time.Time) bool {
	idle := now.Sub(c.idleFrom)
	if idle > p.idleTimeout() || p.outdated(c) || p.opt.MaxAge > 0 && now.Sub(c.made) > p.opt.MaxAge {
		return false
	}
	if idle < quietFrom || conn.Quiet(c.Conn) {
		return true
	}
	p.Learn(idle)
	return false
}

func (p *Pool) outdated(c *Conn) bool {
	return p.way.Source != nil && c.material != p.way.Source.Current()
}

func (p *Pool) idleTimeout() time.Duration {
	if l := time.Duration(p.learned.Load()); l > 0 {
		return min(l, p.opt.IdleTimeout)
	}
	return p.opt.IdleTimeout
}

// Learn tells that the endpoint closes connections that were idle for d, or says that it will. From now on they are ended well
// before.
func (p *Pool) Learn(d time.Duration) {
	safe := max(d/2, d-2*time.Second, 10*time.Millisecond)
	if safe = min(safe, d*9/10); safe > 0 && safe < p.idleTimeout() {
		p.learned.Store(int64(safe))
	}
}

// more makes a connection or waits for one, as the limits allow. mu is held and released.
func (p *Pool) more(ctx context.Context, deadline time.Time) (*Conn, error) {
	if p.closed {
		p.mu.Unlock()
		return nil, &Error{Closed, p.way.Address, errRetired}
	}
	// As in Envoy each endpoint may have one connection, whatever the cluster's limit says: it could never be reached.
	if !p.breaker.connections.take() {
		if p.open > 0 {
			return p.wait(ctx, deadline)
		}
		p.breaker.connections.force()
	}
	p.open++
	p.mu.Unlock()
	return p.connect(ctx, deadline)
}

// connect makes a connection for which the limits are paid.
func (p *Pool) connect(ctx context.Context, deadline time.Time) (*Conn, error) {
	c, err := p.way.Connect(ctx, deadline)
	if err != nil {
		p.gone()
		return nil, err
	}
	c.pool = p
	if p.opt.MaxAge > 0 {
		c.made = time.Now()
	}
	return c, nil
}

// wait queues the caller; mu is held and released.
func (p *Pool) wait(ctx context.Context, deadline time.Time) (*Conn, error) {
	if !p.breaker.pending.take() {
		p.mu.Unlock()
		return nil, p.overflow()
	}
	defer p.breaker.pending.give()
	w := &waiter{ready: make(chan *Conn, 1)}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	cancel := func() {}
	if !deadline.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, deadline)
	}
	defer cancel()
	select {
	case c, open := <-w.ready:
		return p.served(ctx, deadline, c, open)
	case <-ctx.Done():
	}
	if !p.leave(w) {
		// Somebody served us at the same moment: pass it on.
		if c, open := <-w.ready; c != nil {
			p.Put(c, time.Now())
		} else if open {
			p.gone()
		}
	}
	return nil, &Error{Overflow, p.way.Address, os.ErrDeadlineExceeded}
}

// overflow says which limits are reached.
func (p *Pool) overflow() *Error {
	return &Error{Overflow, p.way.Address, fmt.Errorf("%w: %s", ErrOverflow, p.breaker.full())}
}

func (p *Pool) served(ctx context.Context, deadline time.Time, c *Conn, open bool) (*Conn, error) {
	switch {
	case c != nil:
		return c, nil
	case open:
		return p.connect(ctx, deadline)
	}
	return nil, &Error{Closed, p.way.Address, errRetired}
}

// leave takes w out of the queue; false means that it was served.
func (p *Pool) leave(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.waiters {
		if o == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// Put gives a connection back that can carry another request: the last response was read whole.
func (p *Pool) Put(c *Conn, now time.Time) {
	c.Carried++
	c.idleFrom = now
	if p.opt.MaxRequests > 0 && c.Carried >= p.opt.MaxRequests || p.outdated(c) {
		p.Discard(c)
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.Discard(c)
		return
	}
	if len(p.waiters) > 0 {
		p.next().ready <- c
		p.mu.Unlock()
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// next takes the first waiter; mu is held.
func (p *Pool) next() *waiter {
	w := p.waiters[0]
	p.waiters = p.waiters[1:]
	return w
}

// Discard closes a connection of the pool.
func (p *Pool) Discard(c *Conn) {
	c.Conn.Close()
	p.gone()
}

// gone lets the first waiter make a connection in place of one that is no more, or gives its share of the limit back.
func (p *Pool) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiters) > 0 {
		p.next().ready <- nil
		return
	}
	p.open--
	p.breaker.connections.give()
}

// adopt takes a connection over, for which the limit was paid, that belongs to no pool yet.
func (p *Pool) adopt(c *Conn) {
	c.pool, c.idleFrom = p, time.Now()
	p.mu.Lock()
	p.open++
	if p.closed {
		p.mu.Unlock()
		p.Discard(c)
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// Sweep closes the idle connections that are too old, were closed by the endpoint, or were made with earlier certificates.
// Somebody calls it about once a second.
func (p *Pool) Sweep(now time.Time) {
	if h := p.high.Load(); h != nil {
		h.Sweep(now)
	}
	p.mux.sweep(now)
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return
	}
	var unfit []*Conn
	kept := p.idle[:0]
	for _, c := range p.idle {
		if p.fit(c, now) {
			kept = append(kept, c)
		} else {
			unfit = append(unfit, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.mu.Unlock()
	for _, c := range unfit {
		p.Discard(c)
	}
}

// Trim closes the idle connections, for the sake of others that want their descriptors.
func (p *Pool) Trim() {
	if h := p.high.Load(); h != nil {
		h.Trim()
	}
	p.mux.trim()
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		p.Discard(c)
	}
}

// Close retires the pool: idle connections are closed now, those in use when they come back, and waiting callers fail.
func (p *Pool) Close() {
	p.mu.Lock()
	idle, waiters := p.idle, p.waiters
	p.idle, p.waiters, p.closed = nil, nil, true
	p.mu.Unlock()
	if h := p.high.Load(); h != nil {
		h.Close()
	}
	p.mux.close()
	for _, c := range idle {
		p.Discard(c)
	}
	for _, w := range waiters {
		close(w.ready)
	}
}

// Count gives the open connections, and how many of them are idle.
func (p *Pool) Count() (open, idle int) {
	open, idle = p.mux.count()
	if h := p.high.Load(); h != nil {
		o, i := h.Count()
		open, idle = open+o, idle+i
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return open + p.open, idle + len(p.idle)
}

// Way is how the pool reaches its endpoint.
func (p *Pool) Way() Way { return p.way }
