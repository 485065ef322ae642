package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// connect takes a connection to the endpoint.
func (x *Exchange) connect() bool {
	x.unsent, x.stale = true, false
	if x.to.Err != nil {
		return x.fail(failure.TLSFailed, "connect", x.to.Err)
	}
	if x.expired() { // nobody is asked for what comes too late
		x.err = failure.New(failure.UpstreamTimeout, "connect", nil)
		x.timedOut()
		return false
	}
	now, deadline := x.Start, x.attemptDeadline()
	if x.attempt > 1 {
		now = x.p.Now()
	}
	x.tried = now
	err := x.open(now, deadline)
	if err != nil && x.p.ctx.Err() != nil {
		return x.gone("connect", err)
	}
	if err != nil {
		x.err = failure.Unreached(err)
		x.reportUnreached(err)
		return false
	}
	x.stale, x.upLocal = x.call.Stale(), x.call.LocalAddr()
	x.until = deadline
	x.announce(deadline)
	if x.Req.Upgrade != "" {
		x.shake()
	}
	if !deadline.IsZero() {
		x.timed = true
		x.call.SetReadDeadline(deadline)
		x.call.SetWriteDeadline(deadline)
	}
	return true
}

// open takes a connection to the endpoint, or a part of one.
func (x *Exchange) open(now, deadline time.Time) error {
	ctx, pool := x.d.Connecting(x.to), x.pool()
	if x.cluster.Multiplexed(x.to, &x.Req, x.d.Direction == downstream.Gateway && x.d.Secure) || x.translated() {
		c := &x.call2
		if x.hedges() {
			c = &side.Call2{} // there may be several at a time
		}
		err := c.Lease(ctx, pool, deadline, x.Req.Body.Kind != message.NoBody || x.Req.Upgrade != "", x.p.Now)
		if err == nil {
			x.call = c
			x.Req.Scheme = x.to.Scheme(x.Req.Scheme)
			return nil
		}
		if !x.cluster.Instead(err, &x.Req) {
			return err
		}
	}
	var up *upstream.Conn
	var err error
	if x.free {
		up, err = pool.Fresh(ctx, deadline)
	} else {
		up, err = pool.Get(ctx, now, deadline)
	}
	if err == nil {
		x.call = side.NewCall1(up, pool)
	}
	return err
}

// reportUnreached tells the balancer about an endpoint that could not be reached, unless that was our own limit.
func (x *Exchange) reportUnreached(err error) {
	var u *upstream.Error
	switch {
	case !errors.As(err, &u) || !u.Ours():
	case u.Full():
		x.p.Guard.Exhausted()
	default:
		x.p.Clusters.Trim(x.p.Now())
	}
	switch x.err.Kind {
	case failure.UpstreamMalformed:
		return // it is well for those who speak what it does
	case failure.UpstreamMute: // nor is it out of reach
		x.cluster.Balancer.Report(x.to.Host, balance.Broken, x.p.Now().Sub(x.tried), u)
		return
	}
	if errors.As(err, &u) && (u.Op == upstream.Connect || u.Op == upstream.Handshake) && !errors.Is(u.Err, context.Canceled) && !u.Ours() {
		if x.deadline.IsZero() || x.p.Now().Before(x.deadline) {
			x.cluster.Balancer.Report(x.to.Host, balance.ConnectFailed, x.p.Now().Sub(x.tried), u)
		}
	}
	if x.expired() && errors.As(err, &u) && u.Timeout() {
		x.err = failure.New(failure.UpstreamTimeout, "connect", err)
	}
}

func (x *Exchange) expired() bool {
	return !x.deadline.IsZero() && !x.p.Now().Before(x.deadline)
}

// attemptDeadline is the earlier of the exchange's and the attempt's own.
func (x *Exchange) attemptDeadline() time.Time {
	own := shorter(x.attemptTime(), x.silence())
	if own == 0 {
		return x.deadline
	}
	return earlier(x.deadline, x.p.Now(), own)
}

// attemptTime is how long the retry policy lets an attempt be without an answer; 0 for no limit.
func (x *Exchange) attemptTime() time.Duration {
	if x.retries == nil || x.hedges() {
		return 0
	}
	return shorter(x.retries.PerTry, x.retries.PerTryIdle)
}

