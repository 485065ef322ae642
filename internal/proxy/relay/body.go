// Package relay moves what follows the heads: bodies from one codec to another, and the bytes of tunnels (TCP, CONNECT,
// upgraded connections) between two connections, in constant memory and with back-pressure from the slower side.
package relay

import (
	"io"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/spare"
)

// Source is the reading half of a message's body.
type Source interface {
	// ReadBody reads at least one byte or fails; io.EOF, which may come with the last bytes, is the end of the body.
	ReadBody(p []byte) (int, error)
	// BodyBuffered is positive while ReadBody does not block.
	BodyBuffered() int
	// Trailers are complete after io.EOF.
	Trailers() *message.Header
}

// Sink is the writing half of a message's body.
type Sink interface {
	// WriteBody may hold bytes back until Flush or FinishBody; it keeps no reference to p.
	WriteBody(p []byte) error
	Flush() error
	FinishBody(trailers *message.Header) error
}

// lender is a Source that has bytes in memory which need not be copied.
type lender interface {
	// TakeBody reads without copying what there is in memory; it may give nothing. It is valid until the next call.
	TakeBody() []byte
	BodyDone() bool
}

// Side is one of the two peers of a proxied exchange.
type Side uint8

// The sides.
const (
	Downstream Side = iota + 1
	Upstream
)

func (s Side) String() string {
	if s == Downstream {
		return "downstream"
	}
	return "upstream"
}

func (s Side) other() Side { return Downstream + Upstream - s }

// Error is a failure to read from or to write to one side.
type Error struct {
	Side Side
	Op   string // "read", "write" or "splice" (either, within the kernel)
	Err  error
}

