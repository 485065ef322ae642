// Package cluster makes the messages about what stands behind destinations: clusters, their endpoints, and the addresses of names. Like
// package generate, of which it is a part, it is pure and finds everything by name.
package cluster

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/traffic"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Generator makes the messages of one node in one mesh. It keeps nothing between calls and is safe for concurrent use.
type Generator struct {
	mesh *index.Reader
	node *view.Node
	view *view.View // through mesh
}

// New makes a node's generator of what the node sees through a reader.
func New(mesh *index.Reader, node *view.Node, sees *view.View) *Generator {
	return &Generator{mesh: mesh, node: node, view: sees}
}

// Cluster gives the cluster of that name.
func (g *Generator) Cluster(name string) (proto.Message, bool) {
	switch name {
	case wire.PassthroughCluster, wire.InboundPassthroughCluster:
		c := g.originalDestination(name)
		c.TypedExtensionProtocolOptions = traffic.ProtocolOptions(model.Auto, nil, nil)
		return c, true
	case wire.BlackHoleCluster:
		return &clusterv3.Cluster{Name: name, ConnectTimeout: g.connectTimeout(nil),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: name}}, true
	}
	if c, ok := g.passedThrough(name); ok {
		return c, true
	}
	direction, port, subset, host, ok := wire.ParseCluster(name)
	switch {
	case !ok || wire.OutboundCluster(port, subset, host) != name && wire.InboundCluster(port) != name && wire.DatagramCluster(port, host) != name:
		return nil, false
	case direction == "inbound":
		return g.inboundCluster(name, port)
	case direction == "udp":
		b, ok := g.view.DatagramBackend(port, host)
		if !ok {
			return nil, false
		}
		return g.outboundCluster(name, b), true
	}
	b, ok := g.view.Backend(port, subset, host)
	if !ok {
		return nil, false
	}
	return g.outboundCluster(name, b), true
}

func (g *Generator) outboundCluster(name string, b *view.Backend) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  g.connectTimeout(b.Policy.Pool),
		Metadata:        serviceMetadata(b),
		CircuitBreakers: traffic.CircuitBreakers(b.Policy.Pool),
		// Endpoints that are not ready are left at once, however few remain.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
	}
	if r := b.Policy.RetryBudget; r != nil {
		c.CircuitBreakers.Thresholds[0].RetryBudget = traffic.RetryBudget(r)
	}
	if o := b.Policy.Outlier; o != nil {
		c.OutlierDetection = traffic.Outlier(o)
		c.CommonLbConfig.HealthyPanicThreshold.Value = float64(o.MinHealthPercent)
	}
	if p := b.Policy.Pool; p != nil && p.KeepAlive != nil {
		c.UpstreamConnectionOptions = traffic.KeepAlive(p.KeepAlive)
	}
	if b.Check != nil && !g.node.Proxyless && !b.Passthrough() && b.Service.Resolution != model.ByHost {
		c.HealthChecks = []*corev3.HealthCheck{healthCheck(b)}
	}
	g.discover(c, b)
	g.secure(c, b)
	transport.Announce(c, b.Policy.ProxyProtocol)
	c.TypedExtensionProtocolOptions = traffic.ProtocolOptions(b.Port.Protocol, b.Policy.Pool, b.Policy.Outlier)
	if c.GetClusterType() != nil {
		named(c)
	}
	return c
}

// discovery says where the endpoints of a backend come from.
func (g *Generator) discovery(b *view.Backend) clusterv3.Cluster_DiscoveryType {
	switch {
	case b.Passthrough():
		return clusterv3.Cluster_ORIGINAL_DST
	case b.Service.Resolution == model.DNS:
		return clusterv3.Cluster_STRICT_DNS
	case b.Service.Resolution == model.ByHost:
		return clusterv3.Cluster_STATIC // in name alone: see byHost
	case b.Service.Resolution == model.DNSRoundRobin && slices.ContainsFunc(g.mesh.Endpoints(b.Service), g.isOurs):
		return clusterv3.Cluster_STRICT_DNS // it has any number of addresses
	case b.Service.Resolution == model.DNSRoundRobin:
		return clusterv3.Cluster_LOGICAL_DNS
	}
	return clusterv3.Cluster_EDS
}

func (g *Generator) discover(c *clusterv3.Cluster, b *view.Backend) {
	if t := b.Policy.TLS; t != nil && t.Refuse != "" {
		// Nobody is there who could prove to be the server, or would take us for what we are.
		message.Refused(c.Metadata, t.Refuse)
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name}
		return
	}
	if b.Service.Resolution == model.ByHost && !b.Passthrough() {
		byHost(c)
		return
	}
	kind := g.discovery(b)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	g.balance(c, b.Policy.Balancing)
	switch kind {
	case clusterv3.Cluster_ORIGINAL_DST:
		c.LbPolicy, c.LbConfig, c.LoadBalancingPolicy = clusterv3.Cluster_CLUSTER_PROVIDED, nil, nil
	case clusterv3.Cluster_EDS:
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: message.ADS(), ServiceName: c.Name}
	default:
		c.LoadAssignment = g.dnsEndpoints(c.Name, b)
		c.RespectDnsTtl, c.DnsLookupFamily = true, clusterv3.Cluster_V4_PREFERRED
	}
}

func (g *Generator) connectTimeout(p *model.ConnectionPool) *durationpb.Duration {
	switch {
	case p != nil && p.ConnectTimeout > 0:
		return durationpb.New(p.ConnectTimeout)
	case g.mesh.Settings().ConnectTimeout > 0:
		return durationpb.New(g.mesh.Settings().ConnectTimeout)
	}
	return durationpb.New(traffic.DefaultConnectTimeout)
}

// serviceMetadata says for metrics which service a cluster is of.
func serviceMetadata(b *view.Backend) *corev3.Metadata {
	fields := message.DescribeService(b.Service.Host, b.Service.Name, b.Service.Namespace)
	fields["default_original_port"] = structpb.NewNumberValue(float64(b.Port.Number))
	if b.Subset != nil {
		fields["subset"] = structpb.NewStringValue(b.Subset.Name)
	}
	return message.IstioMetadata(fields)
}

// originalDestination is a cluster that dials where the captured connection was going.
func (g *Generator) originalDestination(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ConnectTimeout: g.connectTimeout(nil), LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}, CircuitBreakers: traffic.CircuitBreakers(nil)}
}

// inboundCluster leads to the workload's own port.
func (g *Generator) inboundCluster(name string, port uint16) (proto.Message, bool) {
	for _, p := range g.view.Ports() {
		if p.Number != port {
			continue
		}
		c := g.originalDestination(name)
		endpoint, pool := g.view.Ingress(port)
		c.TypedExtensionProtocolOptions = traffic.ProtocolOptions(p.Protocol, pool, nil)
		c.CircuitBreakers = traffic.CircuitBreakers(pool)
		c.ConnectTimeout = g.connectTimeout(pool)
		if pool != nil && pool.KeepAlive != nil {
			c.UpstreamConnectionOptions = traffic.KeepAlive(pool.KeepAlive)
		}
		deliver(c, endpoint)
		if p.ServiceHost != "" {
			service, namespace := p.ServiceHost, g.node.Namespace
			if s := g.mesh.Service(p.ServiceHost); s != nil {
				service, namespace = s.Name, s.Namespace
			}
			fields := message.DescribeService(p.ServiceHost, service, namespace)
			fields["default_original_port"] = structpb.NewNumberValue(float64(p.ServicePort))
			c.Metadata = message.IstioMetadata(fields)
		}
		return c, true
	}
	return nil, false
}
