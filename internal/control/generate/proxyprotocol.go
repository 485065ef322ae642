package generate

import (
	"cmp"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// headerFilter reads the PROXY protocol at a gateway's port if its Gateway object, or else the workload, says that it comes. It
// stands before all other filters. Package compile sees to it that the objects of one port agree.
func (g *Generator) headerFilter(set *view.ServerSet) []*listenerv3.ListenerFilter {
	expected := cmp.Or(set.Servers[0].Gateway.ProxyProtocol, g.node.ProxyProtocol)
	if expected == model.NoProxyProtocol {
		return nil
	}
	m := &headerv3.ProxyProtocol{AllowRequestsWithoutProxyProtocol: expected == model.OptionalProxyProtocol}
	return []*listenerv3.ListenerFilter{{Name: transport.ProxyProtocolFilter, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(m)}}}
}
