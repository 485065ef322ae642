package generate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// scope finds the Sidecar of a workload: one that selects it, else that of its namespace, else that of the root namespace. Of several
// of one sort the oldest counts. It is nil where there is none, and for gateways.
func (g *Generator) scope() *model.Sidecar {
	if g.node.Role != wire.Sidecar {
		return nil
	}
	var namespace, mesh *model.Sidecar
	for _, s := range g.mesh.Sidecars(g.node.Namespace) {
		switch {
		case s.Namespace == "":
			mesh = cmp.Or(mesh, s)
		case s.Selector == nil:
			namespace = cmp.Or(namespace, s)
		case subsetOf(s.Selector, g.node.Labels):
			return s
		}
	}
	return cmp.Or(namespace, mesh)
}

// reaches reports whether a service exists for the node at a port: what is exported to it, and not left out by its Sidecar.
func (g *Generator) reaches(s *model.Service, port uint16) bool {
	return g.visible(s) && g.imports(s.Namespace, port, func(host string) bool { return host == s.Host || isWildcard(host) && coversAll(host, s.Host) })
}

// reachesSome is reaches for any port of the service.
func (g *Generator) reachesSome(s *model.Service) bool {
	if g.scope() == nil {
		return g.visible(s)
	}
	return slices.ContainsFunc(s.Ports, func(p model.Port) bool { return g.reaches(s, p.Number) })
}

// importsRoutes reports whether routes for a host are in force for the node at a port.
func (g *Generator) importsRoutes(s *model.RouteSet, port uint16) bool {
	return s.ExportTo.VisibleFrom(s.Namespace, g.node.Namespace) && g.imports(s.Namespace, port, func(host string) bool {
		return slices.ContainsFunc(s.Hosts, func(h string) bool { _, meet := intersect(host, h); return meet })
	})
}

// imports evaluates the Sidecar's egress for something of a namespace. A port that an egress names has its hosts and no others.
func (g *Generator) imports(namespace string, port uint16, matches func(host string) bool) bool {
	scope := g.scope()
	if scope == nil || len(scope.Egress) == 0 {
		return true
	}
	e := egressAt(scope.Egress, port)
	if e == nil {
		return false
	}
	in := false
	for _, h := range e.Hosts {
		of := h.Namespace
		if of == "." {
			of = g.node.Namespace
		}
		if of != "*" && of != namespace || !matches(h.Host) {
			continue
		}
		if h.Excluded {
			return false
		}
		in = true
	}
	return in
}

// egressAt finds the egress of a port: the one that names it, or else the one that names none.
func egressAt(list []model.Egress, port uint16) *model.Egress {
	var rest *model.Egress
	for i := range list {
		switch list[i].Port {
		case port:
			return &list[i]
		case 0:
			rest = &list[i]
		}
	}
	return rest
}

// coversAll reports whether a wildcard takes in every name of a host, which may be a wildcard too.
func coversAll(wildcard, host string) bool { return wildcard == "*" || wildcardCovers(wildcard, host) }

// unknownListener says what happens to connections to destinations that the mesh does not know.
func (g *Generator) unknownListener() *listenerv3.Listener {
	cluster := g.unknownCluster()
	return &listenerv3.Listener{Name: wire.OutboundListener, TrafficDirection: corev3.TrafficDirection_OUTBOUND, Metadata: g.proxySettings(),
		DefaultFilterChain: &listenerv3.FilterChain{Name: cluster, Filters: []*listenerv3.Filter{g.relayTo(cluster, cluster)}}}
}

func (g *Generator) unknownCluster() string {
	cluster := wire.PassthroughCluster
	closed := g.mesh.Settings().RegistryOnly
	if scope := g.scope(); scope != nil && scope.Outbound != nil {
		closed = scope.Outbound.RegistryOnly
		if to := scope.Outbound.Proxy; to != nil && !closed {
			cluster = g.destinationCluster(*to, to.Port)
		}
	}
	if closed {
		cluster = wire.BlackHoleCluster
	}
	return cluster
}

// proxySettings tell a proxy how to run, beside a listener that it always has; nil where nobody says.
func (g *Generator) proxySettings() *corev3.Metadata {
	n := g.concurrency()
	if n == nil {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{wire.ProxySettings: {Fields: map[string]*structpb.Value{
		wire.Concurrency: structpb.NewNumberValue(float64(*n))}}}}
}

// concurrency is that of the ProxyConfig with the narrowest reach that says something: workload, namespace, mesh; the oldest of
// several.
func (g *Generator) concurrency() *uint32 {
	var workload, namespace, mesh *uint32
	take := func(to **uint32, n *uint32) {
		if *to == nil {
			*to = n
		}
	}
	for _, c := range g.mesh.ProxyConfigs(g.node.Namespace) {
		switch {
		case c.Namespace == "":
			take(&mesh, c.Concurrency)
		case c.Selector == nil:
			take(&namespace, c.Concurrency)
		case subsetOf(c.Selector, g.node.Labels):
			take(&workload, c.Concurrency)
		}
	}
	return cmp.Or(workload, namespace, mesh, g.mesh.Settings().Concurrency)
}

// ports are those on which the workload takes connections: as its Sidecar says, or else as the mesh knows them.
func (g *Generator) ports() []model.WorkloadPort {
	scope := g.scope()
	if scope == nil || len(scope.Ingress) == 0 {
		return g.node.Ports
	}
	var ports []model.WorkloadPort
	for _, in := range scope.Ingress {
		p := model.WorkloadPort{Number: in.Port, Protocol: in.Protocol}
		for _, known := range g.node.Ports { // for metrics: which service leads there
			if known.Number == in.Port {
				p.ServiceHost, p.ServicePort = known.ServiceHost, known.ServicePort
			}
		}
		ports = append(ports, p)
	}
	return ports
}

// ingress finds what the workload's Sidecar says of one of its ports.
func (g *Generator) ingress(port uint16) (endpoint string, pool *model.ConnectionPool) {
	scope := g.scope()
	if scope == nil {
		return "", nil
	}
	pool = scope.Pool
	for _, in := range scope.Ingress {
		if in.Port == port {
			if in.Pool != nil {
				pool = in.Pool
			}
			return in.Endpoint, pool
		}
	}
	return "", pool
}

// deliver has an inbound cluster connect to the endpoint that the Sidecar names, within the workload's own network. Without an
// address it is the one that the client called, at another port.
func deliver(c *clusterv3.Cluster, endpoint string) {
	if port, ok := callersPort(endpoint); ok {
		c.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
			UpstreamPortOverride: wrapperspb.UInt32(uint32(port))}}
		return
	}
	to, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return
	}
	c.ClusterDiscoveryType, c.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: message.SocketAddress(to.Addr().String(), to.Port())}}}}}}}
}

func callersPort(endpoint string) (uint16, bool) {
	if len(endpoint) < 2 || endpoint[0] != ':' {
		return 0, false
	}
	n, err := strconv.ParseUint(endpoint[1:], 10, 16)
	return uint16(n), err == nil
}
