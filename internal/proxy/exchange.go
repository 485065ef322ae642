package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/filter/fault"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// exchange is one request and its response on the way through the proxy. It is owned by the goroutine of the client's
// connection; pump alone shares it with another goroutine, as said there.
type exchange struct {
	// Set by begin.
	p     *Proxy
	d     *downstream
	down  *http1.ServerConn
	start time.Time

	req message.Request
	res message.Response // the strings are the upstream connection's

	// What the steps found.
	snapshot *conf.Snapshot
	table    *conf.RouteTable
	http     *conf.HTTP
	matched  route.Result
	matching route.Request
	cluster  *cluster
	split    *conf.WeightedCluster
	direct   netip.AddrPort // for original destination clusters
	fault    fault.Injection
	verdict  authz.Verdict
	deadline time.Time // of the whole exchange; zero for none
	body     []byte    // of the request, where it was read ahead
	held     *[]byte   // the pooled storage of body

	// The attempt under way.
	attempt  int
	to       *endpoint
	up       *upstream.Conn
	call     *http1.ClientConn
	using    bool // the endpoint counts this request
	unsent   bool // the attempt failed before a byte of the request was written
	stale    bool // it failed on a connection that was kept from earlier
	free     bool // one repetition that no policy needs to allow was made
	counted  bool // the cluster's breaker counts this request
	retrying bool // and this retry
	watching bool // the tracker knows that the answer is awaited
	timed    bool // deadlines are set on up
	failed   [4]*balance.Host
	failures int
	pumping  *pump
	choice   balance.Choice

	// How it ended.
	err          *Error // nil when there was a response: the upstream's, or one the route gives
	told         string // why another proxy of the mesh answered with an error
	hijacked     bool   // the connection carries another protocol now
	status       int    // as sent to the client; 0 for none
	received     int64
	sent         int64
	grpc         string // grpc-status as metrics show it
	upstreamTime time.Duration
	upLocal      netip.AddrPort
	end          time.Time

	entry  telemetry.Entry
	id     [36]byte
	digits [20]byte
}

// run carries one request from end to end.
func (x *exchange) run() {
	if x.req.Method == "CONNECT" {
		x.establish()
		return
	}
	ok := x.admit() && x.match() && x.authorize() && x.inject() && x.rewrite() && x.forward()
	x.reply(ok)
	x.release()
	x.record()
}

// forward makes attempts until one is answered for good.
func (x *exchange) forward() bool {
	x.mirror()
	for x.attempt = 1; ; x.attempt++ {
		ok := x.pick() && x.connect() && x.send() && x.receive()
		if !x.again(ok) {
			return ok
		}
	}
}

func (x *exchange) fail(k kind, op string, cause error) bool {
	x.err = fail(k, op, cause)
	return false
}

// admit makes the request fit to be forwarded: what concerned the client's connection alone goes, what the mesh adds comes.
func (x *exchange) admit() bool {
	r := &x.req
	x.snapshot = x.p.config.Snapshot()
	http1.StripHopByHop(&r.Header)
	x.fromOutside()
	x.setID()
	if r.ExpectContinue {
		// We answer it ourselves when the body is wanted.
		r.Header.Del("Expect")
	}
	if _, ok := r.Header.Get("X-Forwarded-Proto"); !ok {
		r.Header.Add("X-Forwarded-Proto", r.Scheme)
	}
	if x.d.direction == inbound {
		x.forwardClientCert()
	}
	return true
}

// internalHeaders are those by which a client could steer the mesh; from outside they are not believed. Source: Envoy's header
// sanitizing for external requests.
var internalHeaders = [...]string{"X-Envoy-Attempt-Count", "X-Envoy-Decorator-Operation", "X-Envoy-Downstream-Service-Cluster",
	"X-Envoy-Downstream-Service-Node", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Envoy-External-Address", "X-Envoy-Force-Trace",
	"X-Envoy-Hedge-On-Per-Try-Timeout", "X-Envoy-Internal", "X-Envoy-Ip-Tags", "X-Envoy-Max-Retries", "X-Envoy-Original-Path",
	"X-Envoy-Peer-Metadata", "X-Envoy-Peer-Metadata-Id", "X-Envoy-Retriable-Header-Names", "X-Envoy-Retriable-Status-Codes",
	"X-Envoy-Retry-Grpc-On", "X-Envoy-Retry-On", "X-Envoy-Upstream-Alt-Stat-Name", "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms",
	"X-Envoy-Upstream-Rq-Timeout-Alt-Response", "X-Envoy-Upstream-Rq-Timeout-Ms", "X-Weft-Reason"}

