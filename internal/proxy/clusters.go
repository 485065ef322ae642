package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// clusters holds what runs behind the clusters of the newest snapshot: balancers, pools, breakers. A request uses the newest
// version of a cluster even if the rest of its configuration is a moment older, so that endpoints are left at once.
type clusters struct {
	p       *Proxy
	byName  atomic.Pointer[map[string]*cluster]
	synced  atomic.Pointer[conf.Snapshot]
	mu      sync.Mutex // held while syncing
	ended   bool       // guarded by mu
	gone    []gone     // guarded by mu
	special map[string]*cluster

	resolving sync.WaitGroup // lookups of names; they end when they are halted, or with the proxy

	trimmed atomic.Int64 // Unix nanoseconds of the last trim
}

// inUse adds up what both priorities use.
func (l *lasting) inUse() (connections, pending, requests, retries int64) {
	connections, pending, requests, retries = l.breaker.InUse()
	c, p, rq, rt := l.high.InUse()
	return connections + c, pending + p, requests + rq, retries + rt
}

// gone is a cluster that left the configuration. Its pools take requests for goneTime still: those that were routed to it before, and
// have not come to connect. Other versions of the cluster, which would take them, there are none.
type gone struct {
	*cluster
	at time.Time
}

const goneTime = 2 * time.Second

// cluster is one version of a cluster. It is immutable but for what its parts count.
type cluster struct {
	p        *Proxy
	source   *conf.Cluster // as configured
	conf     *conf.Cluster // the same with addresses in the place of names
	balancer *balance.Cluster
	ends     []*endpoint // by balance.Host.Index
	*lasting
}

// lasting is what the versions of a cluster share.
type lasting struct {
	breaker *upstream.Breaker
	high    *upstream.Breaker // of requests of high priority
	budget  retry.Budget
	tally   tally

	used    atomic.Bool // some request has come
	watches watches
	names   names

	mu      sync.Mutex
	visited map[netip.AddrPort]*endpoint // of original destinations
}

// endpoint is how one host of a cluster is reached and counted.
type endpoint struct {
	host *balance.Host
	pool *upstream.Pool // of HTTP/1 connections
	raw  upstream.Way   // for relayed bytes
	tls  bool
	// announces: connections begin with a PROXY protocol header that names the client (see withClient).
	announces bool
	err       error // why it cannot be reached; a configuration that no TLS can be made of

	httpEdge, grpcEdge, tcpEdge atomic.Pointer[telemetry.Edge] // the source side's, made at first use
}

func newClusters(p *Proxy) *clusters {
	r := &clusters{p: p, special: map[string]*cluster{}}
	for _, name := range []string{wire.PassthroughCluster, wire.InboundPassthroughCluster} {
		r.special[name] = r.build(&conf.Cluster{Name: name, Discovery: conf.OriginalDst, Speaks: conf.AsClient, Transports: []conf.TransportMatch{{}}}, nil)
	}
	r.special[wire.BlackHoleCluster] = r.build(&conf.Cluster{Name: wire.BlackHoleCluster}, nil)
	empty := map[string]*cluster{}
	r.byName.Store(&empty)
	return r
}

// get gives the newest version of a cluster, nil when there is none.
func (r *clusters) get(name string) *cluster {
	if s := r.p.config.Snapshot(); s != r.synced.Load() {
		r.sync()
	}
	if c := (*r.byName.Load())[name]; c != nil {
		return c
	}
	return r.special[name]
}

// sync brings the clusters to the newest snapshot.
func (r *clusters) sync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.p.config.Snapshot()
	if s == r.synced.Load() || r.ended {
		return
	}
	old := *r.byName.Load()
	next := make(map[string]*cluster, len(s.Clusters))
	for name, c := range s.Clusters {
		if was := old[name]; was != nil && (was.source == c || c.Version != "" && was.source.Version == c.Version) {
			next[name] = was
		} else {
			next[name] = r.build(c, was)
		}
	}
	r.byName.Store(&next)
	r.synced.Store(s)
	r.retire(old, next)
	for _, c := range next {
		r.watch(c)
		if named(c.conf) {
			c.names.settle()
		}
		if c.names.asking || len(c.conf.HealthChecks) > 0 && named(c.conf) {
			r.ask(c)
		}
	}
}

