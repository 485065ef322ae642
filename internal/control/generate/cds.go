package generate

import (
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
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

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
		b, ok := g.datagramBackend(port, host)
		if !ok {
			return nil, false
		}
		return g.outboundCluster(name, b), true
	}
	b, ok := g.backend(port, subset, host)
	if !ok {
		return nil, false
	}
	return g.outboundCluster(name, b), true
}

// backend is what stands behind an outbound cluster.
type backend struct {
	service *model.Service
	port    *model.Port
	subset  *model.Subset
	policy  model.TrafficPolicy
	check   *model.HealthCheck
	// pinned is the only endpoint, for a headless service's.
	pinned *model.Endpoint
	host   string // as in the cluster's name
	udp    bool
}

func (g *Generator) backend(port uint16, subsetName, host string) (*backend, bool) {
	s, pinned := g.backing(host)
	if s == nil || s.Port(port) == nil {
		return nil, false
	}
	d := g.destination(s)
	b := &backend{service: s, port: s.Port(port), pinned: pinned, host: host, subset: subset(d, subsetName)}
	if subsetName != "" && b.subset == nil {
		return nil, false
	}
	b.policy = g.policy(d, b.subset, port)
	if b.policy.TLS == nil {
		b.policy.TLS = s.ClientTLS(port)
	}
	if d != nil {
		b.check = d.HealthCheck
	}
	return b, true
}

// datagramBackend is what stands behind a cluster for datagrams. They are sent as they came: what a DestinationRule or the mesh says of
// connections, TLS among it, is not for them.
func (g *Generator) datagramBackend(port uint16, host string) (*backend, bool) {
	s := g.service(host)
	if s == nil || s.UDPPort(port) == nil {
		return nil, false
	}
	p := g.policy(g.destination(s), nil, port)
	p.TLS, p.Pool, p.ProxyProtocol, p.RetryBudget = &model.ClientTLS{Mode: model.TLSDisable}, nil, 0, nil
	return &backend{service: s, port: s.UDPPort(port), policy: p, host: host, udp: true}, true
}

// portOf gives an instance's port.
func (b *backend) portOf(e *model.Endpoint) uint16 {
	ports := e.Ports
	if b.udp {
		ports = e.UDP
	}
	if port := ports[b.port.Number]; port != 0 {
		return port
	}
	return b.port.Number
}

// passthrough says that connections go to the address that the client chose.
func (b *backend) passthrough() bool {
	return b.service.Resolution == model.None || b.policy.Balancing != nil && b.policy.Balancing.Simple == "PASSTHROUGH"
}

func (g *Generator) outboundCluster(name string, b *backend) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  g.connectTimeout(b.policy.Pool),
		Metadata:        serviceMetadata(b),
		CircuitBreakers: traffic.CircuitBreakers(b.policy.Pool),
		// Endpoints that are not ready are left at once, however few remain.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
	}
	if r := b.policy.RetryBudget; r != nil {
		c.CircuitBreakers.Thresholds[0].RetryBudget = traffic.RetryBudget(r)
	}
	if o := b.policy.Outlier; o != nil {
		c.OutlierDetection = traffic.Outlier(o)
		c.CommonLbConfig.HealthyPanicThreshold.Value = float64(o.MinHealthPercent)
	}
	if p := b.policy.Pool; p != nil && p.KeepAlive != nil {
		c.UpstreamConnectionOptions = traffic.KeepAlive(p.KeepAlive)
	}
	if b.check != nil && !g.node.Proxyless && !b.passthrough() && b.service.Resolution != model.ByHost {
		c.HealthChecks = []*corev3.HealthCheck{healthCheck(b)}
	}
	g.discover(c, b)
	g.secure(c, b)
	transport.Announce(c, b.policy.ProxyProtocol)
	c.TypedExtensionProtocolOptions = traffic.ProtocolOptions(b.port.Protocol, b.policy.Pool, b.policy.Outlier)
	if c.GetClusterType() != nil {
		named(c)
	}
	return c
}

// discovery says where the endpoints of a backend come from.
func (g *Generator) discovery(b *backend) clusterv3.Cluster_DiscoveryType {
	switch {
	case b.passthrough():
		return clusterv3.Cluster_ORIGINAL_DST
	case b.service.Resolution == model.DNS || b.service.ExternalName != "" && g.alias(b.service) == nil:
		return clusterv3.Cluster_STRICT_DNS
	case b.service.Resolution == model.ByHost:
		return clusterv3.Cluster_STATIC // in name alone: see byHost
	case b.service.Resolution == model.DNSRoundRobin:
		return clusterv3.Cluster_LOGICAL_DNS
	}
	return clusterv3.Cluster_EDS
}

func (g *Generator) discover(c *clusterv3.Cluster, b *backend) {
	if b.service.Resolution == model.ByHost && !b.passthrough() {
		byHost(c)
		return
	}
	kind := g.discovery(b)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	if t := b.policy.TLS; t != nil && t.Refuse {
		// Nobody is there who could prove to be the server.
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name}
		return
	}
	g.balance(c, b.policy.Balancing)
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
func serviceMetadata(b *backend) *corev3.Metadata {
	fields := message.DescribeService(b.service.Host, b.service.Name, b.service.Namespace)
	fields["default_original_port"] = structpb.NewNumberValue(float64(b.port.Number))
	if b.subset != nil {
		fields["subset"] = structpb.NewStringValue(b.subset.Name)
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
	for _, p := range g.ports() {
		if p.Number != port {
			continue
		}
		c := g.originalDestination(name)
		endpoint, pool := g.ingress(port)
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

// alias is the mesh's own service that an ExternalName points to; nil when it points outside.
func (g *Generator) alias(s *model.Service) *model.Service {
	if s.ExternalName == "" {
		return nil
	}
	a := g.mesh.Service(s.ExternalName)
	if a == nil || a == s || a.ExternalName != "" || !g.visible(a) {
		return nil
	}
	return a
}
