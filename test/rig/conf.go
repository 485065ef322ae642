package rig

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// Config is a proxy's configuration as a test publishes it. It implements proxy.Config.
type Config struct {
	mu       sync.Mutex
	snapshot *conf.Snapshot
	names    map[string]*conf.Target
	changed  chan struct{}
}

func newConfig() *Config {
	return &Config{snapshot: &conf.Snapshot{Clusters: map[string]*conf.Cluster{}, RouteTables: map[string]*conf.RouteTable{}},
		names: map[string]*conf.Target{}, changed: make(chan struct{})}
}

// Snapshot implements proxy.Config.
func (c *Config) Snapshot() *conf.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot
}

// Changed implements proxy.Config.
func (c *Config) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Resolve implements proxy.Config.
func (c *Config) Resolve(_ context.Context, name string) (*conf.Target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name], nil
}

// Ready implements proxy.Config.
func (c *Config) Ready(context.Context) error { return nil }

// Publish changes a copy of the configuration, by name and by listener name, and puts it in force.
func (c *Config) Publish(change func(*conf.Snapshot, map[string]*conf.Target)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.snapshot
	next.Clusters, next.RouteTables = maps.Clone(next.Clusters), maps.Clone(next.RouteTables)
	names := maps.Clone(c.names)
	change(&next, names)
	close(c.changed)
	c.snapshot, c.names, c.changed = &next, names, make(chan struct{})
}

// Plain is an endpoint that is reached in plaintext.
func Plain(address string) *conf.Endpoint {
	a := netip.MustParseAddrPort(address)
	return &conf.Endpoint{Address: a.Addr().String(), Port: a.Port(), Addr: a, Weight: 1, Healthy: true}
}

// Mutual is an endpoint behind the sidecar that Inbound starts.
func Mutual(address string) *conf.Endpoint {
	e := Plain(address)
	e.TLSMode = "istio"
	return e
}

// Cluster has the endpoints in one locality.
func Cluster(name string, endpoints ...*conf.Endpoint) *conf.Cluster {
	server := identity.ID{TrustDomain: TrustDomain, Namespace: "default", ServiceAccount: "server"}
	tls := &conf.UpstreamTLS{Workload: true, SNI: "outbound_.9080_._" + Service, ALPN: []string{wire.ALPNHTTP2, wire.ALPNHTTP1, wire.ALPNTCP},
		SANs: []conf.StringMatch{{Kind: conf.Exact, Value: server.String()}}}
	return &conf.Cluster{Name: name, Discovery: conf.EDS, Localities: []conf.Locality{{Endpoints: endpoints}}, Total: len(endpoints),
		ServiceHost: Service, ServiceName: "backend", ServiceNamespace: "default", Port: ServicePort, Speaks: conf.AsClient,
		Transports: []conf.TransportMatch{{TLSMode: "istio", TLS: tls}, {}}}
}

// Forward is a route to a cluster.
func Forward(cluster string) *conf.Route {
	return &conf.Route{Name: "test", Forward: &conf.Forward{Upgrades: true, Clusters: []conf.WeightedCluster{{Cluster: cluster, Weight: 1}}, TotalWeight: 1}}
}

// Table has the routes for every host.
func Table(routes ...*conf.Route) *conf.RouteTable {
	t := &conf.RouteTable{Name: "test", Hosts: []*conf.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
	t.Seal()
	return t
}

// inbound takes mutual TLS and plaintext, of HTTP; over TLS also bytes.
func inbound() *conf.Listener {
	http := &conf.HTTP{Routes: Table(Forward(wire.InboundPassthroughCluster)), ForwardClientCert: conf.SanitizeSetClientCert, Upgrades: true}
	tcp := &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: wire.InboundPassthroughCluster, Weight: 1}}, TotalWeight: 1}
	tls := func(alpn ...string) *conf.DownstreamTLS {
		return &conf.DownstreamTLS{Workload: true, RequireClient: true, ALPN: alpn}
	}
	meshHTTP := []string{wire.ALPNHTTP2, wire.ALPNHTTP1}
	return &conf.Listener{Name: wire.InboundListener, Direction: "inbound", Chains: []*conf.Chain{
		{Name: "http", Match: conf.ChainMatch{DestinationPort: ServicePort, Transport: conf.TLSTransport, ALPN: meshHTTP},
			TLS: tls(meshHTTP...), HTTP: http},
		{Name: "tcp", Match: conf.ChainMatch{Transport: conf.TLSTransport, ALPN: []string{wire.ALPNTCP}}, TLS: tls(wire.ALPNTCP), TCP: tcp},
		{Name: "raw http", Match: conf.ChainMatch{DestinationPort: ServicePort, Transport: conf.RawTransport}, HTTP: http},
	}}
}