func (x *exchange) fromOutside() {
	if x.d.http == nil || !x.d.http.UseRemoteAddress {
		return
	}
	h := &x.req.Header
	for i := h.Len() - 1; i >= 0; i-- {
		if n := h.At(i).Name; len(n) > 2 && (n[0] == 'x' || n[0] == 'X') && n[1] == '-' && isInternal(n) {
			h.Del(n)
			i = min(i, h.Len())
		}
	}
	h.Set("X-Forwarded-Proto", x.d.scheme())
	client := x.d.remote.Addr().String()
	if before, ok := h.Get("X-Forwarded-For"); ok {
		client = before + "," + client
	}
	h.Set("X-Forwarded-For", client)
	h.Del("X-Forwarded-Client-Cert")
}

func isInternal(name string) bool {
	for _, n := range internalHeaders {
		if message.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func (x *exchange) forwardClientCert() {
	const name = "X-Forwarded-Client-Cert"
	h := &x.req.Header
	if x.http = x.d.http; x.http == nil {
		return
	}
	switch mode := x.http.ForwardClientCert; {
	case mode == conf.SanitizeClientCert || x.d.xfcc == "":
		h.Del(name)
	case mode == conf.AppendClientCert:
		if before, ok := h.Get(name); ok {
			h.Set(name, before+","+x.d.xfcc)
			return
		}
		h.Add(name, x.d.xfcc)
	default:
		h.Set(name, x.d.xfcc)
	}
}

// match finds the route, and with it the cluster or the answer. When the configuration changes at that very moment, the route of
// before may lead to a cluster that has just gone: then the new configuration is asked.
func (x *exchange) match() bool {
	for tries := 0; ; tries++ {
		ok := x.matchOnce()
		now := x.p.config.Snapshot()
		if ok || x.err.kind != noCluster || now == x.snapshot || tries == rematches {
			return ok
		}
		x.snapshot, x.err = now, nil
	}
}

// rematches bounds how often a request follows the configuration.
const rematches = 3

func (x *exchange) matchOnce() bool {
	if !x.findTable() {
		return false
	}
	if x.table == nil {
		return x.passThrough()
	}
	if !x.normalize() {
		return false
	}
	x.matching = route.Request{Request: &x.req, Random: x.p.random32() % 1e6}
	x.matched = route.Find(x.table, &x.matching)
	if x.matched.Host == nil || x.matched.Route == nil {
		return x.fail(noRoute, "route", fmt.Errorf("nothing matches %s %s%s", x.req.Method, x.req.Authority, x.req.Path))
	}
	f := x.matched.Route.Forward
	if f == nil {
		return true
	}
	if !x.upgradable(f) {
		return x.fail(refusedUpgrade, "route", fmt.Errorf("upgrade to %s: not enabled on route %s", x.req.Upgrade, x.matched.Route.Name))
	}
	x.split = route.Pick(f.Clusters, f.TotalWeight, x.p.random32())
	if x.split == nil {
		return x.fail(noCluster, "route", errors.New("no cluster"))
	}
	if x.cluster = x.p.clusters.get(x.split.Cluster); x.cluster == nil {
		return x.fail(noCluster, "route", fmt.Errorf("cluster %s: not known", x.split.Cluster))
	}
	if f.Timeout > 0 {
		x.deadline = x.start.Add(f.Timeout)
	}
	return true
}

// normalize gives the path the one form in which routes, policies and the workload all see it, so that "/x/%2e%2e/admin" cannot
// pass a policy on "/admin".
func (x *exchange) normalize() bool {
	if x.http == nil || !x.http.NormalizePath {
		return true
	}
	path, ok := route.NormalizePath(x.req.Path, x.http.MergeSlashes)
	if !ok {
		return x.fail(malformed, "normalize", fmt.Errorf("path %q leads out of the root or holds an escaped NUL", x.req.Path))
	}
	x.req.Path = path
	return true
}

// upgradable reports whether the route lets the protocol change. HTTP/2 by upgrade, which RFC 9113 has given up, is ignored as
// any server may.
func (x *exchange) upgradable(f *conf.Forward) bool {
	if message.EqualFold(x.req.Upgrade, "h2c") {
		x.req.Upgrade = ""
	}
	return x.req.Upgrade == "" || f.Upgrades || x.http != nil && x.http.Upgrades
}

// findTable finds the route table; none means that the destination is not the mesh's.
func (x *exchange) findTable() bool {
	if x.d.direction != outbound {
		x.http, x.direct = x.d.http, x.d.app
		if x.table = x.http.Routes; x.table == nil {
			if x.table = x.snapshot.RouteTables[x.http.RouteName]; x.table == nil {
				return x.fail(noConfig, "route", fmt.Errorf("route table %q: not received yet", x.http.RouteName))
			}
		}
		return true
	}
	t, err := x.target()
	if err != nil {
		return x.fail(noConfig, "resolve "+x.d.name, err)
	}
	x.direct = x.d.destination
	if t == nil {
		return true
	}
	x.http = httpOf(t)
	if x.table = t.Routes; x.table == nil && x.http != nil {
		x.table = x.http.Routes
	}
	if x.table == nil {
		return x.fail(noRoute, "route", fmt.Errorf("%s: is not an HTTP port", t.Name))
	}
	return true
}

// target resolves the host that the request names, and failing that the address that the client connected to.
func (x *exchange) target() (*conf.Target, error) {
	d := x.d
	if d.fixed != "" {
		if host, _ := hostPort(x.req.Authority); isLocal(host) {
			x.req.Authority = d.fixed // the client knows only our listener
		}
		d.name = d.fixed
		return x.p.config.Resolve(x.p.ctx, d.fixed)
	}
	if x.req.Authority != "" {
		t, err := x.p.config.Resolve(x.p.ctx, d.listenerName(x.req.Authority))
		if t != nil || err != nil {
			return t, err
		}
	}
	return d.atAddress(), nil
}

func isLocal(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || a.IsUnspecified())
}

func httpOf(t *conf.Target) *conf.HTTP {
	for _, c := range t.Listener.Chains {
		if c.HTTP != nil {
			return c.HTTP
		}
	}
	if t.Listener.Default != nil {
		return t.Listener.Default.HTTP
	}
	return nil
}

// passThrough sends what the mesh does not know where the client wanted it.
func (x *exchange) passThrough() bool {
	if x.p.opt.RegistryOnly {
		return x.fail(unroutable, "resolve", fmt.Errorf("%s: not known to the mesh", x.d.name))
	}
	x.cluster = x.p.clusters.get(wire.PassthroughCluster)
	if x.d.forward || x.d.fixed != "" {
		x.cluster = x.p.outside(x.d.name)
	}
	return true
}

// authorize asks the policies. Only inbound chains and gateways have any.
func (x *exchange) authorize() bool {
	if x.http == nil || len(x.http.RBAC) == 0 {
		return true
	}
	in := authz.Input{Peer: x.d.peerURI, Request: &x.req, Source: x.d.remote.Addr(), Remote: x.d.remote.Addr(),
		Destination: x.d.destination.Addr(), Port: x.d.port, SNI: x.d.sni}
	x.verdict = authz.Evaluate(x.http.RBAC, &in)
	if x.verdict.Allowed {
		return true
	}
	x.err = fail(denied, "authorize", errors.New(x.verdict.Rule))
	x.err.policy = x.verdict.Policy
	return false
}

// inject delays and aborts as the route's fault says.
func (x *exchange) inject() bool {
	if x.matched.Route == nil || x.matched.Route.Fault == nil {
		return true
	}
	x.fault = fault.Decide(x.matched.Route.Fault, x.p.random32)
	if x.fault.Delay > 0 {
		if !x.delay() {
			return false
		}
		if !x.deadline.IsZero() {
			// As in Envoy the fault comes before the router: its time is not the route's.
			x.deadline = x.deadline.Add(x.fault.Delay)
		}
	}
	if !x.fault.Abort {
		return true
	}
	x.err = fail(injected, "injected abort", errors.New("the route's fault injection"))
	x.err.status = x.fault.Status
	return false
}

// delay waits for the injected time, unless the client leaves before.
func (x *exchange) delay() bool {
	wait := time.NewTimer(x.fault.Delay)
	defer wait.Stop()
	var w *watch
	var gone chan struct{}
	if x.req.Body.Kind == message.NoBody { // else the client's next byte is the body's
		w = startWatch(x.d.track.client, nil)
		gone = w.gone
	}
	select {
	case <-wait.C:
	case <-gone:
	case <-x.p.ctx.Done():
	}
	if w != nil && w.stop() {
		return x.fail(clientGone, "injected delay", errHungUp)
	}
	if err := x.p.ctx.Err(); err != nil {
		return x.fail(clientGone, "injected delay", err)
	}
	return true
}

// rewrite changes the request as table, virtual host, route and split say. Routes that answer by themselves end here.
func (x *exchange) rewrite() bool {
	rt := x.matched.Route
	if rt == nil {
		return true
	}
	if rt.Forward == nil {
		return false
	}
	x.apply(&x.split.HeaderChange)
	x.apply(&rt.Request)
	x.apply(&x.matched.Host.HeaderChange)
	x.apply(&x.table.Request)
	rewrite.Forward(&x.req, rt.Forward, &rt.Match)
	return x.readAhead()
}

func (x *exchange) apply(c *conf.HeaderChange) {
	if len(c.Remove) > 0 || len(c.Set) > 0 || len(c.Add) > 0 {
		headers.Apply(&x.req.Header, c, x.operator)
	}
	if c.Host != "" {
		x.req.Authority = c.Host
	}
}

// begin takes an exchange for the request that is about to be read.
func (p *Proxy) begin(d *downstream, s *http1.ServerConn) *exchange {
	x := p.exchanges.Get().(*exchange)
	x.p, x.d, x.down, x.start, x.upstreamTime = p, d, s, p.opt.Now(), -1
	d.track.enter(heading, x.start)
	return x
}

// discard gives an exchange back. Nothing may point into it any more.
func (p *Proxy) discard(x *exchange) {
	req, res := x.req, x.res
	req.Reset()
	res.Reset()
	*x = exchange{req: req, res: res}
	p.exchanges.Put(x)
}
