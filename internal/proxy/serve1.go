package proxy

import (
	"errors"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/exchange"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// defaultIdle is Envoy's idle time-out of downstream connections.
const defaultIdle = time.Hour

// serveHTTP serves requests until the connection ends. It leaves the closing of the transport to the caller.
func (d *connection) serveHTTP() {
	c := &track.Caller{Conn: d.conn}
	d.conn, d.track.Client = c, c
	s := http1.NewServerConn(c, d.Scheme(), d.limits())
	d.track.Conn, d.track.Idle = d.conn, defaultIdle
	if d.HTTP != nil && d.HTTP.IdleTimeout > 0 {
		d.track.Idle = d.HTTP.IdleTimeout
	}
	d.track.Slow, d.track.Shed = c.Slow, c.Shed
	d.track.Rests = d.accepted.Rests() && conn.Rests(c)
	d.track.Enter(track.Idle, d.p.opt.Now())
	d.p.tracker.Add(d.track)
	d.accepted.AtEnd(func() { d.p.tracker.Remove(d.track) })
	d.serveAll(side.NewClient1(s, d.conn, d.track))
}

// serveAll serves one request after the other, until the connection ends or rests.
func (d *connection) serveAll(one *side.Client1) {
	for d.serveOne(one) {
	}
}

// rest gives the goroutine up if that is why the wait for a request was interrupted.
func (d *connection) rest(one *side.Client1, err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !d.track.Nudged() {
		return
	}
	d.p.tracker.Settle()
	if d.conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	d.track.Become(track.Resting)
	d.accepted.Rest(d.conn, func() {
		d.track.Wake()
		d.serveAll(one)
	})
}

// begins notes that a request comes. It is false if the connection has failed.
func (d *connection) begins(now time.Time) bool {
	return d.goesOn(d.track.Swap(track.Heading, now).Interrupted())
}

// goesOn lifts what was to interrupt the connection: the request came just as the goroutine was to be given up, or the connection to
// end, or its head did as that took too long. It is false if the connection has failed.
func (d *connection) goesOn(interrupted bool) bool {
	if !interrupted {
		return true
	}
	d.p.tracker.Settle()
	return d.conn.SetReadDeadline(time.Time{}) == nil
}

func (d *connection) limits() *http1.Limits {
	if d.HTTP == nil || d.HTTP.MaxHeaderBytes == 0 {
		return http1.DefaultLimits()
	}
	l := *http1.DefaultLimits()
	l.HeadBytes = d.HTTP.MaxHeaderBytes
	return &l
}

// serveOne serves one request and reports whether another may follow.
func (d *connection) serveOne(s *side.Client1) bool {
	if err := s.WaitRequest(); err != nil && !d.spokeLate(err) {
		d.rest(s, err)
		return false // idle for long, draining, or gone
	}
	x := d.p.carrier.Begin(&d.Client, s)
	if !d.begins(x.Start) {
		d.p.carrier.Discard(x)
		return false
	}
	err := s.ReadRequest(&x.Req)
	if err == nil && d.renew() {
		return d.carryOn(s, x)
	}
	s.CloseAfter()
	x.RefuseUnread(err)
	s.Shut()
	d.p.carrier.Discard(x)
	return false
}

// carryOn carries a request that was read, and reports whether another may follow.
func (d *connection) carryOn(s *side.Client1, x *exchange.Exchange) bool {
	if d.Tunnel != nil && x.Req.Proto == message.HTTP10 {
		s.CloseAfter() // RFC 9112 section 9.3: a proxy that clients know of keeps none of HTTP/1.0, whatever they ask for
	}
	s.Begin(&x.Req)
	if !d.goesOn(d.track.Swap(track.Busy, x.Start).Interrupted()) {
		d.p.carrier.Discard(x)
		return false
	}
	x.Carry()
	if x.Hijacked {
		d.p.carrier.Discard(x)
		return false
	}
	reuse := s.EndExchange()
	d.track.Enter(track.Idle, x.End)
	d.p.carrier.Discard(x)
	if !reuse {
		s.Shut()
	}
	return reuse
}

// spokeLate reports whether the client sent something just as it was given up: that is served still.
func (d *connection) spokeLate(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || conn.Quiet(d.conn) {
		return false
	}
	return d.conn.SetReadDeadline(time.Time{}) == nil
}
