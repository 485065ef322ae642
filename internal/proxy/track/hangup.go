package track

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// Caller is a client's connection whose end can be noticed while nothing is to be read from it: a byte that comes meanwhile is
// kept for the next read. It is owned by the reading goroutine, which lends it to a watch.
type Caller struct {
	conn.Conn
	has  bool
	kept [1]byte
	err  error // the end of the stream, or what broke it; sticky

	writes atomic.Int64 // begun and ended: odd while one is under way
	piece  atomic.Int64 // bytes of the last one
	shed   atomic.Bool
	slow   slow.Reader // guarded by the tracker's mutex
}

// Write writes p. That the tracker has ended the connection is slow.ErrShed.
func (c *Caller) Write(p []byte) (int, error) {
	c.piece.Store(int64(len(p)))
	c.writes.Add(1)
	n, err := c.Conn.Write(p)
	c.writes.Add(1)
	if err != nil && c.shed.Load() {
		err = slow.ErrShed
	}
	return n, err
}

// heldUnit is what a stream of HTTP/2 holds at most while it waits for the client: clients are compared by what they hold.
const heldUnit = 128 << 10

// Slow looks at what waits for the client, and gives how much it has been slow with for as long as this was called often enough, in
// units of what a stream of HTTP/2 may hold: 0 for nothing, and at least 1 for anything.
func (c *Caller) Slow(now time.Time) int {
	writes := c.writes.Load()
	at, step := conn.Sent(c.Conn), int64(slow.Bytes)
	if at == 0 {
		at, step = writes, 1
	}
	if c.slow.Look(now, writes%2 == 1, at, step); !c.slow.Slow(now) {
		return 0
	}
	return int(max(c.piece.Load()/heldUnit, 1))
}

// Shed ends the connection of a client that is slow, and what the kernel holds for it. It gives the number of answers.
func (c *Caller) Shed(now time.Time) int {
	if !c.slow.Slow(now) {
		return 0
	}
	c.shed.Store(true)
	conn.Abort(c.Conn)
	return 1
}

func (c *Caller) Read(p []byte) (int, error) {
	switch {
	case c.has && len(p) > 0:
		c.has = false
		p[0] = c.kept[0]
		return 1, nil
	case c.err != nil && !c.has:
		return 0, c.err
	}
	return c.Conn.Read(p)
}

func (c *Caller) Wait() error {
	if c.has || c.err != nil {
		return nil
	}
	return c.Conn.Wait()
}

// Quiet implements conn.Quieter.
func (c *Caller) Quiet() bool { return !c.has && c.err == nil && conn.Quiet(c.Conn) }

// OnReady and Rests are those of package conn.
func (c *Caller) OnReady(f func()) bool { return !c.has && c.err == nil && conn.OnReady(c.Conn, f) }

func (c *Caller) Rests() bool { return conn.Rests(c.Conn) }

// BreakOnClose is that of package conn.
func (c *Caller) BreakOnClose(on bool) { conn.BreakOnClose(c.Conn, on) }

// Watch waits for a client to hang up while its request is worked on. As in Envoy the end of the client's stream counts: who
// wants an answer keeps the connection open.
type Watch struct {
	c    *Caller
	up   cutter        // cut when the client is gone; may be nil
	Gone chan struct{} // closed when the client is gone
	done chan struct{} // closed when the watch has ended
}

// cutter is what waits for an endpoint's answer: Cut ends the wait.
type cutter interface{ Cut() }

// StartWatch begins a watch, which cuts up, if that is not nil, when the client leaves.
func StartWatch(c *Caller, up cutter) *Watch {
	w := &Watch{c: c, up: up, Gone: make(chan struct{}), done: make(chan struct{})}
	go w.run() // ends when the client speaks or leaves, or by stop
	return w
}

func (w *Watch) run() {
	defer close(w.done)
	if err := w.c.Wait(); errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if w.c.has || w.c.err != nil {
		return
	}
	n, err := w.c.Conn.Read(w.c.kept[:])
	switch {
	case n == 1:
		w.c.has = true // the next request, sent early
	case errors.Is(err, os.ErrDeadlineExceeded):
	case err != nil:
		w.c.err = err
		close(w.Gone)
		if w.up != nil {
			w.up.Cut() // wakes whoever waits for the answer
		}
	}
}

// Stop ends the watch and reports whether the client is gone. The connection is the caller's again.
func (w *Watch) Stop() bool {
	w.c.SetReadDeadline(conn.LongAgo)
	<-w.done
	w.c.SetReadDeadline(time.Time{})
	select {
	case <-w.Gone:
		return true
	default:
		return false
	}
}

// patient is a wait for an answer. Most answers come soon: a watch is started only for those that do not, by the tracker's
// sweep.
type patient struct {
	up cutter // set before waiting; the sweep that turns waiting into watched reads it
	w  *Watch // set by that sweep
}

// WatchAfter is how long an answer may take before the client is watched.
const WatchAfter = 250 * time.Millisecond

// Await notes that an answer is waited for. When the client leaves before awaited, up is cut.
func (t *Conn) Await(up cutter, now time.Time) {
	t.wait.up = up
	t.Enter(awaiting, now)
}

// Awaited ends the wait, and reports whether the client hung up meanwhile.
func (t *Conn) Awaited(now time.Time) (gone bool) {
	old := t.state.Swap(stateOf(Busy, now))
	if phase(old&phaseMask) != watched {
		return false
	}
	w := t.wait.w
	t.wait.w = nil
	return w.Stop()
}

// consider starts a watch if the exchange waits for long. The tracker's mutex is held, so there is one sweep at a time; the
// exchange may leave at any moment, and then nothing is started.
func (t *Conn) consider(state int64) {
	w := &Watch{c: t.Client, Gone: make(chan struct{}), done: make(chan struct{})}
	t.wait.w = w
	if !t.state.CompareAndSwap(state, state&^int64(phaseMask)|int64(watched)) {
		return
	}
	w.up = t.wait.up // it stays until awaited has stopped the watch
	go w.run()       // ends when the client speaks or leaves, or by awaited
}
