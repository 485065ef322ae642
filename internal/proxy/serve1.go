package proxy

import (
	"errors"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// defaultIdle is Envoy's idle time-out of downstream connections.
const defaultIdle = time.Hour

// serveHTTP serves requests until the connection ends. It leaves the closing of the transport to the caller.
func (d *downstream) serveHTTP() {
	c := &track.Caller{Conn: d.conn}
	d.conn, d.track.Client = c, c
	s := http1.NewServerConn(c, d.scheme(), d.limits())
	d.track.Conn, d.track.Idle = d.conn, defaultIdle
	if d.http != nil && d.http.IdleTimeout > 0 {
		d.track.Idle = d.http.IdleTimeout
	}
	d.track.Rests = d.accepted.Rests() && conn.Rests(c)
	d.track.Enter(track.Idle, d.p.opt.Now())
	d.p.tracker.Add(d.track)
	d.accepted.AtEnd(func() { d.p.tracker.Remove(d.track) })
	d.serveAll(side.NewClient1(s, d.conn, d.track))
}

// serveAll serves one request after the other, until the connection ends or rests.
func (d *downstream) serveAll(one *side.Client1) {
	for d.serveOne(one) {
	}
}

// rest gives the goroutine up if that is why the wait for a request was interrupted.
func (d *downstream) rest(one *side.Client1, err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !d.track.Nudged() {
		return
	}
	d.p.tracker.Settle()
	if d.conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	d.track.Become(track.Resting)
	d.accepted.Rest(d.conn, func() {
		d.track.Become(track.Idle)
		d.serveAll(one)
	})
}

// begins notes that a request comes. It is false if the connection has failed.
func (d *downstream) begins(now time.Time) bool {
	if d.track.Swap(track.Heading, now) != track.Nudged {
		return true
	}
	// The request came just as the goroutine was to be given up.
	d.p.tracker.Settle()
	return d.conn.SetReadDeadline(time.Time{}) == nil
}

func (d *downstream) limits() *http1.Limits {
	if d.http == nil || d.http.MaxHeaderBytes == 0 {
		return http1.DefaultLimits()
	}
	l := *http1.DefaultLimits()
	l.HeadBytes = d.http.MaxHeaderBytes
	return &l
}

// serveOne serves one request and reports whether another may follow.
func (d *downstream) serveOne(s *side.Client1) bool {
	if err := s.WaitRequest(); err != nil && !d.spokeLate(err) {
		d.rest(s, err)
		return false // idle for long, draining, or gone
	}
	x := d.p.carrier.begin(&d.client, s)
	if !d.begins(x.start) {
		d.p.carrier.discard(x)
		return false
	}
	err := s.ReadRequest(&x.req)
	if err == nil && d.renew() {
		return d.carryOn(s, x)
	}
	s.CloseAfter()
	x.refuseUnread(err)
	s.Shut()
	d.p.carrier.discard(x)
	return false
}

// refuseUnread answers a request whose head did not come whole, or (err is nil) whose connection is not taken in any more, where
// there is somebody to answer.
func (x *exchange) refuseUnread(err error) {
	var bad *http1.Error
	switch {
	case err == nil && retry.Repeatable(&x.req):
		// Clients repeat such a request by themselves when a kept connection closes, and seldom at an answer.
	case err == nil:
		x.refuse(failure.NotTaken, 0, errors.New("the listener's configuration has changed, and does not take this connection any more"))
	case errors.As(err, &bad):
		x.refuse(failure.Malformed, bad.Status, bad)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.refuse(failure.SlowHead, 0, err)
	}
}

// carryOn carries a request that was read, and reports whether another may follow.
func (d *downstream) carryOn(s *side.Client1, x *exchange) bool {
	s.Begin(&x.req)
	d.track.Enter(track.Busy, x.start)
	x.carry()
	if x.hijacked {
		d.p.carrier.discard(x)
		return false
	}
	reuse := s.EndExchange()
	d.track.Enter(track.Idle, x.end)
	d.p.carrier.discard(x)
	if !reuse {
		s.Shut()
	}
	return reuse
}

// spokeLate reports whether the client sent something just as it was given up: that is served still.
func (d *downstream) spokeLate(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || conn.Quiet(d.conn) {
		return false
	}
	return d.conn.SetReadDeadline(time.Time{}) == nil
}
