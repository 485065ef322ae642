package serve

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// form is one of the two forms of the protocol.
type form[R any] struct {
	sotw   bool
	recv   func() (R, error)
	handle func(*session, R) error // takes a request in
	flush  func(*session) error    // sends what the client has to be told
}

// introduceWithin is how long a stream may be open without having said who it is.
const introduceWithin = 30 * time.Second

// serveStream runs one stream: it takes requests and wake-ups until the client leaves, its certificate ends or the server stops.
func serveStream[R any](s *Server, ctx context.Context, w form[R]) error {
	who, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	expired := time.NewTimer(time.Until(who.expires))
	defer expired.Stop()
	silent := time.NewTimer(introduceWithin)
	defer silent.Stop()
	requests, failed := receive(ctx, w.recv)
	c := newSession(s, who, w.sotw)
	s.add(c)
	defer func() { s.remove(c, err) }()
	for {
		select {
		case r := <-requests:
			if err = w.handle(c, r); err == nil {
				silent.Stop()
				err = w.flush(c)
			}
		case <-c.wake:
			err = flushTimed(c, w.flush)
		case err = <-failed:
			if errors.Is(err, io.EOF) {
				err = nil
				return nil
			}
		case <-expired.C:
			err = status.Error(codes.Unauthenticated, "the client certificate has expired: connect again with the renewed one")
		case <-silent.C:
			err = status.Errorf(codes.DeadlineExceeded, "no request within %v", introduceWithin)
		case <-ctx.Done():
			err = status.FromContextError(ctx.Err()).Err()
		}
		if err != nil {
			return err
		}
	}
}

// flushTimed sends what a new mesh changes.
func flushTimed(c *session, flush func(*session) error) error {
	if c.claim.id == "" {
		return nil // it is told when it has said who it is
	}
	since, concerned := c.pending()
	if err := flush(c); err != nil {
		return err
	}
	if concerned {
		c.server.metrics.convergence.Observe(time.Since(since).Seconds())
	}
	return nil
}

// pending reports whether there is something that may have to be told, and since when.
func (c *session) pending() (time.Time, bool) {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	return c.behind, len(c.changed) > 0
}

// A client may send requestBurst requests at once and requestRate a second all the time. A proxy sends one for each thing that it
// subscribes to and one for each answer; beyond that the stream is read no faster, and the client's own flow control holds it back.
const (
	requestBurst = 2000
	requestRate  = 500
)

// receive reads requests in a goroutine, which ends with the stream: gRPC fails Recv once the handler has returned.
func receive[R any](ctx context.Context, recv func() (R, error)) (<-chan R, <-chan error) {
	requests, failed := make(chan R), make(chan error, 1)
	go func() {
		var p pace
		for {
			r, err := recv()
			if err != nil {
				failed <- err
				return
			}
			if !p.wait(ctx) {
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, failed
}

// pace is a bucket of requests.
type pace struct {
	used float64
	at   time.Time
}

// wait takes one request out of the bucket when there is one; false when the context ends first.
func (p *pace) wait(ctx context.Context) bool {
	now := time.Now()
	p.used = max(0, p.used-now.Sub(p.at).Seconds()*requestRate) + 1
	p.at = now
	if p.used <= requestBurst {
		return true
	}
	t := time.NewTimer(time.Second / requestRate)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
