// Package cluster runs the clusters of the newest snapshot: for each the balancer, the endpoints with their pools of connections, what
// limits and counts requests to them, the health checks, and the lookups of endpoints that are known by name.
package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/dial"
	"github.com/weftmesh/weft/internal/proxy/resolve"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// Options are what clusters need of the proxy around them.
type Options struct {
	Config interface {
		// Snapshot is the current configuration; never nil.
		Snapshot() *conf.Snapshot
		// Changed gives a channel that is closed when the current snapshot has been replaced.
		Changed() <-chan struct{}
	}
	Source   *identity.Source
	Dialer   *dial.Dialer
	Resolver *resolve.Resolver // of names outside the mesh
	// Outside: where Resolver finds no addresses, Dialer may know the name itself.
	Outside bool
	// DialSelf connects to the workload's own address, Self, as others do; nil where that needs no way of its own.
	DialSelf func(ctx context.Context, network, address string) (net.Conn, error)
	Self     string
	Now      func() time.Time
}

// Set holds what runs behind the clusters of the newest snapshot: balancers, pools, breakers. A request uses the newest
// version of a cluster even if the rest of its configuration is a moment older, so that endpoints are left at once.
type Set struct {
	o       Options
	ctx     context.Context // set by Open
	byName  atomic.Pointer[map[string]*Cluster]
	synced  atomic.Pointer[conf.Snapshot]
	mu      sync.Mutex // held while syncing
	ended   bool       // guarded by mu
	gone    []gone     // guarded by mu
	special map[string]*Cluster

	resolving sync.WaitGroup // lookups of names; they end when they are halted, or with the proxy

	trimmed atomic.Int64 // Unix nanoseconds of the last trim
}

// gone is a cluster that left the configuration. Its pools take requests for goneTime still: those that were routed to it before, and
// have not come to connect. Other versions of the cluster, which would take them, there are none.
type gone struct {
	*Cluster
	at time.Time
}

const goneTime = 2 * time.Second

// New makes what runs before there is a snapshot.
func New(o Options) *Set {
	r := &Set{o: o, special: map[string]*Cluster{}}
	for _, name := range []string{wire.PassthroughCluster, wire.InboundPassthroughCluster} {
		r.special[name] = r.build(&conf.Cluster{Name: name, Discovery: conf.OriginalDst, Speaks: conf.AsClient, Transports: []conf.TransportMatch{{}}}, nil)
	}
	r.special[wire.BlackHoleCluster] = r.build(&conf.Cluster{Name: wire.BlackHoleCluster}, nil)
	empty := map[string]*Cluster{}
	r.byName.Store(&empty)
	return r
}

// Get gives the newest version of a cluster, nil when there is none.
func (r *Set) Get(name string) *Cluster {
	if s := r.o.Config.Snapshot(); s != r.synced.Load() {
		r.sync()
	}
	if c := (*r.byName.Load())[name]; c != nil {
		return c
	}
	return r.special[name]
}

// sync brings the clusters to the newest snapshot.
func (r *Set) sync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.o.Config.Snapshot()
	if s == r.synced.Load() || r.ended {
		return
	}
	old := *r.byName.Load()
	next := make(map[string]*Cluster, len(s.Clusters))
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
		if named(c.Conf) {
			c.names.settle()
		}
		if c.names.asking || len(c.Conf.HealthChecks) > 0 && named(c.Conf) {
			r.ask(c)
		}
	}
}

// retire closes the pools that no cluster uses any more. Requests under way keep their connections to the end.
// mu is held.
func (r *Set) retire(old, next map[string]*Cluster) {
	for name, was := range old {
		now := next[name]
		if was == now {
			continue
		}
		if now == nil {
			was.watches.stop()
			was.names.halt()
			r.gone = append(r.gone, gone{was, r.o.Now()})
			continue
		}
		for _, e := range was.ends {
			if !slices.ContainsFunc(now.ends, func(o *Endpoint) bool { return o.Pool == e.Pool }) {
				e.close()
			}
		}
	}
}

