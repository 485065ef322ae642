package view

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Sidecar finds the Sidecar of a workload: one that selects it, else that of its namespace, else that of the root namespace. Of several
// of one sort the oldest counts. It is nil where there is none, and for gateways.
func (v *View) Sidecar() *model.Sidecar {
	if v.node.Role != wire.Sidecar {
		return nil
	}
	var namespace, mesh *model.Sidecar
	for _, s := range v.mesh.Sidecars(v.node.Namespace) {
		switch {
		case s.Namespace == "":
			mesh = cmp.Or(mesh, s)
		case s.Selector == nil:
			namespace = cmp.Or(namespace, s)
		case model.Selects(s.Selector, v.node.Labels):
			return s
		}
	}
	return cmp.Or(namespace, mesh)
}

// Reaches reports whether a service exists for the node at a port: what is exported to it, and not left out by its Sidecar.
func (v *View) Reaches(s *model.Service, port uint16) bool {
	return v.Visible(s) && v.imports(s.Namespace, port, func(host string) bool { return host == s.Host || index.IsWildcard(host) && coversAll(host, s.Host) })
}

// ReachesSome is reaches for any port of the service.
func (v *View) ReachesSome(s *model.Service) bool {
	if v.Sidecar() == nil {
		return v.Visible(s)
	}
	return slices.ContainsFunc(s.Ports, func(p model.Port) bool { return v.Reaches(s, p.Number) })
}

// ImportsRoutes reports whether routes for a host are in force for the node at a port.
func (v *View) ImportsRoutes(s *model.RouteSet, port uint16) bool {
	return s.ExportTo.VisibleFrom(s.Namespace, v.node.Namespace) && v.imports(s.Namespace, port, func(host string) bool {
		return slices.ContainsFunc(s.Hosts, func(h string) bool { _, meet := intersect(host, h); return meet })
	})
}

// imports evaluates the Sidecar's egress for something of a namespace. A port that an egress names has its hosts and no others.
func (v *View) imports(namespace string, port uint16, matches func(host string) bool) bool {
	scope := v.Sidecar()
	if scope == nil || len(scope.Egress) == 0 {
		return true
	}
	e := egressAt(scope.Egress, port)
	if e == nil {
		return false
	}
	in := false
	for _, h := range e.Hosts {
		of := h.Namespace
		if of == "." {
			of = v.node.Namespace
		}
		if of != "*" && of != namespace || !matches(h.Host) {
			continue
		}
		if h.Excluded {
			return false
		}
		in = true
	}
	return in
}

// egressAt finds the egress of a port: the one that names it, or else the one that names none.
func egressAt(list []model.Egress, port uint16) *model.Egress {
	var rest *model.Egress
	for i := range list {
		switch list[i].Port {
		case port:
			return &list[i]
		case 0:
			rest = &list[i]
		}
	}
	return rest
}

// EgressTo finds the egress of the Sidecar that has an address of its own; nil for none.
func (v *View) EgressTo(a netip.Addr, port uint16) *model.Egress {
	scope := v.Sidecar()
	if scope == nil {
		return nil
	}
	for i := range scope.Egress {
		if e := &scope.Egress[i]; e.Bind.IsValid() && e.Bind == a && e.Port == port {
			return e
		}
	}
	return nil
}

// Targets gives what an egress with a port takes in there: of hosts in full what they mean, of those with a wildcard the services, by
// host. Hosts for which there are only routes and a wildcard are left out, as they have no connections but by name.
func (v *View) Targets(e *model.Egress) []*Target {
	var out []*Target
	add := func(t *Target) {
		if !slices.ContainsFunc(out, func(o *Target) bool { return o.Host == t.Host }) {
			out = append(out, t)
		}
	}
	wide := false
	for _, h := range e.Hosts {
		switch {
		case h.Excluded:
		case index.IsWildcard(h.Host):
			wide = true
		default:
			if t, ok := v.Find(h.Host, e.Port); ok {
				add(t)
			}
		}
	}
	if !wide {
		return out
	}
	for s := range v.mesh.AllServices() {
		if s.Port(e.Port) != nil && v.Behind(s) == s && v.Reaches(s, e.Port) {
			add(v.As(s.Host, e.Port, s))
		}
	}
	return out
}

