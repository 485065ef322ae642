package generate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"

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
