package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/steady"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Cluster is one version of a cluster. It is immutable but for what its parts count.
type Cluster struct {
	set      *Set
	source   *conf.Cluster // as configured
	Conf     *conf.Cluster // the same with addresses in the place of names
	Balancer *balance.Cluster
	ends     []*Endpoint // by balance.Host.Index
	*lasting
}

// lasting is what the versions of a cluster share.
type lasting struct {
	Breaker *upstream.Breaker
	High    *upstream.Breaker // of requests of high priority
	Budget  retry.Budget
	Tally   tally

	used    atomic.Bool // some request has come
	watches watches
	names   names

	mu      sync.Mutex
	visited map[netip.AddrPort]*Endpoint // of original destinations
	hosts   map[string]*Endpoint         // that requests have named
}

// inUse adds up what both priorities use.
func (l *lasting) inUse() (connections, pending, requests, retries int64) {
	connections, pending, requests, retries = l.Breaker.InUse()
	c, p, rq, rt := l.High.InUse()
	return connections + c, pending + p, requests + rq, retries + rt
}

// Endpoint is how one host of a cluster is reached and counted.
type Endpoint struct {
	Host *balance.Host
	Pool *upstream.Pool // of HTTP/1 connections
	Raw  upstream.Way   // for relayed bytes
	TLS  bool
	// announces: connections begin with a PROXY protocol header that names the client (see onBehalf).
	announces bool
	Err       error // why it cannot be reached; a configuration that no TLS can be made of

	HTTPEdge, GRPCEdge, TCPEdge atomic.Pointer[telemetry.Edge] // the source side's, made at first use
}

// shut closes all connections of a cluster that nobody uses, and the others when they come back.
func (c *Cluster) shut() {
	for _, e := range c.ends {
		e.close()
	}
	c.forget(func(*Endpoint) bool { return true })
}