// silence is how long nothing may happen once the request has come whole, as route or listener ask for it: what still comes of a
// body has bounds of its own, see pace.
func (x *Exchange) silence() (d time.Duration) {
	if x.http != nil && x.http.StreamIdle > 0 {
		d = x.http.StreamIdle
	}
	if rt := x.matched.Route; rt != nil && rt.Forward != nil && rt.Forward.IdleTimeout > 0 {
		d = rt.Forward.IdleTimeout
	}
	if d == 0 || x.partial || x.Req.Upgrade != "" || x.Req.Body.Kind != message.NoBody && x.body == nil && !x.down.BodyDone() || x.hedges() {
		return 0
	}
	return d
}

// shorter gives the shorter of two times, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// earlier gives the earlier of a deadline, which may be zero, and a time after now, which may be none.
func earlier(deadline, now time.Time, after time.Duration) time.Time {
	if own := now.Add(after); after > 0 && (deadline.IsZero() || own.Before(deadline)) {
		return own
	}
	return deadline
}

// answering takes the limit off that an attempt has for its first byte.
func (x *Exchange) answering() {
	if !x.timed || (x.retries == nil || x.retries.PerTryIdle == 0) && x.silence() == 0 {
		return
	}
	whole := time.Duration(0)
	if x.retries != nil {
		whole = x.retries.PerTry
	}
	x.until = earlier(x.deadline, x.tried, whole)
	x.call.SetReadDeadline(x.until)
}

// broken ends the attempt because the connection failed.
func (x *Exchange) broken(op string, err error) bool {
	if x.p.ctx.Err() != nil {
		return x.gone(op, err)
	}
	x.err = failure.Unanswered(op, err)
	x.err.Late = x.status != 0
	if x.err.Kind == failure.UpstreamTimeout {
		x.timedOut()
	}
	if failure.Unprocessed(err) {
		x.unsent = true // as the endpoint says; it may be about to leave, and no sign of ill health
		return false
	}
	if x.stale && !x.call.ResponseStarted() {
		return false // the endpoint timed an idle connection out; that is no sign of ill health
	}
	x.cluster.Balancer.Report(x.to.Host, balance.Broken, x.p.Now().Sub(x.tried), x.err)
	return false
}

// timedOut says how much time there was, and for what.
func (x *Exchange) timedOut() {
	switch {
	case !x.expired() && x.silence() > 0 && shorter(x.attemptTime(), x.silence()) == x.silence():
		x.err.Kind = failure.UpstreamSilent
		x.err.Cause = fmt.Errorf("nothing happened for %s", x.silence())
	case !x.expired():
		x.err.Kind = failure.TryTimeout
		x.err.Cause = fmt.Errorf("no answer within %s, the time for one attempt", x.attemptTime())
	case x.limited:
		x.err.Cause = fmt.Errorf("no complete answer within %s, the client's %s", x.deadline.Sub(x.Start), grpc.TimeoutHeader)
	default:
		x.err.Cause = fmt.Errorf("no complete answer within %s, the route's time-out", x.deadline.Sub(x.Start))
	}
}

// giveBack ends the attempt: the connection goes back to its pool, or is closed. The response's strings die.
func (x *Exchange) giveBack(fit bool) {
	if x.pumping != nil {
		if x.err == nil && !(x.down.Shared() && x.call.Shared()) && !x.pumping.waits(x) {
			x.pumping.settle()
		}
		x.pumping.stop(x)
		x.received += x.pumping.n
		x.pumping.kept.drop()
		x.pumping = nil
	}
	if x.call != nil {
		x.down.Forget()
		if x.sending.Set() || x.receiving.Set() {
			x.timed = true
			x.down.SetReadDeadline(time.Time{})
			x.down.SetWriteDeadline(time.Time{})
		}
		if x.timed {
			x.call.SetReadDeadline(time.Time{})
			x.call.SetWriteDeadline(time.Time{})
		}
		now := x.End
		if now.IsZero() {
			now = x.p.Now()
		}
		x.call.End(fit || x.err == nil, now)
	}
	if x.using {
		x.to.Host.End()
	}
	x.call, x.timed, x.using = nil, false, false
}
