package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// maxReplay bounds the bodies that are read ahead, to be sent again or to a mirror.
const maxReplay = 64 << 10

var replayBuffers = sync.Pool{New: func() any { b := make([]byte, maxReplay); return &b }}

// readAhead reads a small body whole where it may be needed more than once, or has not arrived yet: a request that its client
// cuts off then never reaches an endpoint, and none waits for a slow client.
func (x *exchange) readAhead() bool {
	f, b := x.matched.Route.Forward, x.req.Body
	if b.Kind != message.Sized || b.Length > maxReplay || b.Length == 0 {
		return true
	}
	if len(f.Mirrors) == 0 && f.Retry == nil && x.bodyAtHand() {
		return true
	}
	if !x.welcomeBody() {
		return false
	}
	x.held = replayBuffers.Get().(*[]byte)
	x.body = (*x.held)[:b.Length]
	for n := 0; n < len(x.body); {
		m, err := x.down.ReadBody(x.body[n:])
		if n += m; err != nil && n < len(x.body) {
			return x.clientFailed(err)
		}
	}
	x.received = b.Length
	return true
}

// welcomeBody tells a client that waits for it to send its body.
func (x *exchange) welcomeBody() bool {
	if !x.req.ExpectContinue {
		return true
	}
	x.req.ExpectContinue = false
	if err := x.down.WriteInformational(100, &message.Header{}); err != nil {
		return x.fail(clientGone, "request body", err)
	}
	return true
}

// clientFailed ends the exchange because the request's body did not come as it should.
func (x *exchange) clientFailed(err error) bool {
	var bad *http1.Error
	if errors.As(err, &bad) {
		x.err = fail(malformed, "request body", bad)
		x.err.status = bad.Status
		return false
	}
	return x.fail(clientGone, "request body", err)
}

// pick chooses the endpoint of the attempt.
func (x *exchange) pick() bool {
	if !x.counted {
		if !x.cluster.breaker.Request() {
			return x.fail(overflow, "pick", errors.New("too many requests"))
		}
		x.counted = true
		x.cluster.budget.Request()
	} else if c := x.p.clusters.get(x.cluster.conf.Name); c != nil && c.lasting == x.cluster.lasting {
		x.cluster = c // endpoints may have come since the last attempt
	}
	x.choice.Avoid = x.failed[:x.failures]
	if p := x.cluster.conf.Policy; p == conf.RingHash || p == conf.Maglev {
		x.choice.Hash, x.choice.Hashed = x.hash()
	}
	to := x.cluster.pick(&x.choice, x.direct)
	if to == nil {
		return x.fail(noHealthy, "pick", x.cluster.whyNone())
	}
	x.to = to
	x.to.host.Begin()
	x.using = true
	if x.req.Authority == "" {
		x.req.Authority = x.cluster.authority(to)
	}
	return true
}

// authority is what a request is addressed to that came without Host, as HTTP/1.0 allows: we forward it as HTTP/1.1, which
// requires one (RFC 9112 section 3.2). It is the service's name, or else the endpoint.
func (c *cluster) authority(to *endpoint) string {
	a := to.raw.Address
	if h := c.conf.ServiceHost; h != "" && h[0] != '*' {
		a = wire.ListenerName(h, c.conf.Port)
	}
	return strings.TrimSuffix(strings.TrimSuffix(a, ":0"), ":80")
}

