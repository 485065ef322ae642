// Package track ends the connections of clients that are idle or too slow, for all of a proxy, and notices clients that hang up while they
// are to be answered.
package track

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// phase is what a tracked connection is doing.
type phase int64

const (
	Idle     phase = iota // between requests
	Heading               // reading a request's head
	Busy                  // exchanging, or relaying bytes
	awaiting              // an upstream's answer
	watched               // awaiting, and a watch looks whether the client is there still
	Nudged                // idle for a while: the goroutine that waits is being interrupted to give itself up
	Resting               // idle, without a goroutine
	Leaving               // idle, or late with a head, and being interrupted to end
)

// quiet reports whether there is no request.
func (ph phase) quiet() bool { return ph == Idle || ph == Nudged || ph == Resting || ph == Leaving }

const (
	phaseBits = 3
	phaseMask = 1<<phaseBits - 1
)

// Conn is a connection as the sweep sees it: what it is doing, and since when.
type Conn struct {
	Conn  conn.Conn
	Rests bool // conn can be waited for without a goroutine
	Idle  time.Duration
	// Outbound: it is the workload's own.
	Outbound bool
	state    atomic.Int64 // milliseconds since began << phaseBits | phase
	streams  atomic.Int64 // that Begin began

	Client *Caller // that of HTTP/1 connections
	Drain  func()  // ends a connection of HTTP/2 or HTTP/3, which looks after its idleness itself; nil for others
	// Slow gives how many answers the client takes too little of, those that hold much counted several times, and Shed ends these, where
	// memory is short; nil for connections that are not HTTP's.
	Slow, Shed func(now time.Time) int
	wait       patient
}

// began is what tracked times count from: a difference of two readings of one clock is not moved by corrections of the wall clock.
var began = time.Now()

func stateOf(ph phase, now time.Time) int64 {
	return now.Sub(began).Milliseconds()<<phaseBits | int64(ph)
}

func (t *Conn) Enter(ph phase, now time.Time) { t.state.Store(stateOf(ph, now)) }

// Begin notes a stream of a connection that carries many: it is busy until as many have finished as have begun.
func (t *Conn) Begin(now time.Time) {
	if t.streams.Add(1) == 1 {
		t.Enter(Busy, now)
	}
}

// Finish ends what Begin began.
func (t *Conn) Finish(now time.Time) {
	if t.streams.Add(-1) == 0 {
		t.Enter(Idle, now)
	}
}

// Swap is enter, and gives the phase before.
func (t *Conn) Swap(ph phase, now time.Time) phase {
	return phase(t.state.Swap(stateOf(ph, now)) & phaseMask)
}

// Become changes the phase without a new beginning.
func (t *Conn) Become(ph phase) {
	t.state.Store(t.state.Load()&^phaseMask | int64(ph))
}

// Interrupted reports whether a connection in the phase has its reads made to fail: whoever finds that, and goes on, waits for the end
// of the tracker's work, and lifts it.
func (ph phase) Interrupted() bool { return ph == Nudged || ph == Leaving }

// Wake is that what rested has a goroutine again. One that is to end stays so.
func (t *Conn) Wake() {
	if state := t.state.Load(); state&phaseMask == int64(Resting) {
		t.state.CompareAndSwap(state, state&^phaseMask|int64(Idle))
	}
}

// end interrupts what is in that state, unless it has gone on meanwhile: a request that has just come is served.
func (t *Conn) end(state int64) bool {
	if !t.state.CompareAndSwap(state, state&^phaseMask|int64(Leaving)) {
		return false
	}
	t.Conn.SetReadDeadline(conn.LongAgo)
	return true
}

func (t *Conn) Nudged() bool { return t.state.Load()&phaseMask == int64(Nudged) }

func (t *Conn) since() (phase, time.Time) {
	return parseState(t.state.Load())
}

func parseState(v int64) (phase, time.Time) {
	return phase(v & phaseMask), began.Add(time.Duration(v>>phaseBits) * time.Millisecond)
}

// Tracker ends connections that are idle, or take too long over a request's head, for all of a proxy: a deadline per request
// on each would cost more than the request's parsing.
type Tracker struct {
	mu   sync.Mutex
	open map[*Conn]struct{}
}

