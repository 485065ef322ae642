package generate

import (
	"cmp"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	socketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Names of the filter and the socket, Envoy's well-known ones.
const (
	proxyProtocolFilter = "envoy.filters.listener.proxy_protocol"
	proxyProtocolSocket = "envoy.transport_sockets.upstream_proxy_protocol"
)

// headerFilter reads the PROXY protocol at a gateway's port if its Gateway object, or else the workload, says that it comes. It
// stands before all other filters. Package compile sees to it that the objects of one port agree.
func (g *Generator) headerFilter(set *serverSet) []*listenerv3.ListenerFilter {
	expected := cmp.Or(set.servers[0].gateway.ProxyProtocol, g.node.ProxyProtocol)
	if expected == model.NoProxyProtocol {
		return nil
	}
	m := &headerv3.ProxyProtocol{AllowRequestsWithoutProxyProtocol: expected == model.OptionalProxyProtocol}
	return []*listenerv3.ListenerFilter{{Name: proxyProtocolFilter, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(m)}}}
}

// announce has connections begin with a PROXY protocol header, before TLS.
func announce(c *clusterv3.Cluster, version uint8) {
	if version == 0 {
		return
	}
	wrap := func(inner *corev3.TransportSocket) *corev3.TransportSocket {
		if inner == nil {
			inner = socket(rawSocket, &rawv3.RawBuffer{})
		}
		return socket(proxyProtocolSocket, &socketv3.ProxyProtocolUpstreamTransport{TransportSocket: inner,
			Config: &corev3.ProxyProtocolConfig{Version: corev3.ProxyProtocolConfig_Version(version - 1)}})
	}
	for _, m := range c.TransportSocketMatches {
		m.TransportSocket = wrap(m.TransportSocket)
	}
	if len(c.TransportSocketMatches) == 0 {
		c.TransportSocket = wrap(c.TransportSocket)
	}
}
