package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// phase is what a tracked connection is doing.
type phase int64

const (
	idle     phase = iota // between requests
	heading               // reading a request's head
	busy                  // exchanging, or relaying bytes
	awaiting              // an upstream's answer
	watched               // awaiting, and a watch looks whether the client is there still
	nudged                // idle for a while: the goroutine that waits is being interrupted to give itself up
	resting               // idle, without a goroutine
)

// quiet reports whether there is no request.
func (ph phase) quiet() bool { return ph == idle || ph == nudged || ph == resting }

const (
	phaseBits = 3
	phaseMask = 1<<phaseBits - 1
)

// tracked is a connection as the sweep sees it: what it is doing, and since when.
type tracked struct {
	conn  conn.Conn
	rests bool // conn can be waited for without a goroutine
	idle  time.Duration
	dir   direction
	state atomic.Int64 // milliseconds since began << phaseBits | phase

	client *caller // that of HTTP/1 connections
	drain  func()  // ends an HTTP/2 connection, which looks after its idleness itself; nil for others
	wait   patient
}

// began is what tracked times count from: a difference of two readings of one clock is not moved by corrections of the wall clock.
var began = time.Now()

func stateOf(ph phase, now time.Time) int64 {
	return now.Sub(began).Milliseconds()<<phaseBits | int64(ph)
}

func (t *tracked) enter(ph phase, now time.Time) { t.state.Store(stateOf(ph, now)) }

// swap is enter, and gives the phase before.
func (t *tracked) swap(ph phase, now time.Time) phase {
	return phase(t.state.Swap(stateOf(ph, now)) & phaseMask)
}

// become changes the phase without a new beginning.
func (t *tracked) become(ph phase) {
	t.state.Store(t.state.Load()&^phaseMask | int64(ph))
}

func (t *tracked) nudged() bool { return t.state.Load()&phaseMask == int64(nudged) }

func (t *tracked) since() (phase, time.Time) {
	return parseState(t.state.Load())
}

func parseState(v int64) (phase, time.Time) {
	return phase(v & phaseMask), began.Add(time.Duration(v>>phaseBits) * time.Millisecond)
}

// tracker ends connections that are idle, or take too long over a request's head, for all of a proxy: a deadline per request
// on each would cost more than the request's parsing.
type tracker struct {
	mu   sync.Mutex
	open map[*tracked]struct{}
}

func (t *tracker) add(c *tracked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*tracked]struct{}{}
	}
	t.open[c] = struct{}{}
}

func (t *tracker) remove(c *tracked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

const (
	// defaultIdle is Envoy's idle time-out of downstream connections.
	defaultIdle = time.Hour
	// headTime is how long a client may take over a request's head.
	headTime = 30 * time.Second
	// sleepAfter is the idleness after which a connection gives up its goroutine, most of whose memory is its stack.
	sleepAfter = 2 * time.Second
)

var longAgo = time.Unix(1, 0)

// sweep interrupts the reads of connections whose time has passed, and of those that drain once they were idle for grace, if graced
// says that the proxy was: the first request of a connection that has just come is on its way. Connections of HTTP/2 are told at once:
// nothing on its way is lost by that.
func (t *tracker) sweep(now time.Time, graced bool, grace time.Duration, drains func(direction) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if c.drain != nil {
			if drains(c.dir) {
				c.drain()
			}
			continue
		}
		state := c.state.Load()
		ph, since := parseState(state)
		if ph == awaiting && now.Sub(since) > watchAfter {
			c.consider(state)
		}
		waits := ph == idle || ph == resting
		if waits && (graced && now.Sub(since) > grace && drains(c.dir) || now.Sub(since) > c.idle) || ph == heading && now.Sub(since) > headTime {
			c.conn.SetReadDeadline(longAgo)
		} else if ph == idle && c.rests && now.Sub(since) > sleepAfter && c.state.CompareAndSwap(state, state&^phaseMask|int64(nudged)) {
			c.conn.SetReadDeadline(longAgo) // whoever finds the phase changed waits for the end of this sweep, and lifts it
		}
	}
}

// settle waits for the end of a sweep under way.
func (t *tracker) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// counts gives the open connections and how many of them are not idle.
func (t *tracker) counts() (open, working int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, _ := c.since(); !ph.quiet() {
			working++
		}
	}
	return len(t.open), working
}
