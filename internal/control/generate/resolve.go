package generate

import (
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// target is a destination that a client named, found in the mesh.
type target struct {
	// host is canonical and concrete: under a service with a wildcard it is the host that was asked for.
	host string
	port uint16
	// service is nil for a host that only route sets know.
	service *model.Service
	// sets decide about its routes; none means the service's own endpoints.
	sets []*model.RouteSet
	// pinned is the one endpoint of a headless service whose address the client named.
	pinned netip.Addr
}

// protocol of the target: that of the service's port, or what the routes are written for.
func (t *target) protocol() model.Protocol {
	if t.service != nil {
		return t.service.Port(t.port).Protocol
	}
	for _, s := range t.sets {
		switch {
		case len(s.HTTP) > 0:
			return model.HTTP
		case len(s.TLS) > 0:
			return model.TLS
		}
	}
	return model.TCP
}

// itself is the target's own service as the destination of a route.
func (t *target) itself() []model.WeightedDestination {
	return []model.WeightedDestination{{Host: t.service.Host, Port: t.port}}
}

// cluster is where the target goes when no route says otherwise.
func (t *target) cluster() string {
	host := t.host
	if t.service != nil {
		host = t.service.Host
	}
	if t.pinned.IsValid() {
		host = pinnedHost(t.pinned, host)
	}
	return wire.OutboundCluster(t.port, "", host)
}

// resolve finds a destination by host and port as the node's applications write them.
func (g *Generator) resolve(host string, port uint16) (*target, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return g.resolveAddress(a.Unmap(), port)
	}
	for _, h := range g.fullNames(strings.TrimSuffix(strings.ToLower(host), ".")) {
		if t, ok := g.resolveFull(h, port); ok {
			return t, true
		}
	}
	return nil, false
}

// resolveAddress takes a virtual address, or that of an endpoint of a headless service.
func (g *Generator) resolveAddress(a netip.Addr, port uint16) (*target, bool) {
	for _, s := range g.mesh.ServicesAt(a) {
		if s.Port(port) == nil || !g.reaches(s, port) {
			continue
		}
		t := &target{host: s.Host, port: port, service: s, sets: g.setsFor(s.Host, port, s)}
		if s.Headless {
			t.pinned = a
		}
		return t, true
	}
	return nil, false
}

// resolveFull takes a host in full: a service, one under a wildcard, or a host of route sets alone. The host "*" of a route set
// makes no destination of something that is no service: it would claim the whole internet.
func (g *Generator) resolveFull(host string, port uint16) (*target, bool) {
	if s := g.service(host); s != nil && g.reaches(s, port) {
		if s.Port(port) == nil {
			return nil, false
		}
		return &target{host: host, port: port, service: s, sets: g.setsFor(host, port, s)}, true
	}
	sets := g.setsFor(host, port, nil)
	if len(sets) == 0 || !answersPort(sets, port) {
		return nil, false
	}
	return &target{host: host, port: port, sets: sets}, true
}

// answersPort: hosts that are no service have no declared ports; as in Istio their routes stand at port 80, and besides at the
// ports that a match names.
func answersPort(sets []*model.RouteSet, port uint16) bool {
	if port == 80 {
		return true
	}
	l4 := func(matches []model.L4Match) bool {
		for _, m := range matches {
			if m.Port == port {
				return true
			}
		}
		return false
	}
	for _, s := range sets {
		for _, r := range s.HTTP {
			for _, m := range r.Matches {
				if m.Port == port {
					return true
				}
			}
		}
		for _, r := range s.TCP {
			if l4(r.Matches) {
				return true
			}
		}
		for _, r := range s.TLS {
			if l4(r.Matches) || port == 443 {
				return true
			}
		}
	}
	return false
}

// fullNames gives what a name may mean in the node's namespace, the most literal first.
func (g *Generator) fullNames(name string) []string {
	domain := "." + g.mesh.Settings().ClusterDomain
	names := []string{name}
	switch strings.Count(name, ".") {
	case 0:
		names = append(names, name+"."+g.node.Namespace+".svc"+domain)
	case 1:
		names = append(names, name+".svc"+domain)
	default:
		if strings.HasSuffix(name, ".svc") {
			names = append(names, name+domain)
		}
	}
	return names
}

// shortNames undoes fullNames for a service of the cluster.
func (g *Generator) shortNames(host string) []string {
	base, ok := strings.CutSuffix(host, ".svc."+g.mesh.Settings().ClusterDomain)
	if !ok {
		return []string{host}
	}
	names := []string{host, base + ".svc", base}
	if short, ok := strings.CutSuffix(base, "."+g.node.Namespace); ok {
		names = append(names, short)
	}
	return names
}

func (g *Generator) visible(s *model.Service) bool {
	return s.ExportTo.VisibleFrom(s.Namespace, g.node.Namespace)
}

// choose gives which of the services of a host the node uses. Gateways do not prefer those of their own namespace.
func (g *Generator) choose(s *model.Service) *model.Service {
	namespace := g.node.Namespace
	if g.node.Role == wire.Gateway {
		return s.ForGateway(namespace)
	}
	return s.For(namespace, func(o *model.Service) bool { return g.reachesSome(o) })
}

// service finds the service of a full host that the node may see: exact, or else the longest wildcard.
func (g *Generator) service(host string) *model.Service {
	for s := range g.mesh.ServicesFor(host) {
		if g.visible(s) {
			return s
		}
	}
	return nil
}

// setsFor gives the route sets that decide about a host for the sidecar: those of the most specific host that names it. The oldest
// VirtualService rules alone; routes of the Gateway API are merged.
func (g *Generator) setsFor(host string, port uint16, s *model.Service) []*model.RouteSet {
	for named, candidates := range g.mesh.RouteSets(host) {
		if named == "*" && s == nil {
			continue
		}
		if sets := g.ruling(candidates, port, s); len(sets) > 0 {
			return sets
		}
	}
	return nil
}

func (g *Generator) ruling(candidates []*model.RouteSet, port uint16, s *model.Service) []*model.RouteSet {
	var visible, merged, own []*model.RouteSet
	for _, c := range candidates {
		if g.importsRoutes(c, port) {
			visible = append(visible, c)
		}
	}
	if len(visible) == 0 || !visible[0].ByPrecedence {
		return visible[:min(1, len(visible))]
	}
	for _, c := range visible {
		if !c.ByPrecedence {
			continue
		}
		merged = append(merged, c)
		// Routes of the client's own namespace for another's service go before the service owner's (GEP-1324).
		if s != nil && s.Namespace != g.node.Namespace && c.Namespace == g.node.Namespace {
			own = append(own, c)
		}
	}
	if len(own) > 0 {
		return own
	}
	return merged
}

// pinnedHost names one endpoint of a headless service in cluster names, as "10-77-0-5.mysql.default.svc.cluster.local".
func pinnedHost(a netip.Addr, host string) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String()) + "." + host
}

// backing finds the service of a cluster name's host, and the endpoint when the name pins one.
func (g *Generator) backing(host string) (*model.Service, *model.Endpoint) {
	if s := g.mesh.Service(host); s != nil {
		if !g.visible(s) {
			return nil, nil
		}
		return s, nil
	}
	_, parent, ok := strings.Cut(host, ".")
	if !ok {
		return nil, nil
	}
	s := g.mesh.Service(parent)
	if s == nil || !s.Headless || !g.visible(s) {
		return nil, nil
	}
	for _, e := range g.mesh.Endpoints(s) {
		if a, err := netip.ParseAddr(e.Address); err == nil && pinnedHost(a, parent) == host {
			return s, e
		}
	}
	return nil, nil
}
