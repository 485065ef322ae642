package view

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Target is a destination that a client named, found in the mesh.
type Target struct {
	// Host is canonical and concrete: under a service with a wildcard it is the host that was asked for.
	Host string
	Port uint16
	// Service is nil for a host that only route sets know.
	Service *model.Service
	// Sets decide about its routes; none means the service's own endpoints.
	Sets []*model.RouteSet
	// Pinned is the one endpoint of a headless service whose address the client named.
	Pinned netip.Addr

	ruled model.Protocol // what the rules that count are for, where Service is nil
}

// Protocol of the target: that of the service's port, or what the rules that count there are written for.
func (t *Target) Protocol() model.Protocol {
	if t.Service != nil {
		return t.Service.Port(t.Port).Protocol
	}
	return t.ruled
}

// Itself is the target's own service as the destination of a route.
func (t *Target) Itself() []model.WeightedDestination {
	return []model.WeightedDestination{{Host: t.Service.Host, Port: t.Port}}
}

// Cluster is where the target goes when no route says otherwise.
func (t *Target) Cluster() string {
	host := t.Host
	if t.Service != nil {
		host = t.Service.Host
	}
	if t.Pinned.IsValid() {
		host = PinnedHost(t.Pinned, host)
	}
	return wire.OutboundCluster(t.Port, "", host)
}

// Resolve finds a destination by host and port as the node's applications write them. Short names are for services alone: a host that
// only route sets know is known by the name that they give.
func (v *View) Resolve(host string, port uint16) (*Target, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return v.ResolveAddress(a.Unmap(), port)
	}
	full := v.FullNames(strings.TrimSuffix(strings.ToLower(host), "."))
	for _, h := range full {
		if s := v.At(h, port); s != nil {
			return v.As(h, port, s), true
		}
	}
	return v.routed(full[0], port)
}

// Find finds a destination by its full host, which may have a wildcard.
func (v *View) Find(host string, port uint16) (*Target, bool) {
	if s := v.At(host, port); s != nil {
		return v.As(host, port, s), true
	}
	return v.routed(host, port)
}

// routed finds a host that is no service at the port, by the route sets that name it.
func (v *View) routed(host string, port uint16) (*Target, bool) {
	t := &Target{Host: host, Port: port, Sets: v.RouteSets(host, port, nil)}
	for _, s := range t.Sets {
		if t.ruled == "" || t.ruled == model.TCP {
			t.ruled = v.ruledAs(s, port)
		}
	}
	return t, len(t.Sets) > 0
}

// ResolveAddress takes a virtual address, or that of an endpoint of a headless service.
func (v *View) ResolveAddress(a netip.Addr, port uint16) (*Target, bool) {
	for _, s := range v.mesh.ServicesAt(a) {
		if s = v.Behind(s); s.Port(port) == nil || !v.Reaches(s, port) {
			continue
		}
		t := &Target{Host: s.Host, Port: port, Service: s, Sets: v.RouteSets(s.Host, port, s)}
		if s.Headless {
			t.Pinned = a
		}
		return t, true
	}
	return nil, false
}

// As is a service's port by the name that was used, whose own routes rule: an alias has those of its service unless some name it.
func (v *View) As(host string, port uint16, s *model.Service) *Target {
	t := &Target{Host: host, Port: port, Service: s, Sets: v.RouteSets(host, port, s)}
	if t.Renamed() && !(len(t.Sets) > 0 && slices.Contains(t.Sets[0].Hosts, host)) {
		t.Sets = v.RouteSets(s.Host, port, s)
	}
	return t
}

// Renamed reports whether the host is an alias.
func (t *Target) Renamed() bool {
	return t.Service != nil && t.Host != t.Service.Host && !index.IsWildcard(t.Service.Host)
}

// FullNames gives what a name may mean in the node's namespace, the most literal first.
func (v *View) FullNames(name string) []string {
	domain := "." + v.mesh.Settings().ClusterDomain
	names := []string{name}
	switch strings.Count(name, ".") {
	case 0:
		names = append(names, name+"."+v.node.Namespace+".svc"+domain)
	case 1:
		names = append(names, name+".svc"+domain)
	default:
		if strings.HasSuffix(name, ".svc") {
			names = append(names, name+domain)
		}
	}
	return names
}

// ShortNames undoes fullNames for a service of the cluster.
func (v *View) ShortNames(host string) []string {
	base, ok := strings.CutSuffix(host, ".svc."+v.mesh.Settings().ClusterDomain)
	if !ok {
		return []string{host}
	}
	names := []string{host, base + ".svc", base}
	if short, ok := strings.CutSuffix(base, "."+v.node.Namespace); ok {
		names = append(names, short)
	}
	return names
}