// retire closes the pools that no cluster uses any more. Requests under way keep their connections to the end.
// mu is held.
func (r *clusters) retire(old, next map[string]*cluster) {
	for name, was := range old {
		now := next[name]
		if was == now {
			continue
		}
		if now == nil {
			was.watches.stop()
			was.names.halt()
			r.gone = append(r.gone, gone{was, r.p.opt.Now()})
			continue
		}
		for _, e := range was.ends {
			if !slices.ContainsFunc(now.ends, func(o *endpoint) bool { return o.pool == e.pool }) {
				e.close()
			}
		}
	}
}

// shut closes all connections of a cluster that nobody uses, and the others when they come back.
func (c *cluster) shut() {
	for _, e := range c.ends {
		e.close()
	}
	c.forget(func(*endpoint) bool { return true })
}

func (r *clusters) shutGone(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = slices.DeleteFunc(r.gone, func(g gone) bool {
		over := now.Sub(g.at) >= goneTime
		if over {
			g.shut()
		}
		return over
	})
}

// build makes a version of a cluster. Where nothing changed in how endpoints are reached, their connections stay.
func (r *clusters) build(c *conf.Cluster, was *cluster) *cluster {
	n := &cluster{p: r.p, source: c, conf: c}
	var previous *balance.Cluster
	var known []*endpoint
	if was != nil {
		n.lasting, previous = was.lasting, was.balancer
		n.breaker.Update(&c.Limits)
		n.high.Update(&c.High)
		if sameReach(c, was.conf) {
			known = was.ends
		} else {
			n.forget(func(*endpoint) bool { return true })
			n.watches.stop()
		}
	} else {
		n.lasting = &lasting{breaker: upstream.NewBreaker(&c.Limits), high: upstream.NewBreaker(&c.High), visited: map[netip.AddrPort]*endpoint{}}
	}
	if named(c) || len(n.names.list) > 0 {
		n.names.follow(c)
	}
	if c.Discovery == conf.StrictDNS {
		n.conf = n.names.expand(c, r.p)
	}
	n.balancer = balance.New(n.conf, previous, balance.Options{Now: func() time.Time { return steady(r.p.opt.Now()) }})
	byKey := make(map[reachKey]*endpoint, len(known))
	for _, e := range known {
		byKey[keyOf(e.host.Endpoint)] = e
	}
	for _, h := range n.balancer.Hosts() {
		n.ends = append(n.ends, n.endpoint(h, byKey[keyOf(h.Endpoint)]))
	}
	return n
}

// sameReach reports whether both versions connect in the same way.
func sameReach(a, b *conf.Cluster) bool {
	return a.ConnectTimeout == b.ConnectTimeout && a.IdleTimeout == b.IdleTimeout && a.Discovery == b.Discovery && a.Speaks == b.Speaks &&
		a.MaxRequestsPerConnection == b.MaxRequestsPerConnection && a.MaxConnectionDuration == b.MaxConnectionDuration && a.HTTP2 == b.HTTP2 &&
		reflect.DeepEqual(a.KeepAlive, b.KeepAlive) && reflect.DeepEqual(a.Transports, b.Transports)
}

// keepingAlive lets TCP probe the connections that dial opens.
func keepingAlive(dial upstream.Dial, k *conf.KeepAlive) upstream.Dial {
	c := net.KeepAliveConfig{Enable: true, Idle: k.Idle, Interval: k.Interval, Count: int(k.Probes)}
	return func(ctx context.Context, address string) (net.Conn, error) {
		nc, err := dial(ctx, address)
		if t, ok := nc.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok {
			err = errors.Join(err, t.SetKeepAliveConfig(c))
		}
		return nc, err
	}
}

type reachKey struct {
	address string
	port    uint16
	mode    string
}

func keyOf(e *conf.Endpoint) reachKey { return reachKey{e.Address, e.Port, e.TLSMode} }