// whyNone names what keeps each endpoint from being used.
func (c *cluster) whyNone() error {
	hosts := c.balancer.Hosts()
	if len(hosts) == 0 {
		return fmt.Errorf("cluster %s: has no endpoints", c.conf.Name)
	}
	var why []string
	now := c.p.opt.Now()
	for i, h := range hosts {
		if i == 3 {
			why = append(why, fmt.Sprintf("and %d more", len(hosts)-i))
			break
		}
		s := h.Endpoint.Address + " is " + h.Condition(now)
		if f := h.LastFailure(); f != nil {
			s += " (" + f.Text + ")"
		}
		why = append(why, s)
	}
	return fmt.Errorf("cluster %s: %s", c.conf.Name, strings.Join(why, ", "))
}

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
	var err error
	if x.free {
		x.up, err = x.to.pool.Fresh(x.p.ctx, deadline)
	} else {
		x.up, err = x.to.pool.Get(x.p.ctx, now, deadline)
	}
	if err != nil {
		x.err = unreached(err)
		x.reportUnreached(err)
		return false
	}
	if x.call, _ = x.up.Codec.(*http1.ClientConn); x.call == nil {
		x.call = http1.NewClientConn(x.up.Conn, nil)
		x.up.Codec = x.call
	}
	x.stale, x.upLocal = x.up.Carried > 0, x.up.LocalAddr()
	if !deadline.IsZero() {
		x.timed = true
		x.up.SetReadDeadline(deadline)
		x.up.SetWriteDeadline(deadline)
	}
	return true
}

