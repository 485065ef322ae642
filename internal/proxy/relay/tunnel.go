package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// ErrIdle is the cause of the *Error with which Tunnel reports that neither side sent anything for the idle time.
var ErrIdle = errors.New("no bytes in either direction for the idle time")

// Counts are the bytes that a tunnel delivered.
type Counts struct {
	FromDownstream, FromUpstream int64
}

// Tunnel carries bytes both ways between down and up until both have ended their sending sides, one fails, neither sends
// anything for the idle time (zero: no limit), or ctx ends. The end of one side's stream is passed on as a half-close and the
// other direction goes on. It closes both connections and returns when nothing of it runs any more.
//
// The error is nil when both streams ended, *Error if a side failed or the tunnel was idle, and ctx's cause if ctx ended.
func Tunnel(ctx context.Context, down, up conn.Conn, idle time.Duration) (Counts, error) {
	t := tunnel{idle: idle, down: down, up: up}
	t.seen.Store(time.Now().UnixNano())
	stop := context.AfterFunc(ctx, t.closeBoth)
	var upstream sync.WaitGroup
	upstream.Go(func() { t.run(&t.fromUp, down, up, Upstream) }) // ends with its connections
	t.run(&t.fromDown, up, down, Downstream)
	upstream.Wait()
	stop()
	t.closeBoth()
	counts := Counts{FromDownstream: t.fromDown.Load(), FromUpstream: t.fromUp.Load()}
	if err := context.Cause(ctx); err != nil {
		return counts, err
	}
	if e := t.first.Load(); e != nil {
		return counts, e
	}
	return counts, nil
}

type tunnel struct {
	// Set once.
	idle     time.Duration
	down, up conn.Conn

	fromDown, fromUp atomic.Int64
	seen             atomic.Int64 // when a tick last found bytes in any direction, Unix nanoseconds
	first            atomic.Pointer[Error]
}

func (t *tunnel) closeBoth() {
	t.down.Close()
	t.up.Close()
}

// run carries one direction, from being the side of src. A failure ends both.
func (t *tunnel) run(count *atomic.Int64, dst, src conn.Conn, from Side) {
	d := direction{t: t, count: count, dst: dst, src: src, from: from}
	defer d.buf.drop()
	err := d.carry()
	if err == nil {
		err = d.endSending()
	}
	if err != nil {
		t.first.CompareAndSwap(nil, err)
		t.closeBoth()
	}
}

// direction is one half of a tunnel, owned by its goroutine.
type direction struct {
	t        *tunnel
	count    *atomic.Int64
	dst, src conn.Conn
	from     Side
	buf      buffer
	marked   int64 // count at the last tick
}

// endSending passes the end of the stream on. Where the transport has no half-close, the end of one direction is the end of
// both, or the peer would wait for it for ever.
func (d *direction) endSending() *Error {
	err := d.dst.CloseWrite()
	if errors.Is(err, errors.ErrUnsupported) {
		d.t.closeBoth()
		return nil
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return &Error{d.from.other(), "write", err}
	}
	return nil
}

// carry returns nil at the end of src's stream.
func (d *direction) carry() *Error {
	if err := d.arm(); err != nil {
		return err
	}
	for {
		n, err := d.step()
		if n > 0 {
			d.count.Add(n)
		}
		switch {
		case err == nil:
		case err.Op == "read" && errors.Is(err.Err, io.EOF):
			return nil
		case err.Op == "read" && errors.Is(err.Err, os.ErrDeadlineExceeded):
			if err := d.tick(); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// ticks is how finely the idle time is measured: the deadlines of both directions fall due that often within it. A deadline
// for each read would cost more than the read.
const ticks = 4

func (d *direction) arm() *Error {
	if d.t.idle <= 0 {
		return nil
	}
	d.marked = d.count.Load()
	if err := d.src.SetReadDeadline(time.Now().Add(max(d.t.idle/ticks, 1))); err != nil {
		return &Error{d.from, "read", err}
	}
	return nil
}

// tick notes whether this direction moved since the last one, and ends the tunnel if neither did for the idle time.
func (d *direction) tick() *Error {
	now := time.Now().UnixNano()
	if d.count.Load() != d.marked {
		d.t.seen.Store(now)
	} else if now-d.t.seen.Load() >= int64(d.t.idle) {
		return &Error{d.from, "idle", ErrIdle}
	}
	return d.arm()
}

// step waits for bytes without a buffer and moves what it finds.
func (d *direction) step() (int64, *Error) {
	d.buf.drop()
	if err := d.src.Wait(); err != nil {
		return 0, &Error{d.from, "read", err}
	}
	d.buf.take()
	var total int64
	for {
		n, err := d.src.Read(d.buf.p)
		if n > 0 {
			if _, werr := d.dst.Write(d.buf.p[:n]); werr != nil {
				return total, &Error{d.from.other(), "write", werr}
			}
			total += int64(n)
		}
		if err != nil {
			return total, &Error{d.from, "read", err}
		}
		if n < len(d.buf.p) {
			return total, nil
		}
		if d.buf.large != nil {
			return d.splice(total)
		}
		d.buf.note(n)
	}
}

// spliceRun bounds how much moves in the kernel before the counters are told.
const spliceRun = 8 << 20

// splice moves a stream that has shown itself to be long within the kernel, if both ends are sockets. It comes back at the
// end of the stream, at a tick, or after a run.
func (d *direction) splice(total int64) (int64, *Error) {
	dst, ok1 := conn.NetConn(d.dst).(*net.TCPConn)
	src, ok2 := conn.NetConn(d.src).(*net.TCPConn)
	if !ok1 || !ok2 {
		return total, nil
	}
	d.buf.drop()
	limited := io.LimitedReader{R: src, N: spliceRun}
	n, err := dst.ReadFrom(&limited)
	total += n
	switch {
	case err == nil && limited.N > 0:
		return total, &Error{d.from, "read", io.EOF}
	case err == nil:
		return total, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return total, &Error{d.from, "read", err}
	}
	return total, &Error{d.blame(err), "relay", err}
}

// blame tells the sides apart by the operation that net names.
func (d *direction) blame(err error) Side {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "read" {
		return d.from
	}
	return d.from.other()
}
