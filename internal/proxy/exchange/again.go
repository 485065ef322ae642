package exchange

import (
	"errors"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// again decides about another attempt and prepares it.
func (x *Exchange) again(ok bool) bool {
	if !x.wantsAgain(ok) {
		return false
	}
	if ok {
		x.dropResponse()
	}
	if x.failures < len(x.failed) {
		x.failed[x.failures] = x.to.Host
		x.failures++
	}
	if p := x.pumping; p != nil {
		p.stop(x)
		if !p.whole() && !p.resumable(x.down.Interruptible()) {
			return x.clientFailed(p.cause())
		}
		x.keep(p)
	}
	x.giveBack(false)
	return true
}

// keep takes over what a pump that has ended has kept: the whole body, or what came of it so far.
func (x *Exchange) keep(p *pump) {
	x.held, x.body, p.kept.held = p.kept.held, (*p.kept.held)[:p.kept.n], nil
	x.partial = !x.down.BodyDone()
	if x.isGRPC {
		x.asked.See(x.body[x.received+p.n:]) // what the endpoint did not take was not counted
	}
	p.n = int64(len(x.body)) - x.received
}

// wantsAgain asks safety first, then the policy, then the budgets.
func (x *Exchange) wantsAgain(ok bool) bool {
	a, repeatable := x.outcome(ok), retry.Repeatable(&x.Req)
	wanted := x.matched.Route != nil && retry.Wanted(x.retries, &a, repeatable)
	wouldHelp := wanted || repeatable && (!ok || a.Unsent || a.Unanswered)
	if ok && x.pumping != nil && wanted && !x.resumes(ok) {
		x.pumping.settle() // the answer may be here before the goroutine that has sent the body has run again
	}
	x.bodyGone = x.pumping != nil && x.pumping.dropped() && x.retries != nil && wouldHelp
	if x.to == nil || x.pumping != nil && !x.pumping.whole() && !x.resumes(ok) || !ok && x.err.Fault() == failure.OfClient || x.p.ctx.Err() != nil || x.expired() {
		return false
	}
	if b := x.Req.Body; b.Kind != message.NoBody && b != (message.Body{Kind: message.Sized}) && x.body == nil && x.pumping == nil && (x.spent || !x.unsent) {
		x.bodyGone = x.retries != nil && wouldHelp
		return false
	}
	if !ok && x.forFree(repeatable) {
		return true
	}
	if !ok && !x.err.Retryable() || !wanted {
		return false
	}
	policy := x.retries
	if x.attempt > int(policy.Attempts) {
		x.exhausted = policy.Attempts > 0
		return false
	}
	x.unpaid = !x.payRetry()
	x.exhausted = x.overspent
	return !x.unpaid && x.backOff(policy, a.Header)
}

// outcome is how the attempt ended, as a policy sees it.
func (x *Exchange) outcome(ok bool) retry.Attempt {
	a := retry.Attempt{Unsent: x.unsent, GRPC: -1, Safe: retry.Safe(&x.Req)}
	if ok {
		a.Status, a.GRPC, a.Begun, a.Header = x.res.Status, x.grpcStatus(), true, &x.res.Header
		a.Unsent, a.Unanswered = x.toldBy(UnsentHeader), x.toldBy(UnansweredHeader)
	} else {
		a.Begun = x.call != nil && x.call.ResponseStarted()
		a.TimedOut = x.err.Kind == failure.UpstreamTimeout || x.err.Kind == failure.TryTimeout || x.err.Kind == failure.UpstreamStalled
	}
	return a
}

// resumes reports whether the sending of a body can be taken up where an attempt's end has interrupted it, or, after an answer, will.
func (x *Exchange) resumes(ok bool) bool {
	if ok {
		return x.pumping.small && x.down.Interruptible()
	}
	return x.pumping.resumable(x.down.Interruptible())
}

// forFree are the repetitions that need no policy. An endpoint was removed before it was tried, or it has refused the stream or
// announced by GOAWAY that it does not look at it, or ended the connection before it could be opened, or we had no descriptor for one
// and have made room: nobody has seen the request, and the next endpoint may be removed as well. Or,
// once per exchange, it had closed a kept connection, as every server may at any time, without answering a byte.
func (x *Exchange) forFree(repeatable bool) bool {
	var u *upstream.Error
	if errors.As(x.err, &u) && (u.Op == upstream.Closed || u.Ours()) || failure.Unprocessed(x.err) {
		if x.untaken++; errors.Is(x.err, upstream.ErrEnded) && x.failures > 0 && x.failed[x.failures-1] == x.to.Host {
			x.untaken += 2 // there is no other, and it goes on as it began
		}
		return x.untaken <= maxUntaken && (u == nil || !u.Full() || x.pause(time.Duration(x.untaken)*roomPause))
	}
	if x.free || !x.stale || !repeatable || x.err.Kind != failure.UpstreamClosed || x.call.ResponseStarted() {
		return false
	}
	x.free = true
	return true
}

// roomPause, once, twice and so on, is how long a request waits for idle connections to end, where there was no descriptor for its own.
const roomPause = 4 * time.Millisecond

// maxUntaken bounds how many endpoints a request may be offered to that do not take it.
const maxUntaken = 8

func (x *Exchange) payRetry() bool {
	if !x.retrying {
		if !x.breaker().Retry() {
			x.cluster.Tally.RetryOverflow.Add(1)
			return false
		}
		x.retrying = true
	}
	if x.overspent = !x.unsent && !x.cluster.Budget.Retry(x.p.Now()); x.overspent {
		x.cluster.Tally.RetryOverflow.Add(1)
	}
	return !x.overspent
}

// backOff waits before the next attempt; false means that there is no time for one.
func (x *Exchange) backOff(p *conf.Retry, answered *message.Header) bool {
	if x.unsent && x.attempt == 1 {
		return true
	}
	return x.pause(retry.Wait(p, x.attempt, answered, x.p.Now(), x.p.random64()))
}

// pause is false where there is no time for it.
func (x *Exchange) pause(d time.Duration) bool {
	if !x.deadline.IsZero() && x.p.Now().Add(d).After(x.deadline) {
		return false
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-x.p.ctx.Done():
		return false
	}
}

// dropResponse reads a short body of a response that is not delivered, so that the connection can be used again.
func (x *Exchange) dropResponse() {
	var scrap [512]byte
	for x.call.BodyBuffered() > 0 {
		if _, err := x.call.ReadBody(scrap[:]); err != nil {
			return
		}
	}
	if x.res.Body.Kind == message.NoBody {
		x.call.ReadBody(scrap[:])
	}
}