// build makes a version of a cluster. Where nothing changed in how endpoints are reached, their connections stay.
func (r *Set) build(c *conf.Cluster, was *Cluster) *Cluster {
	n := &Cluster{set: r, source: c, Conf: c}
	var previous *balance.Cluster
	var known []*Endpoint
	if was != nil {
		n.lasting, previous = was.lasting, was.Balancer
		n.Breaker.Update(&c.Limits)
		n.High.Update(&c.High)
		if sameReach(c, was.Conf) {
			known = was.ends
		} else {
			n.forget(func(*Endpoint) bool { return true })
			n.watches.stop()
		}
	} else {
		n.lasting = &lasting{Breaker: upstream.NewBreaker(&c.Limits), High: upstream.NewBreaker(&c.High), visited: map[netip.AddrPort]*Endpoint{}, hosts: map[string]*Endpoint{}}
	}
	if named(c) || len(n.names.list) > 0 {
		n.names.follow(c)
	}
	if c.Discovery == conf.StrictDNS {
		n.Conf = n.names.expand(c, r.o.Outside)
	}
	n.Balancer = balance.New(n.Conf, previous, balance.Options{Now: func() time.Time { return steady.Time(r.o.Now()) }})
	byKey := make(map[reachKey]*Endpoint, len(known))
	for _, e := range known {
		byKey[keyOf(e.Host.Endpoint)] = e
	}
	for _, h := range n.Balancer.Hosts() {
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

// calls reports whether the cluster is a service that the workload calls, not the workload.
func (c *Cluster) calls() bool {
	direction, _, _, _, ok := wire.ParseCluster(c.Conf.Name)
	return ok && direction == "outbound"
}

// endpoint makes the endpoint of a host; it takes over the pool of known, the same endpoint of the version before.
func (c *Cluster) endpoint(h *balance.Host, known *Endpoint) *Endpoint {
	if known != nil && known.Err == nil {
		return &Endpoint{Host: h, Pool: known.Pool, Raw: known.Raw, TLS: known.TLS, announces: known.announces}
	}
	e := &Endpoint{Host: h}
	way := upstream.Way{Address: wire.EndpointName(h.Endpoint.Address, h.Endpoint.Port), Timeout: c.Conf.ConnectTimeout, Counts: &c.Tally.Counts, Dial: c.set.o.Dialer.Dial}
	switch {
	case strings.HasPrefix(way.Address, wire.UnixPrefix):
		way.Dial = dialUnix
	case c.Conf.Name == wire.PassthroughCluster:
		way.Dial = c.dialLookedUp(h.Endpoint, c.set.o.Dialer.DialUnknown)
	case c.Conf.Discovery == conf.ByHost:
		way.Dial = c.dialLookedUp(h.Endpoint, c.set.o.Dialer.DialNamed)
	case h.Endpoint.Host != "":
		way.Dial = c.set.o.Dialer.DialNamed
	case c.Conf.Discovery == conf.LogicalDNS && !h.Endpoint.Addr.IsValid():
		way.Dial = c.dialFirst(h.Endpoint.Address, h.Endpoint.Port)
	}
	how := transportOf(c.Conf, h.Endpoint)
	if c.calls() && c.set.o.isSelf(h.Endpoint) {
		way.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return c.set.o.DialSelf(ctx, "tcp", address)
		}
	}
	e.Raw = way
	if e.announces = how.ProxyProtocol != 0; e.announces {
		way.Dial = announcing(way.Dial, how.ProxyProtocol)
		e.Raw.Dial = way.Dial
	}
	if t := how.TLS; t != nil {
		if e.TLS = true; c.Conf.Discovery == conf.ByHost && t.SNI == "" {
			own := *t
			own.SNI, t = h.Endpoint.Host, &own
		}
		way.TLS, e.Raw.TLS, e.Err = c.set.o.clientTLS(t)
		if e.Err == nil {
			way.MuxTLS, e.Err = c.set.o.muxTLS(t, c.Conf.Speaks)
		}
		if t.Workload {
			way.Source, e.Raw.Source = c.set.o.Source, c.set.o.Source
		}
	}
	if k := c.Conf.KeepAlive; k != nil {
		way.Dial = keepingAlive(way.Dial, k)
		e.Raw.Dial = way.Dial
	}
	o := upstream.PoolOptions{IdleTimeout: c.Conf.IdleTimeout, MaxAge: c.Conf.MaxConnectionDuration, MaxRequests: c.Conf.MaxRequestsPerConnection, Start: multiplexes(c.Conf.HTTP2)}
	if o.IdleTimeout == 0 && e.TLS && way.Source != nil {
		o.IdleTimeout = meshIdle
	}
	if e.announces {
		o.MaxRequests, o.Alone = 1, true // the header names one client
	}
	e.Pool = upstream.NewPool(way, c.Breaker, o)
	return e
}

// dialUnix connects to a unix socket of the proxy's own machine or container.
func dialUnix(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", strings.TrimPrefix(address, wire.UnixPrefix))
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

func (e *Endpoint) close() { e.Pool.Close() }

// Pick chooses an endpoint: the balancer's, or for original destination clusters the one at dst.
func (c *Cluster) Pick(ch *balance.Choice, dst netip.AddrPort) *Endpoint {
	if c.Conf.Discovery == conf.OriginalDst {
		if p := c.Conf.PortOverride; p != 0 {
			dst = netip.AddrPortFrom(dst.Addr(), p)
		}
		return c.visit(dst)
	}
	if h := c.Balancer.Pick(ch); h != nil {
		return c.ends[h.Index]
	}
	return nil
}

// At gives the endpoint of an address, as its Way has it; nil when there is none.
func (c *Cluster) At(address string) *Endpoint {
	for _, e := range c.ends {
		if e.Raw.Address == address {
			return e
		}
	}
	return nil
}

// PickFor is Pick for a request or a connection to a host, which may have a port: clusters that look hosts up connect to that, at
// the service's own port.
func (c *Cluster) PickFor(host string, ch *balance.Choice, dst netip.AddrPort) *Endpoint {
	if c.Conf.Discovery != conf.ByHost {
		return c.Pick(ch, dst)
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	suffix, wild := strings.CutPrefix(c.Conf.ServiceHost, "*")
	if !wild || suffix == "" || len(host) <= len(suffix) || !strings.HasSuffix(host, suffix) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.hosts[host]; e != nil {
		return e
	}
	host = strings.Clone(host) // a request's strings die with it
	e := c.endpoint(balance.NewHost(&conf.Endpoint{Address: host, Host: host, Port: c.Conf.Port, Weight: 1, Healthy: true}), nil)
	if len(c.hosts) < maxVisited {
		c.hosts[host] = e
		return e
	}
	e.Pool = upstream.NewPool(e.Pool.Way(), c.Breaker, upstream.PoolOptions{MaxRequests: 1})
	return e
}

// maxVisited bounds the original destinations whose connections a cluster keeps.
const maxVisited = 1024

func (c *Cluster) visit(dst netip.AddrPort) *Endpoint {
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
	e.Pool = upstream.NewPool(e.Pool.Way(), c.Breaker, upstream.PoolOptions{MaxRequests: 1})
	return e
}

// Newest gives the newest version of the cluster: endpoints may have come.
func (c *Cluster) Newest() *Cluster {
	if now := c.set.Get(c.Conf.Name); now != nil && now.lasting == c.lasting {
		return now
	}
	return c
}

// Use notes that a request has come.
func (c *Cluster) Use() {
	if !c.used.Load() {
		c.used.Store(true)
	}
}

// forget closes and drops the visited endpoints that which selects.
func (c *Cluster) forget(which func(*Endpoint) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dst, e := range c.visited {
		if which(e) {
			e.close()
			delete(c.visited, dst)
		}
	}
	for name, e := range c.hosts {
		if which(e) {
			e.close()
			delete(c.hosts, name)
		}
	}
}

// Authority is what a request is addressed to that came without Host, as HTTP/1.0 allows: we forward it as HTTP/1.1, which
// requires one (RFC 9112 section 3.2). It is the service's name, or else the endpoint.
func (c *Cluster) Authority(to *Endpoint) string {
	a := to.Raw.Address
	if strings.HasPrefix(a, wire.UnixPrefix) {
		a = "localhost"
	}
	if h := c.Conf.ServiceHost; h != "" && h[0] != '*' {
		a = wire.ListenerName(h, c.Conf.Port)
	}
	return strings.TrimSuffix(strings.TrimSuffix(a, ":0"), ":80")
}

// WhyNone names what keeps each endpoint from being used.
func (c *Cluster) WhyNone() error {
	hosts := c.Balancer.Hosts()
	if c.Conf.Discovery == conf.ByHost {
		return fmt.Errorf("cluster %s: the client names no host of %s", c.Conf.Name, c.Conf.ServiceHost)
	}
	if why := c.whyUnresolved(); len(hosts) == 0 && why != "" {
		return fmt.Errorf("cluster %s: %s", c.Conf.Name, why)
	}
	if len(hosts) == 0 {
		return fmt.Errorf("cluster %s: has no endpoints", c.Conf.Name)
	}
	var why []string
	for i, h := range hosts {
		if i == 3 {
			why = append(why, fmt.Sprintf("and %d more", len(hosts)-i))
			break
		}
		s := h.Endpoint.Address + " is " + h.Condition()
		if f := h.LastFailure(); f != nil {
			s += " (" + f.Text + ")"
		}
		why = append(why, s)
	}
	return fmt.Errorf("cluster %s: %s", c.Conf.Name, strings.Join(why, ", "))
}

// Scheme is what a request is said to come by, where it says that: https to services outside whose TLS we make.
func (e *Endpoint) Scheme(of string) string {
	if e.TLS && e.Raw.Source == nil {
		return "https"
	}
	return of
}