// isSelf reports whether an endpoint is the proxy's own workload, and needs a way of its own for that. Past the capture the
// workload itself would be reached, which does not speak mutual TLS.
func (p *Proxy) isSelf(e *conf.Endpoint) bool {
	return p.opt.DialSelf != nil && e.Addr.IsValid() && e.Addr.Addr().Unmap().String() == p.opt.Bootstrap.Node.IP
}

// endpoint makes the endpoint of a host; it takes over the pool of known, the same endpoint of the version before.
func (c *cluster) endpoint(h *balance.Host, known *endpoint) *endpoint {
	if known != nil && known.err == nil {
		return &endpoint{host: h, pool: known.pool, raw: known.raw, tls: known.tls, announces: known.announces}
	}
	e := &endpoint{host: h}
	way := upstream.Way{Address: wire.ListenerName(h.Endpoint.Address, h.Endpoint.Port), Timeout: c.conf.ConnectTimeout, Counts: &c.tally.Counts, Dial: c.p.dialer.Dial}
	switch {
	case c.conf.Name == wire.PassthroughCluster:
		way.Dial = c.p.dialer.DialUnknown
	case h.Endpoint.Host != "":
		way.Dial = c.p.dialer.DialNamed
	case c.conf.Discovery == conf.LogicalDNS && !h.Endpoint.Addr.IsValid():
		way.Dial = c.dialFirst(h.Endpoint.Address, h.Endpoint.Port)
	}
	how := transportOf(c.conf, h.Endpoint)
	if how.TLS != nil && how.TLS.Workload && c.p.isSelf(h.Endpoint) {
		way.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return c.p.opt.DialSelf(ctx, "tcp", address)
		}
	}
	e.raw = way
	if e.announces = how.ProxyProtocol != 0; e.announces {
		way.Dial = announcing(way.Dial, how.ProxyProtocol)
		e.raw.Dial = way.Dial
	}
	if t := how.TLS; t != nil {
		e.tls = true
		way.TLS, e.raw.TLS, e.err = c.p.clientTLS(t)
		if e.err == nil {
			way.MuxTLS, e.err = c.p.muxTLS(t, c.conf.Speaks)
		}
		if t.Workload {
			way.Source, e.raw.Source = c.p.source, c.p.source
		}
	}
	if k := c.conf.KeepAlive; k != nil {
		way.Dial = keepingAlive(way.Dial, k)
		e.raw.Dial = way.Dial
	}
	o := upstream.PoolOptions{IdleTimeout: c.conf.IdleTimeout, MaxAge: c.conf.MaxConnectionDuration, MaxRequests: c.conf.MaxRequestsPerConnection, Start: multiplexes(c.conf.HTTP2)}
	if o.IdleTimeout == 0 && e.tls && way.Source != nil {
		o.IdleTimeout = meshIdle
	}
	if e.announces {
		o.MaxRequests, o.Alone = 1, true // the header names one client
	}
	e.pool = upstream.NewPool(way, c.breaker, o)
	return e
}

// meshIdle is for connections between our own proxies, which keep idle ones for an hour.
const meshIdle = time.Minute

func transportOf(c *conf.Cluster, e *conf.Endpoint) conf.TransportMatch {
	for i := range c.Transports {
		if m := &c.Transports[i]; m.TLSMode == "" || m.TLSMode == e.TLSMode {
			return *m
		}
	}
	return conf.TransportMatch{}
}

// clientTLS gives the configurations for HTTP and for relayed bytes.
func (p *Proxy) clientTLS(t *conf.UpstreamTLS) (http, raw *tls.Config, err error) {
	if http, err = upstream.Config(t, upstream.HTTP1, p.source, p.opt.Now); err != nil {
		return nil, nil, err
	}
	raw, err = upstream.Config(t, upstream.TCP, p.source, p.opt.Now)
	return http, raw, err
}

// muxTLS gives the configuration for HTTP/2.
func (p *Proxy) muxTLS(t *conf.UpstreamTLS, v conf.Version) (*tls.Config, error) {
	offer := upstream.HTTP2
	if v == conf.ByALPN {
		offer = upstream.AnyHTTP
	}
	return upstream.Config(t, offer, p.source, p.opt.Now)
}

