package relay

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// ErrIdle is what Tunnel reports when neither side sent anything for the idle time.
var ErrIdle = errors.New("no bytes in either direction for the idle time")

// Counts are the bytes that a tunnel delivered.
type Counts struct {
	FromDownstream, FromUpstream int64
}

// Tunnel carries bytes both ways between down and up until both have ended their sending sides, one fails, nothing is
// delivered either way for the idle time (zero: no limit), or ctx ends. The end of one side's stream is passed on as a
// half-close and the other direction goes on. It closes both connections and returns when nothing of it runs any more. A side whose
// stream was not ended like that is reset where the transport can be: what it got is not whole. To be idle is an end.
//
// The error is nil when both streams ended, *Error if a side failed, ErrIdle, or ctx's cause.
func Tunnel(ctx context.Context, down, up conn.Conn, idle time.Duration) (Counts, error) {
	t := tunnel{idle: idle, down: down, up: up}
	t.breaks(true)
	unhook := context.AfterFunc(ctx, func() { t.end(context.Cause(ctx)) })
	if idle > 0 {
		t.watch()
	}
	var upstream sync.WaitGroup
	upstream.Go(func() { t.run(&t.fromUp, down, up, Upstream) }) // ends with its connections
	t.run(&t.fromDown, up, down, Downstream)
	upstream.Wait()
	unhook()
	err := t.finish()
	return Counts{FromDownstream: t.fromDown.Load(), FromUpstream: t.fromUp.Load()}, err
}

type tunnel struct {
	// Set once.
	idle     time.Duration
	down, up conn.Conn

	fromDown, fromUp atomic.Int64

	mu    sync.Mutex
	err   error // the first failure
	over  bool  // the reason to end is known
	ended int   // sides that have ended their sending
	timer *time.Timer
	sum   int64     // bytes at the last look
	since time.Time // when sum was last seen to grow
}

// end records the first reason, nil for none, and ends both directions. What that makes fail is no reason.
func (t *tunnel) end(err error) {
	t.mu.Lock()
	if !t.over {
		if t.err, t.over = err, true; err == nil || err == ErrIdle {
			t.breaks(false)
		}
	}
	t.mu.Unlock()
	t.down.Close()
	t.up.Close()
}

// breaks says whether closing the connections now tells their peers that something is missing.
func (t *tunnel) breaks(on bool) {
	conn.BreakOnClose(t.down, on)
	conn.BreakOnClose(t.up, on)
}

func (t *tunnel) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = time.Now()
	t.timer = time.AfterFunc(t.period(), t.look)
}

func (t *tunnel) period() time.Duration { return max(t.idle/looks, 1) }

func (t *tunnel) look() {
	t.mu.Lock()
	now, sum := time.Now(), t.fromDown.Load()+t.fromUp.Load()
	if sum != t.sum {
		t.sum, t.since = sum, now
	}
	expired := now.Sub(t.since) >= t.idle
	if !expired && !t.over {
		t.timer.Reset(t.period())
	}
	t.mu.Unlock()
	if expired {
		t.end(ErrIdle)
	}
}

func (t *tunnel) finish() error {
	t.mu.Lock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
	err := t.err
	t.mu.Unlock()
	t.down.Close()
	t.up.Close()
	return err
}

// run carries one direction, from being the side of src. A failure ends both.
func (t *tunnel) run(count *atomic.Int64, dst, src conn.Conn, from Side) {
	d := direction{idle: t.idle, count: count, dst: dst, src: src, from: from}
	defer d.buf.drop()
	for {
		switch err := d.step(); {
		case err == nil:
		case err.Op == "read" && err.Err == io.EOF:
			t.endSending(dst, from.other())
			return
		default:
			t.end(err)
			return
		}
	}
}

// endSending passes the end of a stream on. Where the transport has no half-close the end of one direction is the end of
// both, or the peer would wait for it for ever.
func (t *tunnel) endSending(dst conn.Conn, to Side) {
	t.mu.Lock()
	t.ended++
	both := t.ended == 2 // then whoever hears of it may be gone for good, and that is no failure
	t.mu.Unlock()
	conn.BreakOnClose(dst, false)
	switch err := dst.CloseWrite(); {
	case err == nil:
	case both, errors.Is(err, errors.ErrUnsupported):
		t.end(nil)
	default:
		t.end(&Error{to, "write", err})
	}
}

// direction is one half of a tunnel, owned by its goroutine.
type direction struct {
	idle     time.Duration
	count    *atomic.Int64
	dst, src conn.Conn
	from     Side
	buf      buffer
	long     bool // the last read found much
}

// step waits for bytes without a buffer and moves what it finds.
func (d *direction) step() *Error {
	d.buf.drop()
	if err := d.src.Wait(); err != nil {
		return &Error{d.from, "read", err}
	}
	d.buf.take(d.long)
	for {
		n, err := d.src.Read(d.buf.p)
		if n > 0 {
			if _, werr := d.dst.Write(d.buf.p[:n]); werr != nil {
				return &Error{d.from.other(), "write", werr}
			}
			d.count.Add(int64(n))
		}
		if err != nil {
			return &Error{d.from, "read", err}
		}
		// A single byte may be what Wait took, with more behind it (conn.FromNet).
		if d.long = n >= smallBuffer; n < len(d.buf.p) && n > 1 {
			return nil
		}
		if d.buf.large != nil && conn.Spliceable(d.dst, d.src) {
			return d.splice()
		}
		d.buf.note(n)
	}
}

// splice moves a stream that has shown itself to be long within the kernel, for as long as it flows.
func (d *direction) splice() *Error {
	d.buf.drop()
	interval := time.Duration(0)
	if d.idle > 0 {
		interval = max(d.idle/looks, 1)
	}
	readErr, writeErr := conn.Splice(d.dst, d.src, interval, func(n int64) { d.count.Add(n) })
	switch {
	case readErr == io.EOF:
		return &Error{d.from, "read", io.EOF}
	case readErr != nil:
		return &Error{d.from, "splice", readErr}
	case writeErr != nil:
		return &Error{d.from.other(), "splice", writeErr}
	}
	return nil
}
