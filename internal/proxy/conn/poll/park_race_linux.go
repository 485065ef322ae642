//go:build race

package poll

// The race detector learns from a channel that what the one who wakes has done comes before what the woken one does.

// sleeper has one token for each parked that somebody else cleared. It is made by the first who parks, before parked is set.
type sleeper struct{ wake chan struct{} }

// park parks the goroutine unless there is something that await would not wait for.
func (s *side) park() {
	if s.sleeper.wake == nil {
		s.sleeper.wake = make(chan struct{}, 1)
	}
	if s.mark() {
		<-s.sleeper.wake
	}
}

func (s *side) unpark() { s.sleeper.wake <- struct{}{} }
