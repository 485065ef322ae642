package http2

import (
	"time"

	"github.com/weftmesh/weft/internal/proxy/slow"
)

// Slow looks at what waits for the client, and gives how many streams, each with a buffer of its owner's, it has been slow with for as
// long as this was called often enough.
func (s *ServerConn) Slow(now time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow.Look(now, s.out.writing, int64(s.out.writes), 1); s.slow.Slow(now) {
		n++
	}
	for _, st := range s.streams {
		if st.slow.Look(now, st.wwait, st.sent, slow.Bytes); st.slow.Slow(now) {
			n++
		}
	}
	return n
}

// Shed resets those streams, so that their memory is free, and closes the connection if the client has let a write stand still. It gives
// how many it has reset.
func (s *ServerConn) Shed(now time.Time) (n int) {
	s.mu.Lock()
	stuck := s.slow.Slow(now)
	for _, st := range s.streams {
		if st.err == nil && st.wwait && (stuck || st.slow.Slow(now)) {
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
