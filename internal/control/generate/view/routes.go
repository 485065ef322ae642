package view

import (
	"cmp"
	"slices"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
)

// RouteSets gives the route sets that decide about a host at a port for the sidecar: of those with a rule for the node there, those of
// the most specific host that names it. The first VirtualService rules alone; routes of the Gateway API are merged. The service is nil
// for a host that is none at the port. The host "*" of a route set makes no destination of such a host: it would claim the whole
// internet.
func (v *View) RouteSets(host string, port uint16, s *model.Service) []*model.RouteSet {
	for named, candidates := range v.mesh.RouteSets(host) {
		if named == "*" && s == nil {
			continue
		}
		imported := v.imported(candidates, port)
		if sets := v.ruling(v.withRules(imported, port, s), s); len(sets) > 0 {
			return sets
		}
		// As in Istio, a service has the rules of the most specific host that names it, or none.
		if s != nil && len(imported) > 0 && coversAll(named, s.Host) {
			return nil
		}
	}
	return nil
}

// Unruled gives the first route set that names a host for which no set has a rule for the node at the port; nil where none names it.
func (v *View) Unruled(host string, port uint16) *model.RouteSet {
	for named, candidates := range v.mesh.RouteSets(host) {
		if imported := v.imported(candidates, port); named != "*" && len(imported) > 0 {
			return imported[0]
		}
	}
	return nil
}

// imported leaves the sets that are in force for the node at the port, in the order in which they count there.
func (v *View) imported(candidates []*model.RouteSet, port uint16) []*model.RouteSet {
	var out []*model.RouteSet
	for _, c := range candidates {
		if v.ImportsRoutes(c, port) {
			out = append(out, c)
		}
	}
	return v.nearest(out)
}

// nearest puts sets, which are the oldest first, in the order in which they count for the node: as in Istio, those that its namespace
// keeps to itself, those exported to it by name, those for all.
func (v *View) nearest(sets []*model.RouteSet) []*model.RouteSet {
	distance := func(s *model.RouteSet) int { return s.ExportTo.Distance(s.Namespace, v.node.Namespace) }
	slices.SortStableFunc(sets, func(a, b *model.RouteSet) int { return cmp.Compare(distance(a), distance(b)) })
	return sets
}

// Compare orders sets for one host as they count for the node.
func (v *View) Compare(a, b *model.RouteSet) int { return a.CompareIn(v.node.Namespace, b) }

// withRules leaves the sets that have a rule for the node at the port. One that has none is as good as absent.
func (v *View) withRules(sets []*model.RouteSet, port uint16, s *model.Service) []*model.RouteSet {
	var out []*model.RouteSet
	for _, set := range sets {
		if s != nil && v.rules(set, port, s.Port(port).Protocol) || s == nil && v.ruledAs(set, port) != "" {
			out = append(out, set)
		}
	}
	return out
}

// ruling chooses among sets of one host.
func (v *View) ruling(sets []*model.RouteSet, s *model.Service) []*model.RouteSet {
	if len(sets) == 0 || !sets[0].ByPrecedence {
		return sets[:min(1, len(sets))]
	}
	var merged, own []*model.RouteSet
	for _, c := range sets {
		if !c.ByPrecedence {
			continue
		}
		merged = append(merged, c)
		// Routes of the client's own namespace for another's service go before the service owner's (GEP-1324).
		if s != nil && s.Namespace != v.node.Namespace && c.Namespace == v.node.Namespace {
			own = append(own, c)
		}
	}
	if len(own) > 0 {
		return own
	}
	return merged
}

// rules reports whether a set has a rule for the node at a port, of a kind that the protocol there may have.
func (v *View) rules(set *model.RouteSet, port uint16, p model.Protocol) bool {
	at := Place{Port: port}
	return mayBeHTTP(p) && v.rulesHTTP(set, at) || (p == model.TLS || p == model.HTTPS) && v.rulesTLS(set, at) || !p.IsHTTP() && v.rulesTCP(set, at)
}