func (e *endpoint) close() { e.pool.Close() }

// pick chooses an endpoint: the balancer's, or for original destination clusters the one at dst.
func (c *cluster) pick(ch *balance.Choice, dst netip.AddrPort) *endpoint {
	if c.conf.Discovery == conf.OriginalDst {
		if p := c.conf.PortOverride; p != 0 {
			dst = netip.AddrPortFrom(dst.Addr(), p)
		}
		return c.visit(dst)
	}
	if h := c.balancer.Pick(ch); h != nil {
		return c.ends[h.Index]
	}
	return nil
}

// maxVisited bounds the original destinations whose connections a cluster keeps.
const maxVisited = 1024

func (c *cluster) visit(dst netip.AddrPort) *endpoint {
	if !dst.IsValid() || dst.Port() == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.visited[dst]; e != nil {
		return e
	}
	e := c.endpoint(balance.NewHost(&conf.Endpoint{Address: dst.Addr().String(), Port: dst.Port(), Weight: 1, Healthy: true, Addr: dst}), nil)
	if len(c.visited) < maxVisited {
		c.visited[dst] = e
		return e
	}
	// Beyond the bound no connection is kept.
	e.pool = upstream.NewPool(e.pool.Way(), c.breaker, upstream.PoolOptions{MaxRequests: 1})
	return e
}

// forget closes and drops the visited endpoints that which selects.
func (c *cluster) forget(which func(*endpoint) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dst, e := range c.visited {
		if which(e) {
			e.close()
			delete(c.visited, dst)
		}
	}
}

// all lists every running cluster, sorted by name.
func (r *clusters) all() []*cluster {
	var list []*cluster
	for _, c := range *r.byName.Load() {
		list = append(list, c)
	}
	for name, c := range r.special {
		if (*r.byName.Load())[name] == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *cluster) int {
		if a.conf.Name < b.conf.Name {
			return -1
		}
		return 1
	})
	return list
}

// sweepEvery is how often idle connections are looked at, tickEvery how often balancers do what is due.
const (
	sweepEvery = time.Second
	tickEvery  = 100 * time.Millisecond
)

// run keeps the clusters in step with the configuration and sweeps idle connections, until ctx ends; then it closes all.
func (r *clusters) run(ctx context.Context) {
	sweep, tick := time.NewTicker(sweepEvery), time.NewTicker(tickEvery)
	defer sweep.Stop()
	defer tick.Stop()
	defer r.close()
	for {
		changed := r.p.config.Changed()
		r.get("")
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-sweep.C:
			r.sweep(r.p.opt.Now())
		case <-tick.C:
			for _, c := range *r.byName.Load() {
				c.balancer.Tick()
			}
		}
	}
}

func (r *clusters) sweep(now time.Time) {
	r.shutGone(now)
	for _, c := range r.all() {
		for _, e := range c.ends {
			e.pool.Sweep(now)
		}
		c.forget(func(e *endpoint) bool {
			e.pool.Sweep(now)
			open, _ := e.pool.Count()
			return open == 0 && e.host.Active() == 0
		})
	}
}

// trim closes the connections that nobody uses: the proxy has no descriptor left for one that somebody would.
func (r *clusters) trim(now time.Time) {
	last := r.trimmed.Load()
	if at := now.UnixNano(); at-last < int64(trimEvery) || !r.trimmed.CompareAndSwap(last, at) {
		return // another request has just done so
	}
	for _, c := range r.all() {
		for _, e := range c.endpoints() {
			e.pool.Trim()
		}
	}
}

// trimEvery bounds what looking for idle connections costs.
const trimEvery = 5 * time.Millisecond

func (r *clusters) close() {
	r.mu.Lock()
	r.ended = true
	for _, c := range *r.byName.Load() {
		c.watches.stop()
		c.names.halt()
	}
	r.mu.Unlock()
	r.resolving.Wait()
	for _, c := range r.all() {
		c.shut()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.gone {
		g.shut()
	}
	r.gone = nil
}
