package http3

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"
)

// The library sends one GOAWAY, of the next stream, and rejects what is on its way then (H3_REQUEST_REJECTED, which says that it may be
// repeated: RFC 9114 section 4.1.1). That none is, clients are asked to leave when they are calm.
const (
	watchEvery = 100 * time.Millisecond
	drainEvery = 20 * time.Millisecond
	// calmTime without a request makes a client calm. For the second half of the patience one moment does.
	calmTime = 100 * time.Millisecond
	// mostPatience is after what time a client that never is calm is asked all the same.
	mostPatience = 10 * time.Second
	// handshakeTime is what a client has that has begun when draining does.
	handshakeTime = 2 * time.Second
	// lingerTime of silence, or lingerMost in any case, is what the last responses get to arrive, as the library does not tell when they
	// have, and closing destroys them.
	lingerTime = time.Second
	lingerMost = time.Minute
	// closingTime is how long clients that were cut off are told so again: three times the time in which a packet is held for lost, where
	// the way back and forth takes a tenth of a second.
	closingTime = 500 * time.Millisecond
)

// Drain takes no new connections, asks clients to leave (GOAWAY) and waits until they have or the context has ended; then everything is
// closed, and the sockets are used no more. Clients that have their answers and stay all the same are closed on. It is called once.
func (s *Server) Drain(ctx context.Context) error {
	defer s.leaveSockets()
	s.mu.Lock()
	s.draining = time.Now()
	s.mu.Unlock()
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for s.Open() > 0 || s.handshaking() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// leaveSockets waits for Serve: the last packets tell clients of the end, and need the socket.
func (s *Server) leaveSockets() {
	s.stop()
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for s.serves() {
		<-tick.C
	}
}

func (s *Server) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sockets > 0
}

func (s *Server) patience() time.Duration {
	if s.opt.DrainTime > 0 {
		return min(mostPatience, s.opt.DrainTime/2)
	}
	return mostPatience
}

func (s *Server) handshaking() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.tried) < handshakeTime
}

// watch has clients leave when it is time for that, until the server is closed.
func (s *Server) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			for _, c := range s.dismiss(now, s.opt.Closing != nil && s.opt.Closing()) {
				if c.rests() { // a request may have come while others were closed
					_ = c.quic.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeNoError), "") // it may have ended
				}
			}
		}
	}
}

// dismiss asks clients to leave, and gives those that should have left by now.
func (s *Server) dismiss(now time.Time, closing bool) (late []*client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !closing && s.draining.IsZero():
		s.asking = time.Time{}
	case s.asking.IsZero():
		s.asking = now
	}
	for c := range s.clients {
		switch {
		case c.asked && c.requests == 0 && c.silent(now):
			late = append(late, c)
		case !c.asked && c.entered && !s.asking.IsZero() && s.goes(c, now):
			c.asked = true
			// It ends with the connection. By its context it would close that, with no error and answers under way: see end.
			go c.http.Shutdown(context.WithoutCancel(s.ctx))
		}
	}
	return late
}

// goes reports whether a client is calm, or was waited for long enough. mu is held.
func (s *Server) goes(c *client, now time.Time) bool {
	since := min(now.Sub(s.asking), now.Sub(c.began))
	if since > s.patience() {
		return true
	}
	return c.requests == 0 && (now.Sub(c.rested) >= calmTime || since > s.patience()/2)
}

func (c *client) rests() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.requests == 0
}

// silent reports whether a client acknowledges nothing any more. mu is held.
func (c *client) silent(now time.Time) bool {
	if n := c.quic.ConnectionStats().PacketsReceived; n != c.heard || c.hearing.IsZero() {
		c.heard, c.hearing = n, now
	}
	quiet := now.Sub(c.rested)
	return quiet >= lingerMost || quiet >= lingerTime && now.Sub(c.hearing) >= lingerTime
}