// Opened gives the addresses at which the Sidecar has the proxy listen: for what the workload calls, and for what calls it.
func (v *View) Opened() (outbound, inbound []netip.AddrPort) {
	scope := v.Sidecar()
	if scope == nil {
		return nil, nil
	}
	for _, e := range scope.Egress {
		if e.Open {
			outbound = append(outbound, netip.AddrPortFrom(e.Bind, e.Port))
		}
	}
	for _, in := range scope.Ingress {
		if !in.Open {
			continue
		}
		a := in.Bind
		if !a.IsValid() {
			a = v.address()
		}
		if !a.IsValid() {
			a = netip.IPv4Unspecified()
		}
		inbound = append(inbound, netip.AddrPortFrom(a, in.Port))
	}
	return outbound, inbound
}

// OpensUnnamed reports whether the Sidecar has the proxy listen at the workload's own address.
func (v *View) OpensUnnamed() bool {
	scope := v.Sidecar()
	return scope != nil && slices.ContainsFunc(scope.Ingress, func(in model.Ingress) bool { return in.Open && !in.Bind.IsValid() })
}

// address is the workload's own; the zero Addr where it is not known. It is read of the mesh rather than being part of the node, so that
// only who listens at it is concerned when a workload gets another one.
func (v *View) address() netip.Addr {
	w := v.mesh.Workload(v.node.Namespace, v.node.Name)
	if w == nil {
		return netip.Addr{}
	}
	return w.Address()
}

// coversAll reports whether a wildcard takes in every name of a host, which may be a wildcard too.
func coversAll(wildcard, host string) bool { return wildcard == "*" || index.Covers(wildcard, host) }

// Concurrency is that of the ProxyConfig with the narrowest reach that says something: workload, namespace, mesh; the oldest of
// several.
func (v *View) Concurrency() *uint32 {
	var workload, namespace, mesh *uint32
	take := func(to **uint32, n *uint32) {
		if *to == nil {
			*to = n
		}
	}
	for _, c := range v.mesh.ProxyConfigs(v.node.Namespace) {
		switch {
		case c.Namespace == "":
			take(&mesh, c.Concurrency)
		case c.Selector == nil:
			take(&namespace, c.Concurrency)
		case model.Selects(c.Selector, v.node.Labels):
			take(&workload, c.Concurrency)
		}
	}
	return cmp.Or(workload, namespace, mesh, v.mesh.Settings().Concurrency)
}

// Ports are those on which the workload takes connections: as its Sidecar says, or else as the mesh knows them.
func (v *View) Ports() []model.WorkloadPort {
	scope := v.Sidecar()
	if scope == nil || len(scope.Ingress) == 0 {
		return v.node.Ports
	}
	var ports []model.WorkloadPort
	for _, in := range scope.Ingress {
		p := model.WorkloadPort{Number: in.Port, Protocol: in.Protocol}
		for _, known := range v.node.Ports { // for metrics: which service leads there
			if known.Number == in.Port {
				p.ServiceHost, p.ServicePort = known.ServiceHost, known.ServicePort
			}
		}
		ports = append(ports, p)
	}
	return ports
}

// Ingress finds what the workload's Sidecar says of one of its ports.
func (v *View) Ingress(port uint16) (endpoint string, pool *model.ConnectionPool) {
	scope := v.Sidecar()
	if scope == nil {
		return "", nil
	}
	pool = scope.Pool
	for _, in := range scope.Ingress {
		if in.Port == port {
			if in.Pool != nil {
				pool = in.Pool
			}
			return in.Endpoint, pool
		}
	}
	return "", pool
}
