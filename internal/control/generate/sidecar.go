package generate

import (
	"net/netip"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/wire"
)

// unknownListener says what happens to connections to destinations that the mesh does not know.
func (g *Generator) unknownListener() *listenerv3.Listener {
	cluster := g.unknownCluster()
	return &listenerv3.Listener{Name: wire.OutboundListener, TrafficDirection: corev3.TrafficDirection_OUTBOUND, Metadata: g.proxySettings(),
		DefaultFilterChain: &listenerv3.FilterChain{Name: cluster, Filters: []*listenerv3.Filter{g.relayTo(cluster, cluster)}}}
}

func (g *Generator) unknownCluster() string {
	cluster := wire.PassthroughCluster
	closed := g.mesh.Settings().RegistryOnly
	if scope := g.view.Sidecar(); scope != nil && scope.Outbound != nil {
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
	n := g.view.Concurrency()
	if n == nil {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{wire.ProxySettings: {Fields: map[string]*structpb.Value{
		wire.Concurrency: structpb.NewNumberValue(float64(*n))}}}}
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
