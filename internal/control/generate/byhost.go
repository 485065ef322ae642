package generate

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	byheaderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	bysniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"

	"github.com/weftmesh/weft/internal/control/generate/cluster"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// lookups are the HTTP filters by which an Envoy looks up the hosts of requests, if any service wants that.
func (g *Generator) lookups() []*hcmv3.HttpFilter {
	if !g.node.Classic {
		return nil
	}
	for s := range g.mesh.AllServices() {
		if s.Resolution == model.ByHost && g.view.Visible(s) {
			return []*hcmv3.HttpFilter{message.HTTPFilter(cluster.ByHeaderFilter, &byheaderv3.FilterConfig{
				ImplementationSpecifier: &byheaderv3.FilterConfig_DnsCacheConfig{DnsCacheConfig: cluster.HostCache()}})}
		}
	}
	return nil
}

// lookup puts the filter by which an Envoy looks up server names before those of a chain that relays to such a service.
func (g *Generator) lookup(filters []*listenerv3.Filter, destinations []model.WeightedDestination, port uint16) []*listenerv3.Filter {
	if !g.node.Classic || len(destinations) != 1 {
		return filters
	}
	if s := g.view.Service(destinations[0].Host); s == nil || s.Resolution != model.ByHost {
		return filters
	}
	if destinations[0].Port != 0 {
		port = destinations[0].Port
	}
	return append([]*listenerv3.Filter{message.NetworkFilter(cluster.BySNIFilter, &bysniv3.FilterConfig{DnsCacheConfig: cluster.HostCache(),
		PortSpecifier: &bysniv3.FilterConfig_PortValue{PortValue: uint32(port)}})}, filters...)
}

// ownNames are the server names by which connections to a service itself are told; none where it does not matter.
func ownNames(t *view.Target) *listenerv3.FilterChainMatch {
	if t.Service.Resolution != model.ByHost {
		return nil
	}
	return &listenerv3.FilterChainMatch{ServerNames: []string{t.Service.Host}}
}
