package generate

import (
	"slices"

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
	case typeURL == ListenerType:
		if g.node.Role == wire.Sidecar && !g.node.Proxyless {
			names = append(names, wire.InboundListener, wire.OutboundListener)
		}
		for _, h := range g.hosts() {
			for _, p := range g.mesh.Services.Get(h).Ports {
				if g.reaches(g.mesh.Services.Get(h), p.Number) {
					names = append(names, wire.ListenerName(h, p.Number))
				}
			}
		}
	case typeURL == ClusterType:
		names = g.clusterNames()
	}
	slices.Sort(names)
	return names
}

// hosts gives the services that the node may see and that have one host.
func (g *Generator) hosts() []string {
	var hosts []string
	for _, h := range slices.Sorted(g.mesh.Services.Keys()) {
		if !isWildcard(h) && g.reachesSome(g.mesh.Services.Get(h)) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

func (g *Generator) clusterNames() []string {
	names := []string{wire.BlackHoleCluster, wire.InboundPassthroughCluster, wire.PassthroughCluster}
	for _, p := range g.ports() {
		names = append(names, wire.InboundCluster(p.Number))
	}
	for _, s := range g.mesh.Services.All() {
		if !g.visible(s) {
			continue
		}
		subsets := []string{""}
		if d := g.destination(s); d != nil {
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
