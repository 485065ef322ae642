// Package exchange carries one request and its response through the proxy, in whatever versions of HTTP they come and go. Exchange.run is
// the map of the way.
package exchange

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/filter/fault"
	"github.com/weftmesh/weft/internal/proxy/filter/ratelimit"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/telemetry"
)

// Exchange is one request and its response on the way through the proxy. It is owned by the goroutine of the client's
// connection; pump alone shares it with another goroutine, as said there.
type Exchange struct {
	Req message.Request
	res message.Response // the strings are the upstream connection's
	progress

	entry  telemetry.Entry // of the access log, where there is one
	id     [36]byte
	digits [20]byte

	// What is left of the time, as the request tells it.
	left     [20]byte
	leftGRPC [12]byte
}

// progress is the part of an exchange that begins anew with each request. It is apart so that no more than that is cleared.
type progress struct {
	// Set by begin.
	p     *Carrier
	d     *downstream.Client
	down  side.Client
	Start time.Time

	entered bool // the guard counts the request

	// What the steps found.
	snapshot *conf.Snapshot
	table    *conf.RouteTable
	http     *conf.HTTP
	matched  route.Result
	astray   *failure.Error // nothing matches, or leads anywhere: told once policies and limits have been asked; nil otherwise
	matching route.Request
	random   uint64 // of the request, drawn once; 0 before
	cluster  *cluster.Cluster
	split    *conf.WeightedCluster
	direct   netip.AddrPort // for original destination clusters
	fault    fault.Injection
	origin   cors.Kind // of the request, by the route's policy
	verdict  authz.Verdict
	// quota is what the tightest limit leaves, told to the client if report is set. limitChange and toldByService are for the response,
	// limitExhausted chooses the gRPC status of a refusal.
	quota          ratelimit.Verdict
	report         bool
	limitExhausted bool
	limitChange    *conf.HeaderChange
	toldByService  []conf.HeaderValue
	deadline       time.Time // of the whole exchange; zero for none
	limited        bool      // the deadline is the client's own
	isGRPC         bool
	body           []byte      // of the request, where it was read ahead
	partial        bool        // the client has more of it to send
	held           *[]byte     // the pooled storage of body
	retries        *conf.Retry // the route's policy with what the request asks for; nil for none

	// The attempt under way.
	attempt int
	to      *cluster.Endpoint
	call    side.Call
	call2   side.Call2 // what call is, for HTTP/2
	using   bool       // the endpoint counts this request
	unsent  bool       // the attempt failed before a byte of the request was written
	spent   bool       // the client's body was taken and is not kept
	stale   bool       // it failed on a connection that was kept from earlier
	free    bool       // the repetition over a new connection, which no policy needs to allow, was made
	untaken int        // endpoints that have not taken the request
	// exhausted: the policy would repeat the attempt, and allows no more, or the budget of retries does not.
	exhausted bool
	counted   bool      // the cluster's breaker counts this request
	retrying  bool      // and this retry
	watching  bool      // the tracker knows that the answer is awaited
	timed     bool      // deadlines are set on call
	until     time.Time // the attempt's deadline; zero for none
	failed    [4]*balance.Host
	failures  int
	pumping   *pump
	choice    balance.Choice
	tried     time.Time // when the attempt began
	wanted    string    // the address of the endpoint to which the client's session belongs; empty for none
	sticky    string    // a cookie for the client, which makes it come back to the same endpoint

	// How it ended.
	err          *failure.Error // nil when there was a response: the upstream's, or one the route gives
	told         string         // why another proxy of the mesh answered with an error
	unpaid       bool           // no other attempt was made, since as many retries as may be are under way
	overspent    bool           // or were lately made
	bodyGone     bool           // no other attempt was thought of, since the request's body was too long to be kept
	Hijacked     bool           // the connection carries another protocol now
	socketKey    string         // of the WebSocket handshake
	status       int            // as sent to the client; 0 for none
	received     int64
	sent         int64
	grpc         string     // grpc-status as metrics show it
	sending      relay.Pace // of the request's body
	receiving    relay.Pace
	asked        relay.Messages
	answered     relay.Messages
	upstreamTime time.Duration
	upLocal      netip.AddrPort
	End          time.Time
}

// run carries one request from end to end.
func (x *Exchange) run() {
	if x.Req.Method == "CONNECT" {
		x.establish()
		return
	}
	ok := x.admit() && !x.endsHere() && x.enter() && x.match() && x.authorize() && x.cors() && x.within() && x.withinGlobal() && x.inject() && x.routed() && x.rewrite() && x.forward()
	x.reply(ok)
	x.keepFields()
	x.release()
	x.record()
}

// Carry is run for the goroutine of a client: a panic ends this exchange alone.
func (x *Exchange) Carry() {
	defer func() {
		if cause := recover(); cause != nil {
			x.panicked(cause)
		}
	}()
	x.run()
}

// panicked answers in place of a run that failed by a mistake of ours.
func (x *Exchange) panicked(cause any) {
	x.p.Panics.Add(1)
	x.p.Log.Error("a request's handling panicked", "client", x.d.Remote, "method", x.Req.Method, "authority", x.Req.Authority,
		"path", x.Req.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	x.fail(failure.Panicked, "proxy", errors.New("internal error"))
	if x.call != nil {
		x.call.Cut()
	}
	x.down.CloseAfter()
	if x.status == 0 {
		x.answerError()
	} else {
		x.down.Break(uint32(http2.InternalError))
	}
	x.End = x.p.Now()
	x.keepFields()
	x.release()
	x.record()
}

// forward makes attempts until one is answered for good.
func (x *Exchange) forward() bool {
	x.mirror()
	for x.attempt = 1; ; x.attempt++ {
		ok := x.pick() && x.connect() && x.send() && x.receive()
		if !x.again(ok) {
			return ok && x.err == nil
		}
	}
}

func (x *Exchange) fail(k failure.Kind, op string, cause error) bool {
	x.err = failure.New(k, op, cause)
	return false
}

// gone ends the exchange because its client cannot be heard or told anything any more. err is what was noticed of that.
func (x *Exchange) gone(op string, err error) bool {
	if x.p.ctx.Err() != nil {
		return x.fail(failure.CutOff, op, failure.ErrCutOff) // it was we who closed the connection
	}
	if c, ok := x.down.(interface{ Err() error }); ok {
		if own := c.Err(); own != nil {
			err = own
		}
	}
	x.err = failure.Departed(op, err)
	return false
}

// release gives everything back that the exchange holds of the cluster.
func (x *Exchange) release() {
	if x.entered {
		x.p.Guard.LeaveRequest()
	}
	x.giveBack(true)
	if x.retrying {
		x.breaker().RetryDone()
	}
	if x.counted {
		x.breaker().RequestDone()
	}
	if x.held != nil {
		replayBuffers.Put(x.held)
		x.held, x.body = nil, nil
	}
}