func (e *Error) Error() string { return e.Side.String() + " " + e.Op + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Buffers of bodies and tunnels: small ones at first, large ones for streams that fill them, and long ones where that is a body on
// connections of its own: with each of these, client and endpoint are woken half as often. Who shares a connection may have hundreds of
// bodies, each of which holds its buffer while it waits for its reader.
const (
	smallBuffer = 16 << 10
	largeBuffer = 128 << 10
	longBuffer  = 256 << 10
	fullReads   = 2 // reads that fill a small buffer before a larger one is taken
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	longBuffers  = sync.Pool{New: func() any { return new([longBuffer]byte) }}
)

// buffer is a pooled buffer that grows if it is filled. take comes first, and again after drop.
type buffer struct {
	alone bool // on connections of its own: it grows to a long one; set before the first take
	p     []byte
	small *[smallBuffer]byte
	large *[largeBuffer]byte
	long  *[longBuffer]byte
	full  int       // reads that filled the small buffer
	last  time.Time // when a large buffer's content was last done with
}

// take takes a small buffer, or a grown one, if memory can be spared for that.
func (b *buffer) take(grown bool) {
	switch {
	case grown && b.alone && spare.Take(longBuffer):
		b.long = longBuffers.Get().(*[longBuffer]byte)
		b.p = b.long[:]
	case grown && !b.alone && spare.Take(largeBuffer):
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
		b.p = b.large[:]
	default:
		b.small = smallBuffers.Get().(*[smallBuffer]byte)
		b.p = b.small[:]
	}
}

// note tells of a read of n bytes, after which the buffer's content is no longer needed.
func (b *buffer) note(n int) {
	if b.small == nil {
		b.shrink()
		return
	}
	if n < len(b.p) {
		b.full = min(b.full, 0)
		return
	}
	if b.full++; b.full >= fullReads {
		b.drop()
		b.take(true)
	}
}

// slowPiece is how long a piece of a large buffer takes at least for a stream that gains nothing by it, and lets it wait for most of the time;
// slowReads is how many full reads such a stream needs before it is given one again.
const (
	slowPiece = time.Second
	slowReads = 256
)

// shrink goes on with a small buffer where memory is short or the stream is slow.
func (b *buffer) shrink() {
	now := time.Now()
	slow := !b.last.IsZero() && now.Sub(b.last) > slowPiece
	b.last = now
	if !slow && !spare.IsShort() {
		return
	}
	b.drop()
	b.take(false)
	if slow {
		b.full = fullReads - slowReads
	}
}

// drop gives the buffer back and forgets what was noted.
func (b *buffer) drop() {
	switch {
	case b.small != nil:
		smallBuffers.Put(b.small)
	case b.large != nil:
		largeBuffers.Put(b.large)
		spare.Give(largeBuffer)
	case b.long != nil:
		longBuffers.Put(b.long)
		spare.Give(longBuffer)
	}
	*b = buffer{alone: b.alone}
}

// alone reports whether none of the sides that say so shares its connection with others.
func alone(sides ...any) bool {
	for _, s := range sides {
		if c, ok := s.(interface{ Shared() bool }); ok && c.Shared() {
			return false
		}
	}
	return true
}

// Copy moves a whole body with its trailers from src to dst and finishes it there. from is the side that src reads. It gives
// the number of bytes that dst accepted, and *Error if a side failed; in that case dst is left unfinished. What dst held
// back, the head among it, is flushed before each read that may block.
func Copy(dst Sink, src Source, from Side) (int64, error) {
	return CopyPaced(dst, src, from, nil, &Pace{})
}

// Pace bounds how long a body may stand still. The zero value does not.
type Pace struct {
	// Idle is how long a read or a write may take, Until when all must be over; zero for no bound.
	Idle  time.Duration
	Until time.Time
	// Source and Sink take the deadlines for both, which stay set. Neither is used without Idle.
	Source interface{ SetReadDeadline(time.Time) error }
	Sink   interface{ SetWriteDeadline(time.Time) error }

	set time.Time // when the deadlines were set
}

// Set reports whether deadlines were set, which whoever goes on with the connections takes back.
func (p *Pace) Set() bool { return !p.set.IsZero() }

// looks is how finely the idle time of bodies and tunnels is measured: to look at the clock now and then costs next to nothing,
// a deadline for each read and write would not.
const looks = 4

// wait comes before a read that may block.
func (p *Pace) wait() {
	if p.Idle <= 0 {
		return
	}
	now := time.Now()
	if !p.set.IsZero() && now.Sub(p.set) < p.Idle/looks {
		return
	}
	p.set = now
	at := now.Add(p.Idle + p.Idle/looks)
	if !p.Until.IsZero() && p.Until.Before(at) {
		at = p.Until
	}
	p.Source.SetReadDeadline(at)
	p.Sink.SetWriteDeadline(at)
}

// CopyPaced is Copy within the bounds of p. It counts the messages of gRPC in m, if that is not nil.
func CopyPaced(dst Sink, src Source, from Side, m *Messages, p *Pace) (int64, error) {
	total, done, err := handOver(dst, src, from, m)
	if err != nil {
		return total, err
	}
	if !done {
		if total, err = copyRest(dst, src, from, m, p, total); err != nil {
			return total, err
		}
	}
	if err := dst.FinishBody(src.Trailers()); err != nil {
		return total, &Error{from.other(), "write", err}
	}
	return total, nil
}

// handOver copies what lies in memory, and reports whether that was all.
func handOver(dst Sink, src Source, from Side, m *Messages) (n int64, done bool, err error) {
	l, ok := src.(lender)
	if !ok {
		return 0, false, nil
	}
	p := l.TakeBody()
	if len(p) == 0 {
		return 0, false, nil
	}
	if err := dst.WriteBody(p); err != nil {
		return 0, false, &Error{from.other(), "write", err}
	}
	if m != nil {
		m.See(p)
	}
	return int64(len(p)), l.BodyDone(), nil
}

// copyRest copies until the end of src, by a buffer. It adds to total.
func copyRest(dst Sink, src Source, from Side, m *Messages, p *Pace, total int64) (int64, error) {
	b := buffer{alone: alone(dst, src)}
	b.take(false)
	defer b.drop()
	for {
		if src.BodyBuffered() == 0 {
			if err := dst.Flush(); err != nil {
				return total, &Error{from.other(), "write", err}
			}
			p.wait()
		}
		n, err := src.ReadBody(b.p)
		if n > 0 {
			if werr := dst.WriteBody(b.p[:n]); werr != nil {
				return total, &Error{from.other(), "write", werr}
			}
			total += int64(n)
			if m != nil {
				m.See(b.p[:n])
			}
			b.note(n)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, &Error{from, "read", err}
		}
	}
}
