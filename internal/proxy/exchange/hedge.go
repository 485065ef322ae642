package exchange

import (
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
)

// race is an exchange whose attempts are under way at the same time: each one that takes longer than its time gets a rival, and the
// first good answer counts. The exchange's own goroutine makes the attempts, one of its own waits for each answer.
type race struct {
	x       *Exchange
	running []*runner
	done    chan *runner
}

// runner is an attempt that was sent. res and err belong to its goroutine until it has sent the runner to done.
type runner struct {
	call  side.Call
	to    *cluster.Endpoint
	timed bool
	tried time.Time
	res   message.Response
	err   error
}

// hedges reports whether attempts may overlap: the policy wants it, the request does no harm twice, and all of it can be sent again.
func (x *Exchange) hedges() bool {
	p, b := x.retries, x.Req.Body
	return p != nil && p.Hedge && p.PerTry > 0 && x.Req.Upgrade == "" && x.pumping == nil && !x.partial && retry.Repeatable(&x.Req) &&
		(x.body != nil || b.Kind == message.NoBody || b == message.Body{Kind: message.Sized})
}

// race waits for the answer to the attempt that was sent, and to those that it sends besides. Of the client's leaving it takes no
// notice: what it started ends with the first answer, or with the time-out of the whole.
func (x *Exchange) race() error {
	r := &race{x: x, done: make(chan *runner)}
	r.start()
	late := time.NewTimer(x.retries.PerTry)
	defer late.Stop()
	for {
		select {
		case first := <-r.done:
			r.running = slices.DeleteFunc(r.running, func(o *runner) bool { return o == first })
			if len(r.running) == 0 || r.good(first) {
				r.finish(first)
				return first.err
			}
			r.drop(first)
		case <-late.C:
			if r.rival() {
				late.Reset(x.retries.PerTry)
			}
		}
	}
}

// start hands the exchange's attempt to a goroutine, which ends with the answer or when the call is cut.
func (r *race) start() {
	x := r.x
	one := &runner{call: x.call, to: x.to, timed: x.timed, tried: x.tried}
	r.running = append(r.running, one)
	go func() {
		for one.err == nil && (one.res.Status < 200 && one.res.Status != 101) {
			one.err = one.call.ReadResponse(&one.res)
		}
		r.done <- one
	}()
}

// rival makes another attempt beside those that run; false when there is none to be made.
func (r *race) rival() bool {
	x := r.x
	if x.attempt > int(x.retries.Attempts) || !x.payRetry() {
		return false
	}
	last := r.running[len(r.running)-1]
	if x.failures < len(x.failed) {
		x.failed[x.failures] = last.to.Host
		x.failures++
	}
	x.attempt++
	x.call, x.timed, x.using = nil, false, false
	if x.pick() && x.connect() && x.send() {
		r.start()
		return true
	}
	x.giveBack(false)
	x.err = nil
	return x.attempt <= int(x.retries.Attempts)
}

// good reports whether an answer is worth taking while others are awaited.
func (r *race) good(one *runner) bool {
	a := retry.Attempt{Status: one.res.Status, GRPC: grpc.StatusOf(&one.res.Header, -1), Begun: true, Header: &one.res.Header}
	return one.err == nil && !retry.Wanted(r.x.retries, &a, true)
}

// finish makes the winner the exchange's attempt, and ends the others.
func (r *race) finish(one *runner) {
	x := r.x
	for _, o := range r.running {
		o.call.Cut()
	}
	for range r.running {
		r.end(<-r.done)
	}
	x.call, x.to, x.timed, x.tried, x.using = one.call, one.to, one.timed, one.tried, true
	x.stale, x.upLocal, x.unsent = one.call.Stale(), one.call.LocalAddr(), false
	x.res = one.res
}

// drop ends an attempt that failed while others run.
func (r *race) drop(one *runner) {
	if one.err != nil {
		r.x.cluster.Balancer.Report(one.to.Host, balance.Broken, r.x.p.Now().Sub(one.tried), failure.Unanswered("receive", one.err))
	} else {
		r.x.cluster.Balancer.Report(one.to.Host, r.x.cluster.Balancer.OutcomeOf(one.res.Status), r.x.p.Now().Sub(one.tried), nil)
	}
	r.end(one)
}

func (r *race) end(one *runner) {
	one.call.End(false, r.x.p.Now())
	one.to.Host.End()
}
