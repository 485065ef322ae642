//go:build !race

package poll

import "unsafe"

// A goroutine that waits for a side is parked by the runtime itself, as those in package net are. With a channel between it and the
// poller a request takes 2 % more CPU.

// sleeper is the goroutine that is parked. It is set before parked is, and read by who cleared that.
type sleeper struct{ g uintptr }

// park parks the goroutine unless there is something that await would not wait for.
func (s *side) park() { gopark(settle, unsafe.Pointer(s), waitIO, traceNet, 1) }

// settle runs on the scheduler's stack when the goroutine has stopped. False has it go on. The runtime keeps what g points to for good.
func settle(g uintptr, of unsafe.Pointer) bool {
	s := (*side)(of)
	s.sleeper.g = g
	return s.mark()
}

func (s *side) unpark() { goready(s.sleeper.g, 1) }

// What the runtime shows of a goroutine that waits: since Go 1.21 these are its names for the network.
const (
	waitIO   = 2
	traceNet = 2
)

//go:linkname gopark runtime.gopark
func gopark(unlock func(g uintptr, of unsafe.Pointer) bool, of unsafe.Pointer, reason, trace uint8, skip int)

//go:linkname goready runtime.goready
func goready(g uintptr, skip int)
