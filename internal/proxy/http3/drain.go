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
)

// Drain takes no new connections, asks clients to leave (GOAWAY) and waits until they have or the context has ended; then everything is
// closed. Clients that have their answers and stay all the same are closed on. It is called once.
func (s *Server) Drain(ctx context.Context) error {
	defer s.stop()
	s.mu.Lock()
	s.draining = time.Now()
	s.mu.Unlock()
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for s.dismiss() > 0 || s.handshaking() {
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

// dismiss looks at each client, and gives their number.
func (s *Server) dismiss() int {
	now := time.Now()
	var leave []*client
	s.mu.Lock()
	since, calm := now.Sub(s.draining), calmTime
	if since > s.patience()/2 {
		calm = 0
	}
	for c := range s.clients {
		rests := c.requests == 0 && now.Sub(c.rested) >= calm
		switch {
		case c.entered && !c.asked && (rests || since > s.patience()):
			c.asked = true
			go c.http.Shutdown(s.ctx) // ends with the connection, or by stop
		case c.asked && c.requests == 0 && c.silent(now):
			leave = append(leave, c)
		}
	}
	left := len(s.clients)
	s.mu.Unlock()
	for _, c := range leave {
		_ = c.quic.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeNoError), "") // it may have ended
	}
	return left
}

// silent reports whether a client acknowledges nothing any more. mu is held.
func (c *client) silent(now time.Time) bool {
	if n := c.quic.ConnectionStats().PacketsReceived; n != c.heard || c.hearing.IsZero() {
		c.heard, c.hearing = n, now
	}
	quiet := now.Sub(c.rested)
	return quiet >= lingerMost || quiet >= lingerTime && now.Sub(c.hearing) >= lingerTime
}
