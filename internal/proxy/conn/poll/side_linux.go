package poll

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// side is one direction of a connection: whether it is ready, and who waits for that. At most one goroutine reads and one writes.
type side struct {
	// state holds flags, and above them the cycle of the poller that made it ready.
	state   atomic.Uint64
	sleeper sleeper
	later   func() // what runs in place of a goroutine that waits; set before parked is, taken by who cleared it

	mu       sync.Mutex // orders changes of the deadline; taken before the heap's
	deadline int64      // nanoseconds since base; 0 for none

	entry heapEntry // guarded by the heap's mutex
}

// Flags of a side's state.
const (
	parked  = 1 << iota // a goroutine waits, or later does
	ready               // the kernel said so, and nobody has asked it since
	ended               // the stream is at its end or broken: a call does not block any more
	expired             // the deadline has passed
	closed

	cycleShift = 8
	flags      = 1<<cycleShift - 1
)

// raise sets flags and wakes whoever is parked. It may be called from any goroutine.
func (s *side) raise(f uint64) {
	for {
		old := s.state.Load()
		if s.state.CompareAndSwap(old, (old|f)&^parked) {
			if old&parked != 0 {
				s.rouse()
			}
			return
		}
	}
}

// rouse wakes the goroutine that is parked, or starts the one that is to be. It is called by who cleared parked.
func (s *side) rouse() {
	if f := s.later; f != nil {
		s.later = nil
		go f() // ends when it likes
		return
	}
	s.unpark()
}

// onReady starts f on a goroutine when await would return; false if that is now.
func (s *side) onReady(f func()) bool {
	s.later = f
	if !s.mark() {
		s.later = nil
		return false
	}
	return true
}

// mark sets parked; false if there is something that await would not wait for.
func (s *side) mark() bool {
	for {
		old := s.state.Load()
		if old&(closed|expired|ready|ended) != 0 {
			return false
		}
		if s.state.CompareAndSwap(old, old|parked) {
			return true
		}
	}
}

// becomes is raise for the poller: with the cycle in which it heard of it.
func (s *side) becomes(f uint64, cycle uint32) {
	for {
		old := s.state.Load()
		if s.state.CompareAndSwap(old, uint64(cycle)<<cycleShift|(old&flags|f)&^parked) {
			if old&parked != 0 {
				s.rouse()
			}
			return
		}
	}
}

func (s *side) lower(f uint64) { s.state.And(^f) }

// await parks the goroutine until the side is ready or has ended, and then clears the flags in take.
func (s *side) await(take uint64) (state uint64, err error) {
	for {
		old := s.state.Load()
		switch {
		case old&(closed|expired) != 0:
			return old, s.failure(old)
		case old&(ready|ended) != 0:
			if old&take == 0 || s.state.CompareAndSwap(old, old&^take) {
				return old, nil
			}
			continue
		}
		s.park()
	}
}

// check fails where await would, without waiting.
func (s *side) check() error {
	if st := s.state.Load(); st&(closed|expired) != 0 {
		return s.failure(st)
	}
	return nil
}

func (s *side) failure(state uint64) error {
	if state&closed != 0 {
		return net.ErrClosed
	}
	return os.ErrDeadlineExceeded
}