func (r *Set) shutGone(now time.Time) {
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

// isSelf reports whether an endpoint is the proxy's own workload, and needs a way of its own for that. Past the capture the
// workload itself would be reached, which does not speak mutual TLS, and no policy would be asked.
func (o *Options) isSelf(e *conf.Endpoint) bool {
	return o.DialSelf != nil && e.Addr.IsValid() && e.Addr.Addr().Unmap().String() == o.Self
}

// clientTLS gives the configurations for HTTP and for relayed bytes.
func (o *Options) clientTLS(t *conf.UpstreamTLS) (http, raw *tls.Config, err error) {
	if http, err = upstream.Config(t, upstream.HTTP1, o.Source, o.Now); err != nil {
		return nil, nil, err
	}
	raw, err = upstream.Config(t, upstream.TCP, o.Source, o.Now)
	return http, raw, err
}

// muxTLS gives the configuration for HTTP/2.
func (o *Options) muxTLS(t *conf.UpstreamTLS, v conf.Version) (*tls.Config, error) {
	offer := upstream.HTTP2
	if v == conf.ByALPN {
		offer = upstream.AnyHTTP
	}
	return upstream.Config(t, offer, o.Source, o.Now)
}

// all lists every running cluster, sorted by name.
func (r *Set) all() []*Cluster {
	var list []*Cluster
	for _, c := range *r.byName.Load() {
		list = append(list, c)
	}
	for name, c := range r.special {
		if (*r.byName.Load())[name] == nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *Cluster) int {
		if a.Conf.Name < b.Conf.Name {
			return -1
		}
		return 1
	})
	return list
}

// idleEvery is how often idle connections are looked at, tickEvery how often balancers do what is due.
const (
	idleEvery = time.Second
	tickEvery = 100 * time.Millisecond
)

// Open comes before Run and before the first request: until ctx ends names are looked up and endpoints checked.
func (r *Set) Open(ctx context.Context) { r.ctx = ctx }

// Run keeps the clusters in step with the configuration and sweeps idle connections, until what open got ends; then it closes all.
func (r *Set) Run() {
	sweep, tick := time.NewTicker(idleEvery), time.NewTicker(tickEvery)
	defer sweep.Stop()
	defer tick.Stop()
	defer r.close()
	for {
		changed := r.o.Config.Changed()
		r.Get("")
		select {
		case <-r.ctx.Done():
			return
		case <-changed:
		case <-sweep.C:
			r.sweep(r.o.Now())
		case <-tick.C:
			for _, c := range *r.byName.Load() {
				c.Balancer.Tick()
			}
		}
	}
}

func (r *Set) sweep(now time.Time) {
	r.shutGone(now)
	for _, c := range r.all() {
		for _, e := range c.ends {
			e.Pool.Sweep(now)
		}
		c.forget(func(e *Endpoint) bool {
			e.Pool.Sweep(now)
			open, _ := e.Pool.Count()
			return open == 0 && e.Host.Active() == 0
		})
	}
}

// Trim closes the connections that nobody uses: the proxy has no descriptor left for one that somebody would.
func (r *Set) Trim(now time.Time) {
	last := r.trimmed.Load()
	if at := now.UnixNano(); at-last < int64(trimEvery) || !r.trimmed.CompareAndSwap(last, at) {
		return // another request has just done so
	}
	for _, c := range r.all() {
		for _, e := range c.endpoints() {
			e.Pool.Trim()
		}
	}
}

// trimEvery bounds what looking for idle connections costs.
const trimEvery = 5 * time.Millisecond

func (r *Set) close() {
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

// Connect opens a connection to an endpoint of a cluster, for the proxy itself.
func (r *Set) Connect(ctx context.Context, name string) (net.Conn, error) {
	c := r.Get(name)
	if c == nil {
		return nil, fmt.Errorf("cluster %s: not known", name)
	}
	c = c.Resolved(ctx, time.Time{})
	to := c.Pick(&balance.Choice{}, netip.AddrPort{})
	if to == nil {
		return nil, c.WhyNone()
	}
	if to.Err != nil {
		return nil, to.Err
	}
	up, err := to.Raw.Connect(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	return conn.ToNet(up.Conn), nil
}

// Outside gives a cluster for a destination that is known by its name alone.
func (r *Set) Outside(host string, port uint16) *Cluster {
	e := &conf.Endpoint{Address: host, Port: port, Weight: 1, Healthy: true}
	c := &conf.Cluster{Name: wire.PassthroughCluster, Discovery: conf.Static, Speaks: conf.AsClient, Transports: []conf.TransportMatch{{}},
		Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{e}}}, Total: 1, MaxRequestsPerConnection: 1}
	return r.build(c, nil)
}
