package http2

import "time"

// A reader is slow when it has taken less than slowBytes in slowTime. A write to the transport is when it has not ended by then: it is of
// Options.WriteBytes at most.
const (
	slowTime  = 5 * time.Second
	slowBytes = 32 << 10
)

// slowness is what is known of a reader from looks at it: where it stood, and since when it has not got on.
type slowness struct {
	at    int64
	since time.Time // zero while nothing waits for it
}

// look is told where the reader stands, if something waits for it.
func (s *slowness) look(now time.Time, waits bool, at int64, step int64) {
	switch {
	case !waits:
		*s = slowness{}
	case s.since.IsZero() || at-s.at >= step:
		*s = slowness{at, now}
	}
}

func (s *slowness) slow(now time.Time) bool { return !s.since.IsZero() && now.Sub(s.since) >= slowTime }

// Slow looks at what waits for the client, and gives how many streams, each with a buffer of its owner's, it has been slow with for as
// long as this was called often enough.
func (s *ServerConn) Slow(now time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow.look(now, s.out.writing, int64(s.out.writes), 1); s.slow.slow(now) {
		n++
	}
	for _, st := range s.streams {
		if st.slow.look(now, st.wwait, st.sent, slowBytes); st.slow.slow(now) {
			n++
		}
	}
	return n
}

// Shed resets those streams, so that their memory is free, and closes the connection if the client has let a write stand still. It gives
// how many it has reset.
func (s *ServerConn) Shed(now time.Time) (n int) {
	s.mu.Lock()
	stuck := s.slow.slow(now)
	for _, st := range s.streams {
		if st.err == nil && st.wwait && (stuck || st.slow.slow(now)) {
			st.end(&StreamError{Code: EnhanceYourCalm, Reason: "memory is short, and the peer takes too little", Shed: true})
			s.reset(st, EnhanceYourCalm, "", false)
			n++
		}
	}
	s.flush(false)
	s.mu.Unlock()
	if stuck {
		s.close(errShed)
	}
	return n
}
