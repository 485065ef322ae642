package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// connect takes a connection to the endpoint.
func (x *exchange) connect() bool {
	x.unsent, x.stale = true, false
	if x.to.err != nil {
		return x.fail(tlsFailed, "connect", x.to.err)
	}
	now, deadline := x.start, x.attemptDeadline()
	if x.attempt > 1 {
		now = x.p.opt.Now()
	}
	x.tried = now
	err := x.open(now, deadline)
	if err != nil {
		x.err = unreached(err)
		x.reportUnreached(err)
		return false
	}
	x.stale, x.upLocal = x.call.Stale(), x.call.LocalAddr()
	x.announce(deadline)
	if !deadline.IsZero() {
		x.timed = true
		x.call.SetReadDeadline(deadline)
		x.call.SetWriteDeadline(deadline)
	}
	return true
}

// open takes a connection from the endpoint's pool, or a new one.
func (x *exchange) open(now, deadline time.Time) error {
	var up *upstream.Conn
	var err error
	if x.free {
		up, err = x.to.pool.Fresh(x.d.connecting(x.to), deadline)
	} else {
		up, err = x.to.pool.Get(x.d.connecting(x.to), now, deadline)
	}
	if err == nil {
		x.call = newCall1(up, x.to.pool)
	}
	return err
}

// reportUnreached tells the balancer about an endpoint that could not be reached, unless that was our own limit.
func (x *exchange) reportUnreached(err error) {
	var u *upstream.Error
	if errors.As(err, &u) && (u.Op == upstream.Connect || u.Op == upstream.Handshake) && !errors.Is(u.Err, context.Canceled) {
		if x.deadline.IsZero() || x.p.opt.Now().Before(x.deadline) {
			x.cluster.balancer.Report(x.to.host, balance.ConnectFailed, x.p.opt.Now().Sub(x.tried), u)
		}
	}
	if x.expired() && errors.As(err, &u) && u.Timeout() {
		x.err = fail(upstreamTimeout, "connect", err)
	}
}

func (x *exchange) expired() bool {
	return !x.deadline.IsZero() && !x.p.opt.Now().Before(x.deadline)
}

// attemptDeadline is the earlier of the exchange's and the attempt's own.
func (x *exchange) attemptDeadline() time.Time {
	if x.retries == nil || x.retries.PerTry == 0 && x.retries.PerTryIdle == 0 {
		return x.deadline
	}
	now := x.p.opt.Now()
	return earlier(earlier(x.deadline, now, x.retries.PerTry), now, x.retries.PerTryIdle)
}

// earlier gives the earlier of a deadline, which may be zero, and a time after now, which may be none.
func earlier(deadline, now time.Time, after time.Duration) time.Time {
	if own := now.Add(after); after > 0 && (deadline.IsZero() || own.Before(deadline)) {
		return own
	}
	return deadline
}

// answering takes the limit off that an attempt has for its first byte.
func (x *exchange) answering() {
	if x.timed && x.retries != nil && x.retries.PerTryIdle > 0 {
		x.call.SetReadDeadline(earlier(x.deadline, x.tried, x.retries.PerTry))
	}
}

// broken ends the attempt because the connection failed.
func (x *exchange) broken(op string, err error) bool {
	x.err = unanswered(op, err)
	outcome := balance.Broken
	if x.stale && !x.call.ResponseStarted() {
		return false // the endpoint timed an idle connection out; that is no sign of ill health
	}
	x.cluster.balancer.Report(x.to.host, outcome, x.p.opt.Now().Sub(x.tried), x.err)
	return false
}

// giveBack ends the attempt: the connection goes back to its pool, or is closed. The response's strings die.
func (x *exchange) giveBack(fit bool) {
	if x.pumping != nil {
		if x.err == nil {
			x.pumping.settle()
		}
		x.pumping.stop(x)
		x.received += x.pumping.n
	}
	if x.call != nil {
		x.down.forget()
		if x.timed {
			x.call.SetReadDeadline(time.Time{})
			x.call.SetWriteDeadline(time.Time{})
		}
		x.call.End(fit || x.err == nil, x.p.opt.Now())
	}
	if x.using {
		x.to.host.End()
	}
	x.call, x.timed, x.using = nil, false, false
}
