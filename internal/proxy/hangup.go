package proxy

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// caller is a client's connection whose end can be noticed while nothing is to be read from it: a byte that comes meanwhile is
// kept for the next read. It is owned by the reading goroutine, which lends it to a watch.
type caller struct {
	conn.Conn
	has  bool
	kept [1]byte
	err  error // the end of the stream, or what broke it; sticky
}

func (c *caller) Read(p []byte) (int, error) {
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

func (c *caller) Wait() error {
	if c.has || c.err != nil {
		return nil
	}
	return c.Conn.Wait()
}

// Quiet implements conn.Quieter.
func (c *caller) Quiet() bool { return !c.has && c.err == nil && conn.Quiet(c.Conn) }

// OnReady and Rests are those of package conn.
func (c *caller) OnReady(f func()) bool { return !c.has && c.err == nil && conn.OnReady(c.Conn, f) }

func (c *caller) Rests() bool { return conn.Rests(c.Conn) }

// watch waits for a client to hang up while its request is worked on. As in Envoy the end of the client's stream counts: who
// wants an answer keeps the connection open.
type watch struct {
	c    *caller
	up   call          // cut when the client is gone; may be nil
	gone chan struct{} // closed when the client is gone
	done chan struct{} // closed when the watch has ended
}

func startWatch(c *caller, up call) *watch {
	w := &watch{c: c, up: up, gone: make(chan struct{}), done: make(chan struct{})}
	go w.run() // ends when the client speaks or leaves, or by stop
	return w
}

func (w *watch) run() {
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
		close(w.gone)
		if w.up != nil {
			w.up.Cut() // wakes whoever waits for the answer
		}
	}
}

// stop ends the watch and reports whether the client is gone. The connection is the caller's again.
func (w *watch) stop() bool {
	w.c.SetReadDeadline(longAgo)
	<-w.done
	w.c.SetReadDeadline(time.Time{})
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// patient is a wait for an answer. Most answers come soon: a watch is started only for those that do not, by the tracker's
// sweep.
type patient struct {
	by atomic.Pointer[exchange] // set while waiting
	w  *watch                   // set by the sweep that turns waiting into watched
}

// watchAfter is how long an answer may take before the client is watched.
const watchAfter = 250 * time.Millisecond

// await notes that x waits for its answer.
func (t *tracked) await(x *exchange, now time.Time) {
	t.wait.by.Store(x)
	t.enter(awaiting, now)
}

// awaited ends the wait, and reports whether the client hung up meanwhile.
func (t *tracked) awaited(now time.Time) (gone bool) {
	old := t.state.Swap(stateOf(busy, now))
	if phase(old&phaseMask) != watched {
		return false
	}
	w := t.wait.w
	t.wait.w = nil
	return w.stop()
}

// consider starts a watch if the exchange waits for long. The tracker's mutex is held, so there is one sweep at a time; the
// exchange may leave at any moment, and then nothing is started.
func (t *tracked) consider(state int64) {
	x := t.wait.by.Load()
	w := &watch{c: t.client, gone: make(chan struct{}), done: make(chan struct{})}
	t.wait.w = w
	if !t.state.CompareAndSwap(state, state&^int64(phaseMask)|int64(watched)) {
		return
	}
	w.up = x.call // x stays where it is until awaited has stopped the watch
	go w.run()    // ends when the client speaks or leaves, or by awaited
}