func (t *Tracker) Add(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*Conn]struct{}{}
	}
	t.open[c] = struct{}{}
}

func (t *Tracker) Remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

const (
	// headTime is how long a client may take over a request's head.
	headTime = 30 * time.Second
	// SleepAfter is the idleness after which a connection gives up its goroutine, most of whose memory is its stack.
	SleepAfter = 2 * time.Second
)

// Sweep interrupts the reads of connections whose time has passed, and of those that drain once they were idle for grace, if graced
// says that the proxy was: the first request of a connection that has just come is on its way. Connections of HTTP/2 are told at once:
// nothing on its way is lost by that.
func (t *Tracker) Sweep(now time.Time, graced bool, grace time.Duration, drains func(outbound bool) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if c.Drain != nil {
			if drains(c.Outbound) {
				c.Drain()
			}
			continue
		}
		state := c.state.Load()
		ph, since := parseState(state)
		if ph == awaiting && now.Sub(since) > WatchAfter {
			c.consider(state)
		}
		waits := ph == Idle || ph == Resting
		if waits && (graced && now.Sub(since) > grace && drains(c.Outbound) || now.Sub(since) > c.Idle) || ph == Heading && now.Sub(since) > headTime {
			c.end(state)
		} else if ph == Idle && c.Rests && now.Sub(since) > SleepAfter && c.state.CompareAndSwap(state, state&^phaseMask|int64(Nudged)) {
			c.Conn.SetReadDeadline(conn.LongAgo)
		}
	}
}

// settled is the idleness from which a connection may be closed for another's sake: the first request of one that has just come, or the
// next of one that was just answered, may be on its way.
const settled = 100 * time.Millisecond

// leastEvicted connections are enough for a client that waits and its endpoint, and for some more.
const leastEvicted = 8

// Evict ends those connections without a request that have been idle for the longest: an eighth of them, and some at least. Connections
// of HTTP/2 are told to end. It gives the number of those that it ends.
func (t *Tracker) Evict(now time.Time) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	type candidate struct {
		c     *Conn
		state int64
		since time.Time
	}
	var idle []candidate
	for c := range t.open {
		state := c.state.Load()
		ph, since := parseState(state)
		if c.Drain != nil {
			c.Drain()
		} else if (ph == Idle || ph == Resting) && now.Sub(since) > settled {
			idle = append(idle, candidate{c, state, since})
		}
	}
	slices.SortFunc(idle, func(a, b candidate) int { return a.since.Compare(b.since) })
	for _, o := range idle[:min(len(idle), max(len(idle)/8, leastEvicted))] {
		if o.c.end(o.state) {
			n++
		}
	}
	return n
}

// Shed looks for answers that clients take too little of. With cut it ends those of the clients that hold the most: an eighth of these
// clients, and one at least. It gives the number of answers.
func (t *Tracker) Shed(now time.Time, cut bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	type candidate struct {
		c    *Conn
		held int
	}
	var slow []candidate
	for c := range t.open {
		if c.Slow == nil {
			continue
		}
		if held := c.Slow(now); held > 0 {
			slow = append(slow, candidate{c, held})
		}
	}
	if !cut || len(slow) == 0 {
		return 0
	}
	slices.SortFunc(slow, func(a, b candidate) int { return b.held - a.held })
	for _, o := range slow[:max(len(slow)/8, 1)] {
		n += o.c.Shed(now)
	}
	return n
}

// Rouse has every client watched that waits for an answer: where its connection was closed, the wait ends at once.
func (t *Tracker) Rouse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if state := c.state.Load(); state&phaseMask == int64(awaiting) {
			c.consider(state)
		}
	}
}

// Settle waits for the end of a sweep under way.
func (t *Tracker) Settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// Resting is the number of connections without a goroutine.
func (t *Tracker) Resting() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, _ := c.since(); ph == Resting {
			n++
		}
	}
	return n
}

// Counts gives the open connections and how many of them are not idle.
func (t *Tracker) Counts() (open, working int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, _ := c.since(); !ph.quiet() {
			working++
		}
	}
	return len(t.open), working
}

// QuietSince reports whether no tracked connection has done anything since then.
func (t *Tracker) QuietSince(then time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, since := c.since(); !ph.quiet() || since.After(then) {
			return false
		}
	}
	return true
}
