package generate

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/proxyless"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// proxylessResource gives a resource to gRPC's own client or server: what a sidecar gets, in the form that they read.
func (g *Generator) proxylessResource(typeURL, name string) (proto.Message, bool) {
	if address, ok := strings.CutPrefix(name, wire.GRPCServerListenerPrefix); ok && typeURL == ListenerType {
		return g.grpcServer(name, address)
	}
	if name == proxyless.Nobody && typeURL == EndpointsType {
		return &endpointv3.ClusterLoadAssignment{ClusterName: name}, true
	}
	m, ok := g.resource(typeURL, name)
	if typeURL == ClusterType {
		c, _ := m.(*clusterv3.Cluster)
		return proxylessCluster(name, c)
	}
	if !ok {
		return nil, false
	}
	switch m := m.(type) {
	case *listenerv3.Listener:
		if l, ok := proxyless.Listener(m); ok {
			return l, true
		}
		return nil, false
	case *routev3.RouteConfiguration:
		return proxyless.Routes(m), true
	}
	return m, true
}

// proxylessCluster gives what a client may use of a cluster, nil for one that does not exist. Any destination that a route can name has
// a cluster, without endpoints where there is nothing to use: a client makes no call at all, on any route, before it has every cluster
// of its route table, and takes one for missing after 15 s only.
func proxylessCluster(name string, c *clusterv3.Cluster) (proto.Message, bool) {
	if c != nil {
		if usable, ok := proxyless.Cluster(c); ok {
			return usable, true
		}
	}
	direction, port, subset, host, ok := wire.ParseCluster(name)
	if !ok || direction != "outbound" || wire.OutboundCluster(port, subset, host) != name {
		return nil, false
	}
	return proxyless.Unusable(name), true
}

// grpcServer gives the listener of a gRPC server of the workload, which names the address that it listens on. A server cannot tell
// TLS from plain text: it demands mutual TLS where the mesh does, and speaks plain text otherwise. One whose policies it cannot
// enforce gets no listener, and does not serve.
func (g *Generator) grpcServer(name, address string) (proto.Message, bool) {
	host, port, err := wire.SplitListenerName(address)
	if err != nil || g.node.Role != wire.Sidecar {
		return nil, false
	}
	var tls *corev3.TransportSocket
	if g.view.MTLSMode(g.node.Namespace, g.node.Labels, port) == model.MTLSStrict {
		tls = transport.Inbound(nil)
	}
	l, err := proxyless.Server(name, message.SocketAddress(host, port), tls, g.requestPolicies())
	if err != nil {
		return nil, false
	}
	return l, true
}