// ruledAs is rules for hosts that are no service at the port, and so have no protocol of their own: it gives that of the rules that count
// there, or "". As in Istio, rules for requests stand at port 80 and at the HTTP ports of the services that the set names besides; those
// for TLS stand at port 443, and any at the ports that their matches name.
func (v *View) ruledAs(set *model.RouteSet, port uint16) model.Protocol {
	at := Place{Port: port}
	names := func(m model.L4Match) bool { return m.Port == at.Port && v.TakesL4(m, at) }
	switch {
	case (port == 80 || v.namesServiceAt(set, port)) && v.rulesHTTP(set, at), slices.ContainsFunc(set.HTTP, func(r model.HTTPRoute) bool {
		return slices.ContainsFunc(r.Matches, func(m model.HTTPMatch) bool { return m.Port == at.Port && v.Takes(&m, at) })
	}):
		return model.HTTP
	case port == 443 && v.rulesTLS(set, at), slices.ContainsFunc(set.TLS, func(r model.TLSRoute) bool { return slices.ContainsFunc(r.Matches, names) }):
		return model.TLS
	case slices.ContainsFunc(set.TCP, func(r model.TCPRoute) bool { return slices.ContainsFunc(r.Matches, names) }):
		return model.TCP
	}
	return ""
}

// namesServiceAt reports whether one of a set's hosts, wildcards aside, is a service that takes requests at the port.
func (v *View) namesServiceAt(set *model.RouteSet, port uint16) bool {
	return slices.ContainsFunc(set.Hosts, func(host string) bool {
		if index.IsWildcard(host) {
			return false
		}
		s := v.At(host, port)
		return s != nil && s.Host == host && mayBeHTTP(s.Port(port).Protocol)
	})
}

func mayBeHTTP(p model.Protocol) bool { return p.IsHTTP() || p == model.Auto }

func (v *View) rulesHTTP(set *model.RouteSet, at Place) bool {
	return slices.ContainsFunc(set.HTTP, func(r model.HTTPRoute) bool {
		return len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, func(m model.HTTPMatch) bool { return v.Takes(&m, at) })
	})
}

func (v *View) rulesTCP(set *model.RouteSet, at Place) bool {
	return slices.ContainsFunc(set.TCP, func(r model.TCPRoute) bool { return len(r.Matches) == 0 || v.takesOne(r.Matches, at) })
}

func (v *View) rulesTLS(set *model.RouteSet, at Place) bool {
	return slices.ContainsFunc(set.TLS, func(r model.TLSRoute) bool { return v.takesOne(r.Matches, at) })
}

func (v *View) takesOne(matches []model.L4Match, at Place) bool {
	return slices.ContainsFunc(matches, func(m model.L4Match) bool { return v.TakesL4(m, at) })
}

// Takes evaluates what a match says about the client and the port; as in Istio, naming gateways makes it say nothing of labels.
func (v *View) Takes(m *model.HTTPMatch, at Place) bool {
	if m.Port != 0 && m.Port != at.Port || !at.Takes(m.Gateways, m.Mesh) {
		return false
	}
	if len(m.Gateways) > 0 || m.Mesh {
		return true
	}
	return v.isSource(m.SourceLabels, m.SourceNamespace)
}

// TakesL4 evaluates the parts of a match that are about the client and the port rather than the connection.
func (v *View) TakesL4(m model.L4Match, at Place) bool {
	if m.Port != 0 && m.Port != at.Port || !at.Takes(m.Gateways, m.Mesh) {
		return false
	}
	if len(m.Gateways) > 0 {
		return true
	}
	return v.isSource(m.SourceLabels, m.SourceNamespace)
}

func (v *View) isSource(labels map[string]string, namespace string) bool {
	return model.Selects(labels, v.node.Labels) && (namespace == "" || namespace == v.node.Namespace)
}
