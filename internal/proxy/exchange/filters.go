package exchange

import (
	"errors"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/filter/fault"
	"github.com/weftmesh/weft/internal/proxy/filter/grpcweb"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
)

// authorize asks the policies. Only inbound chains and gateways have any.
func (x *Exchange) authorize() bool {
	if x.http == nil || len(x.http.RBAC) == 0 {
		return true
	}
	in := authz.Input{Peer: x.d.PeerURI, Request: &x.Req, Source: x.d.Direct.Addr(), Remote: x.d.Remote.Addr(),
		Destination: x.d.Destination.Addr(), Port: x.d.Port, SNI: x.d.SNI}
	x.verdict = authz.Evaluate(x.http.Policies(x.matched.Route), &in)
	if x.verdict.Allowed {
		return true
	}
	x.err = failure.New(failure.Denied, "authorize", errors.New(x.verdict.Rule))
	x.err.Policy = x.verdict.Policy
	return false
}

// cors answers preflights by itself; other requests go on.
func (x *Exchange) cors() bool {
	rt := x.matched.Route
	if rt == nil || rt.CORS == nil || x.http == nil || !x.http.CORS {
		return true
	}
	x.origin = cors.Decide(rt.CORS, &x.Req, x.matching.Random)
	return x.origin != cors.Preflight && x.origin != cors.Unmatched
}

// markOrigin tells the browser in the response that the page may read it.
func (x *Exchange) markOrigin() {
	if x.origin == cors.Actual {
		cors.Mark(x.matched.Route.CORS, &x.Req, &x.res.Header)
	}
}

// inject delays and aborts as the route's fault says.
func (x *Exchange) inject() bool {
	if x.matched.Route == nil || x.matched.Route.Fault == nil {
		return true
	}
	x.fault = fault.Decide(x.matched.Route.Fault, x.p.random32)
	if x.fault.Delay > 0 {
		if !x.delay() {
			return false
		}
		if !x.deadline.IsZero() && !x.limited {
			// As in Envoy the fault comes before the router: its time is not the route's.
			x.deadline = x.deadline.Add(x.fault.Delay)
		}
	}
	if !x.fault.Abort {
		return true
	}
	x.err = failure.New(failure.Injected, "injected abort", errors.New("the route's fault injection"))
	x.err.Code = x.fault.Status
	return false
}

// delay waits for the injected time, unless the client leaves before.
func (x *Exchange) delay() bool {
	if x.down.Pause(x.p.ctx, x.fault.Delay, x.Req.Body.Kind == message.NoBody) {
		return true
	}
	return x.gone("injected delay", errHungUp)
}

// rewrite changes the request as table, virtual host, route and split say. Routes that answer by themselves end here.
func (x *Exchange) rewrite() bool {
	rt := x.matched.Route
	if rt == nil {
		return true
	}
	if rt.Forward == nil {
		return false
	}
	changes := [...]*conf.HeaderChange{&x.split.HeaderChange, &rt.Request, &x.matched.Host.HeaderChange, &x.table.Request}
	if x.table.SpecificLast {
		slices.Reverse(changes[:])
	}
	for _, c := range changes {
		x.apply(c)
	}
	rewrite.Forward(&x.Req, rt.Forward, &rt.Match, !x.discreet())
	x.heed(rt.Forward)
	return x.readAhead()
}

// heed takes out of the request what it asks of retries and time-outs, and does it for those that may ask: the workload behind the
// proxy, and peers of the mesh.
func (x *Exchange) heed(f *conf.Forward) {
	w := retry.Wanting(f.Retry, &x.Req, x.d.InMesh())
	if x.retries = w.Policy; !w.Timed {
		return
	}
	if x.deadline = (time.Time{}); w.Timeout > 0 {
		x.deadline = x.Start.Add(w.Timeout + x.fault.Delay)
	}
	if x.isGRPC {
		x.limit()
	}
}

func (x *Exchange) apply(c *conf.HeaderChange) {
	if c.Fields() {
		headers.Apply(&x.Req.Header, c, x.operator)
	}
	if c.Host != "" {
		x.Req.Authority = c.Host
	}
}

// translate takes a request of gRPC-Web for one of gRPC, where the listener says so.
func (x *Exchange) translate() {
	if x.http == nil || !x.http.GRPCWeb || x.isGRPC {
		return
	}
	if call, ok := grpcweb.Enter(&x.Req); ok {
		x.down, x.isGRPC = side.NewWeb(x.down, call), true
	}
}

// translated reports whether the request was one of gRPC-Web. What it is now knows HTTP/2 alone.
func (x *Exchange) translated() bool {
	_, ok := x.down.(*side.Web)
	return ok
}

// mirror sends copies of the request as the route says. Those with a body too long to keep are not sent and counted.
func (x *Exchange) mirror() {
	if x.matched.Route == nil {
		return
	}
	whole := x.Req.Upgrade == "" && (x.Req.Body.Kind == message.NoBody || x.body != nil || x.down.BodyDone())
	mirrors := x.matched.Route.Forward.Mirrors
	for i := range mirrors {
		switch m := &mirrors[i]; {
		case m.Fraction < 1e6 && x.p.random32()%1e6 >= m.Fraction:
		case !whole:
			x.p.Mirrors.Lost.Add(1)
		default:
			x.p.Mirrors.Send(x.p.ctx, m, &x.Req, x.body, x.direct)
		}
	}
}
