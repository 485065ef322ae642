package view

import (
	"cmp"
	"maps"
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// ServerSet is all servers of a gateway workload on one of its own ports, to which the ports that they name lead: as in Istio, the
// target port where a Service before the workload has the port, or else the port itself. Those whose kind of protocol is not the first one's cannot share it
// and are left out.
type ServerSet struct {
	Port    uint16
	UDP     bool
	Servers []Place
	// Also are, for servers by position, the places that share their hosts.
	Also map[int][]Place
}

// socketKey names a port: those of UDP are others than those of TCP.
type socketKey struct {
	port uint16
	udp  bool
}

// kindOf gives what a protocol means to a port: requests, TLS by server name, opaque connections, or datagrams.
func kindOf(p model.Protocol) model.Protocol {
	switch p {
	case model.HTTPS, model.TLS:
		return model.TLS
	case model.TCP, model.UDP:
		return p
	}
	return model.HTTP
}

// Kind is that of all servers of the set, see kindOf.
func (s *ServerSet) Kind() model.Protocol { return kindOf(s.Servers[0].Server.Protocol) }

// Protocol of a set of kind HTTP, whose servers share a connection manager: gRPC-Web if one of them says so.
func (s *ServerSet) Protocol() model.Protocol {
	if slices.ContainsFunc(s.Servers, func(p Place) bool { return p.Server.Protocol == model.GRPCWeb }) {
		return model.GRPCWeb
	}
	return s.Servers[0].Server.Protocol
}

// Servers gives the node's ports in ascending order; none unless it is a gateway. A node without labels is one that the mesh does
// not know (see package serve): it gets none either, not even those of a Gateway that selects all, because keys come with them.
func (v *View) Servers() []*ServerSet {
	if v.node.Role != wire.Gateway || len(v.node.Labels) == 0 {
		return nil
	}
	byPort := map[socketKey]*ServerSet{}
	for _, gw := range v.mesh.Gateways() {
		if gw.SelectorNamespace != "" && gw.SelectorNamespace != v.node.Namespace || !model.Selects(gw.Selector, v.node.Labels) {
			continue
		}
		for i := range gw.Servers {
			s := &gw.Servers[i]
			key := socketKey{udp: s.Protocol == model.UDP}
			key.port = model.TargetPort(v.node.Targets, s.Port, key.udp)
			set := byPort[key]
			if set == nil {
				set = &ServerSet{Port: key.port, UDP: key.udp}
				byPort[key] = set
			}
			if len(set.Servers) == 0 || set.Kind() == kindOf(s.Protocol) {
				set.Servers = append(set.Servers, Place{Port: s.Port, Gateway: gw, Server: s})
			}
		}
	}
	var out []*ServerSet
	for _, key := range slices.SortedFunc(maps.Keys(byPort), func(a, b socketKey) int {
		return cmp.Or(cmp.Compare(a.port, b.port), compareBool(a.udp, b.udp))
	}) {
		byPort[key].share()
		out = append(out, byPort[key])
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// share settles which server of a port ends TLS for a host that several have: the oldest. The routes of the others are reached there
// too if they would have asked the same of clients, as those of several Ingresses do; otherwise they are not: what a gateway asks of
// its clients is not to be got round at another's.
func (s *ServerSet) share() {
	if s.Kind() != model.TLS {
		return
	}
	owner := map[string]int{} // of hosts, by position in kept
	var kept []Place
	for _, p := range s.Servers {
		if !ends(p.Server) {
			kept = append(kept, p)
			continue
		}
		var own []model.GatewayHost
		shared := map[int][]model.GatewayHost{}
		for _, h := range p.Server.Hosts {
			switch i, taken := owner[h.Host]; {
			case !taken || i == len(kept):
				owner[h.Host], own = len(kept), append(own, h)
			case model.AsksTheSame(kept[i].Server, p.Server):
				shared[i] = append(shared[i], h)
			}
		}
		for _, i := range slices.Sorted(maps.Keys(shared)) {
			if s.Also == nil {
				s.Also = map[int][]Place{}
			}
			s.Also[i] = append(s.Also[i], p.only(shared[i]))
		}
		switch len(own) {
		case 0:
		case len(p.Server.Hosts):
			kept = append(kept, p)
		default:
			kept = append(kept, p.only(own))
		}
	}
	s.Servers = kept
}

// ends reports whether a server ends TLS.
func ends(s *model.Server) bool {
	return s.TLS != nil && s.TLS.Mode != model.TLSPassthrough && s.TLS.Mode != model.TLSAutoPassthrough
}

// GatewayClient is what the node shows to backends as a gateway: the oldest of its Gateways that says so decides.
func (v *View) GatewayClient() *model.KeyPair {
	if v.node.Role != wire.Gateway || len(v.node.Labels) == 0 {
		return nil
	}
	for _, gw := range v.mesh.Gateways() {
		if gw.Client != nil && (gw.SelectorNamespace == "" || gw.SelectorNamespace == v.node.Namespace) && model.Selects(gw.Selector, v.node.Labels) {
			return gw.Client
		}
	}
	return nil
}

// RouteSetsAt gives the route sets that name a server and have a host that it takes, in order of precedence.
func (v *View) RouteSetsAt(s Place) []*model.RouteSet {
	var out []*model.RouteSet
	for _, r := range v.mesh.RouteSetsAt(s.Gateway.Ref) {
		if s.named(r.Gateways) && r.ExportTo.VisibleFrom(r.Namespace, v.node.Namespace) && len(s.Hosts(r)) > 0 {
			out = append(out, r)
		}
	}
	return v.nearest(out)
}