// reportUnreached tells the balancer about an endpoint that could not be reached, unless that was our own limit.
func (x *exchange) reportUnreached(err error) {
	var u *upstream.Error
	if errors.As(err, &u) && (u.Op == upstream.Connect || u.Op == upstream.Handshake) && !errors.Is(u.Err, context.Canceled) {
		if x.deadline.IsZero() || x.p.opt.Now().Before(x.deadline) {
			x.cluster.balancer.Report(x.to.host, balance.ConnectFailed, u)
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
	rt := x.matched.Route
	if rt == nil || rt.Forward.Retry == nil || rt.Forward.Retry.PerTry == 0 {
		return x.deadline
	}
	own := x.p.opt.Now().Add(rt.Forward.Retry.PerTry)
	if x.deadline.IsZero() || own.Before(x.deadline) {
		return own
	}
	return x.deadline
}

// send writes the request. A body that is not in memory follows from a goroutine of its own, so that a response may come
// before its end.
func (x *exchange) send() bool {
	streams := x.req.Body.Kind != message.NoBody && x.body == nil && !x.down.BodyDone()
	if streams && !x.welcomeBody() {
		return false
	}
	if err := x.call.WriteRequest(&x.req); err != nil {
		if errors.Is(err, http1.ErrBadHead) {
			return x.fail(unwritable, "send", err)
		}
		x.unsent = false
		return x.broken("send", err)
	}
	x.unsent = false
	switch {
	case streams && !x.bodyAtHand():
		x.pumping = startPump(x)
		return true
	case streams:
		n, err := relay.Copy(x.call, x.down, relay.Downstream)
		x.received += n
		return x.copied(err)
	case x.body != nil:
		if err := x.call.WriteBody(x.body); err != nil {
			return true // as in copied
		}
	}
	if err := x.call.FinishBody(nil); err != nil && x.body == nil {
		return x.broken("send", err)
	}
	return true
}

// bodyAtHand reports whether the whole body lies in memory: then sending it cannot wait for the client.
func (x *exchange) bodyAtHand() bool {
	b := x.req.Body
	return b.Kind == message.Sized && int64(x.down.BodyBuffered()) >= b.Length
}

// copied takes the error of a body's copying. Where the endpoint did not take the body it may have answered early; if not,
// reading will tell.
func (x *exchange) copied(err error) bool {
	var e *relay.Error
	switch {
	case err == nil:
		return true
	case errors.As(err, &e) && e.Side == relay.Downstream:
		return x.clientFailed(e.Err)
	}
	return true
}

// broken ends the attempt because the connection failed.
func (x *exchange) broken(op string, err error) bool {
	x.err = unanswered(op, err)
	outcome := balance.Broken
	if x.stale && !x.call.ResponseStarted() {
		return false // the endpoint timed an idle connection out; that is no sign of ill health
	}
	x.cluster.balancer.Report(x.to.host, outcome, x.err)
	return false
}

// pump sends a request's body while the response is awaited. Its goroutine uses the reading half of the client's connection
// and the writing half of the endpoint's; the exchange keeps to the other halves until stop has returned.
type pump struct {
	done chan struct{}
	n    int64 // valid after done
	err  error
}

func startPump(x *exchange) *pump {
	p := &pump{done: make(chan struct{})}
	call, down, up := x.call, x.down, x.up
	go func() { // ends with the body, or by stop
		defer close(p.done)
		p.n, p.err = relay.Copy(call, down, relay.Downstream)
		var e *relay.Error
		if errors.As(p.err, &e) && e.Side == relay.Downstream {
			up.Close() // the endpoint must not take the cut-off body for a whole one, nor wait for the rest
		}
	}()
	return p
}

// settleTime is how long a pump may take to notice that it has sent everything.
const settleTime = 250 * time.Millisecond

// settle lets a pump come to its end by itself once the response is there: an endpoint that has answered has as a rule taken the
// whole body, and only the pump's goroutine has not run since. Interrupting it then would cost two good connections.
func (p *pump) settle() {
	t := time.NewTimer(settleTime)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
	}
}

// stop interrupts a pump that runs still and waits for its end.
func (p *pump) stop(x *exchange) {
	select {
	case <-p.done:
		return
	default:
	}
	x.up.Close()
	x.d.conn.SetReadDeadline(longAgo)
	<-p.done
	x.d.conn.SetReadDeadline(time.Time{})
}

// receive reads the response's head.
func (x *exchange) receive() bool {
	err := x.hear()
	if err != nil {
		return x.unreceived(err)
	}
	now := x.p.opt.Now()
	if x.watching && x.d.track.awaited(now) {
		x.watching = false
		return x.fail(clientGone, "receive", errHungUp)
	}
	x.watching = false
	x.upstreamTime = now.Sub(x.start)
	if x.up.Carried == 0 {
		x.learnIdle()
	}
	x.cluster.balancer.Report(x.to.host, balance.OutcomeOf(x.res.Status), nil)
	x.err = nil
	return true
}

// learnIdle takes note of how long the server says that it keeps idle connections ("Keep-Alive: timeout=5", as Node.js and
// Apache send it).
func (x *exchange) learnIdle() {
	v, ok := x.res.Header.Get("Keep-Alive")
	if !ok {
		return
	}
	if _, v, ok = strings.Cut(v, "timeout="); !ok {
		return
	}
	v, _, _ = strings.Cut(v, ",")
	if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && n > 0 && n < 3600 {
		x.to.pool.Learn(time.Duration(n) * time.Second)
	}
}

var errHungUp = errors.New("the client closed the connection before it was answered")

// hear reads up to the final response's head, passing informational ones on.
func (x *exchange) hear() error {
	if x.pumping == nil {
		x.watching = true
		x.d.track.await(x.up, x.start)
	}
	for {
		if err := x.call.ReadResponse(&x.res); err != nil {
			return err
		}
		switch {
		case x.res.Status >= 200 || x.res.Status == 101:
			return nil
		case x.res.Status == 100:
			continue // the client was told to go on by us
		}
		http1.StripHopByHop(&x.res.Header)
		if err := x.down.WriteInformational(x.res.Status, &x.res.Header); err != nil {
			return err
		}
	}
}

func (x *exchange) unreceived(err error) bool {
	if x.watching {
		x.watching = false
		if x.d.track.awaited(x.p.opt.Now()) {
			return x.fail(clientGone, "receive", errHungUp)
		}
	}
	if x.pumping != nil {
		x.pumping.stop(x)
		var e *relay.Error
		if errors.As(x.pumping.err, &e) && e.Side == relay.Downstream && !errors.Is(e.Err, os.ErrDeadlineExceeded) {
			return x.clientFailed(e.Err)
		}
	}
	return x.broken("receive", err)
}

// again decides about another attempt and prepares it.
func (x *exchange) again(ok bool) bool {
	if !x.wantsAgain(ok) {
		return false
	}
	if ok {
		x.dropResponse()
	}
	if x.failures < len(x.failed) {
		x.failed[x.failures] = x.to.host
		x.failures++
	}
	x.giveBack(false)
	return true
}

// wantsAgain asks safety first, then the policy, then the budgets.
func (x *exchange) wantsAgain(ok bool) bool {
	if x.to == nil || x.pumping != nil || !ok && x.err.Fault() == OfClient || x.p.ctx.Err() != nil || x.expired() {
		return false
	}
	if b := x.req.Body; b.Kind != message.NoBody && b != (message.Body{Kind: message.Sized}) && x.body == nil && !x.unsent {
		return false // the body is gone
	}
	repeatable := retry.Repeatable(&x.req)
	if !ok && x.forFree(repeatable) {
		x.free = true
		return true
	}
	if !ok && !x.err.Retryable() || x.matched.Route == nil {
		return false
	}
	policy := x.matched.Route.Forward.Retry
	a := retry.Attempt{Unsent: x.unsent, GRPC: -1, Begun: x.call != nil && x.call.ResponseStarted()}
	if ok {
		a.Status, a.GRPC, a.Begun = x.res.Status, x.grpcStatus(), true
		a.Unsent, a.Unanswered = x.toldBy(unsentHeader), x.toldBy(unansweredHeader)
	} else {
		a.TimedOut = x.err.kind == upstreamTimeout
	}
	if !retry.Wanted(policy, &a, repeatable) || x.attempt > int(policy.Attempts) {
		return false
	}
	return x.payRetry() && x.backOff(policy)
}

// forFree are the repetitions that need no policy, one per exchange: the endpoint was removed before it was tried, or it
// had closed a kept connection, as every server may at any time, without answering a byte.
func (x *exchange) forFree(repeatable bool) bool {
	if x.free {
		return false
	}
	var u *upstream.Error
	if errors.As(x.err, &u) && u.Op == upstream.Closed {
		return true
	}
	return x.stale && repeatable && x.err.kind == upstreamClosed && !x.call.ResponseStarted()
}

func (x *exchange) payRetry() bool {
	if !x.retrying {
		if !x.cluster.breaker.Retry() {
			return false
		}
		x.retrying = true
	}
	return x.unsent || x.cluster.budget.Retry()
}

// backOff waits before the next attempt; false means that there is no time for one.
func (x *exchange) backOff(p *conf.Retry) bool {
	if x.unsent && x.attempt == 1 {
		return true
	}
	d := retry.BackOff(p, x.attempt, x.p.random64())
	if !x.deadline.IsZero() && x.p.opt.Now().Add(d).After(x.deadline) {
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
func (x *exchange) dropResponse() {
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

// giveBack ends the attempt: the connection goes back to its pool, or is closed. The response's strings die.
func (x *exchange) giveBack(fit bool) {
	if x.pumping != nil {
		if x.err == nil {
			x.pumping.settle()
		}
		x.pumping.stop(x)
		x.received += x.pumping.n
	}
	if x.up != nil {
		reuse := x.call.EndExchange()
		if x.timed {
			x.up.SetReadDeadline(time.Time{})
			x.up.SetWriteDeadline(time.Time{})
		}
		if reuse && (fit || x.err == nil) {
			x.to.pool.Put(x.up, x.p.opt.Now())
		} else {
			x.to.pool.Discard(x.up)
		}
	}
	if x.using {
		x.to.host.End()
	}
	x.up, x.call, x.timed, x.using = nil, nil, false, false
}

// release gives everything back that the exchange holds of the cluster.
func (x *exchange) release() {
	x.giveBack(true)
	if x.retrying {
		x.cluster.breaker.RetryDone()
	}
	if x.counted {
		x.cluster.breaker.RequestDone()
	}
	if x.held != nil {
		replayBuffers.Put(x.held)
		x.held, x.body = nil, nil
	}
}
