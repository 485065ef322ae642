// Package relay moves what follows the heads: bodies from one codec to another, and the bytes of tunnels (TCP, CONNECT,
// upgraded connections) between two connections, in constant memory and with back-pressure from the slower side.
package relay

import (
	"io"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/message"
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

// Buffers of bodies and tunnels: small ones at first, large ones for streams that fill them.
const (
	smallBuffer = 16 << 10
	largeBuffer = 128 << 10
	fullReads   = 2 // reads that fill a small buffer before a large one is taken
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// buffer is a pooled buffer that grows once. take comes first, and again after drop.
type buffer struct {
	p     []byte
	small *[smallBuffer]byte
	large *[largeBuffer]byte
	full  int // reads that filled the small buffer
}

func (b *buffer) take(large bool) {
	if large {
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
		b.p = b.large[:]
		return
	}
	b.small = smallBuffers.Get().(*[smallBuffer]byte)
	b.p = b.small[:]
}

// note tells of a read of n bytes, after which the buffer's content is no longer needed.
func (b *buffer) note(n int) {
	if b.large != nil {
		return
	}
	if n < len(b.p) {
		b.full = 0
		return
	}
	if b.full++; b.full >= fullReads {
		b.drop()
		b.take(true)
	}
}

// drop gives the buffer back and forgets what was noted.
func (b *buffer) drop() {
	if b.small != nil {
		smallBuffers.Put(b.small)
	}
	if b.large != nil {
		largeBuffers.Put(b.large)
	}
	*b = buffer{}
}

// Copy moves a whole body with its trailers from src to dst and finishes it there. from is the side that src reads. It gives
// the number of bytes that dst accepted, and *Error if a side failed; in that case dst is left unfinished. What dst held
// back, the head among it, is flushed before each read that may block.
func Copy(dst Sink, src Source, from Side) (int64, error) { return CopyMessages(dst, src, from, nil) }

// CopyMessages is Copy that counts the messages of gRPC in m, if that is not nil.
func CopyMessages(dst Sink, src Source, from Side, m *Messages) (int64, error) {
	var (
		total int64
		b     buffer
	)
	b.take(false)
	defer b.drop()
	for {
		if src.BodyBuffered() == 0 {
			if err := dst.Flush(); err != nil {
				return total, &Error{from.other(), "write", err}
			}
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
			break
		}
		if err != nil {
			return total, &Error{from, "read", err}
		}
	}
	if err := dst.FinishBody(src.Trailers()); err != nil {
		return total, &Error{from.other(), "write", err}
	}
	return total, nil
}
