package generate

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/wire"
)

// Names gives the names of all resources of a type that may be asked for by wildcard, sorted: listeners and clusters. A gateway's
// listeners are those it binds.
func (g *Generator) Names(typeURL string) []string {
	var names []string
	switch {
	case typeURL == ListenerType && g.node.Role == wire.Gateway:
		for _, l := range g.GatewayListeners() {
			names = append(names, l.Name)
		}
	case typeURL == ListenerType && g.node.Classic:
		names = g.classicNames()
	case typeURL == ClusterType && g.node.Classic:
		names = append(g.clusterNames(), g.classicClusters()...)
	case typeURL == ListenerType:
		if g.node.Role == wire.Sidecar && !g.node.Proxyless {
			names = append(names, wire.InboundListener, wire.OutboundListener)
		}
		for s := range g.mesh.AllServices() {
			if index.IsWildcard(s.Host) {
				continue
			}
			behind := g.view.Behind(s)
			for _, p := range behind.Ports {
				if g.view.Visible(s) && g.view.Reaches(behind, p.Number) {
					names = append(names, wire.ListenerName(s.Host, p.Number))
				}
			}
		}
	case typeURL == ClusterType:
		names = g.clusterNames()
	}
	slices.Sort(names)
	return names
}

func (g *Generator) clusterNames() []string {
	names := []string{wire.BlackHoleCluster, wire.InboundPassthroughCluster, wire.PassthroughCluster}
	for _, p := range g.view.Ports() {
		names = append(names, wire.InboundCluster(p.Number))
	}
	for s := range g.mesh.AllServices() {
		if !g.view.Visible(s) {
			continue
		}
		if g.view.Behind(s) != s {
			continue // its clusters are those of the service that it is an alias of
		}
		subsets := []string{""}
		if d := g.view.Destination(s); d != nil {
			for _, sub := range d.Subsets {
				subsets = append(subsets, sub.Name)
			}
		}
		for _, p := range s.Ports {
			for _, sub := range subsets {
				names = append(names, wire.OutboundCluster(p.Number, sub, s.Host))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
