package generate

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weftmesh/weft/internal/control/generate/cluster"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
)

// autoPassthrough has a chain for each port and subset of the services whose hosts the server takes. The server name spells the
// cluster out, as sidecars send it (meshSNI), and the TLS within goes on to the endpoint as it is.
func (g *Generator) autoPassthrough(s view.Place) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	for service := range g.mesh.AllServices() {
		host := service.Host
		if index.IsWildcard(host) || service.External || !g.view.Visible(service) || !s.TakesService(service) {
			continue
		}
		subsets := []string{""}
		if d := g.view.Destination(service); d != nil {
			for _, sub := range d.Subsets {
				subsets = append(subsets, sub.Name)
			}
		}
		for _, p := range service.Ports {
			for _, sub := range subsets {
				name := cluster.SNIName(p.Number, sub, host)
				chains = append(chains, &listenerv3.FilterChain{Name: name,
					FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{name}},
					Filters:          append(g.networkPolicies(), g.relayTo(name, name))})
			}
		}
	}
	return chains
}
