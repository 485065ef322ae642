package generate

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// destination finds the DestinationRule of a service for this node: of the client's namespace, else of the service's, else of the
// root namespace; within one, that of the most specific host. Several for one host count as one: the first policy, all subsets.
func (g *Generator) destination(s *model.Service) *model.Destination {
	root := g.mesh.Settings().RootNamespace
	namespaces := []string{g.node.Namespace, s.Namespace, root}
	if g.node.Namespace == root {
		namespaces = namespaces[1:]
	}
	for _, ns := range namespaces {
		if d := g.destinationIn(ns, s.Host); d != nil {
			return d
		}
	}
	return nil
}

func (g *Generator) destinationIn(namespace, host string) *model.Destination {
	for list := range g.mesh.Destinations(host) {
		if d := g.mergedDestination(namespace, list); d != nil {
			return d
		}
	}
	return nil
}

func (g *Generator) mergedDestination(namespace string, list []*model.Destination) *model.Destination {
	// A rule that selects this client counts instead of those for all.
	var out *model.Destination
	var subsets map[string]bool // of out, once it is merged of several
	selects := func(d *model.Destination) bool {
		return d.Selector != nil && d.Ref.Namespace == g.node.Namespace && subsetOf(d.Selector, g.node.Labels)
	}
	selected := slices.ContainsFunc(list, func(d *model.Destination) bool { return d.Ref.Namespace == namespace && selects(d) })
	for _, d := range list {
		if d.Ref.Namespace != namespace || !d.ExportTo.VisibleFrom(d.Ref.Namespace, g.node.Namespace) {
			continue
		}
		if selected && !selects(d) || !selected && d.Selector != nil {
			continue
		}
		if out == nil {
			out = d
			continue
		}
		if subsets == nil {
			merged := *out
			merged.Subsets = slices.Clone(out.Subsets)
			out, subsets = &merged, map[string]bool{}
			for _, s := range out.Subsets {
				subsets[s.Name] = true
			}
		}
		had := len(out.Subsets)
		for _, s := range d.Subsets {
			if !subsets[s.Name] {
				out.Subsets = append(out.Subsets, s)
			}
		}
		for _, s := range out.Subsets[had:] {
			subsets[s.Name] = true
		}
		if out.Policy.IsZero() {
			out.Policy = d.Policy
		}
	}
	return out
}

// subset finds a subset by name; nil when there is none.
func subset(d *model.Destination, name string) *model.Subset {
	if d == nil {
		return nil
	}
	for i := range d.Subsets {
		if d.Subsets[i].Name == name {
			return &d.Subsets[i]
		}
	}
	return nil
}

// trafficPolicy gives the policy of one port of a destination, or of a subset of it. A subset inherits what it does not set; the
// settings of a port replace all others, as Istio documents it.
func trafficPolicy(d *model.Destination, s *model.Subset, port uint16) model.TrafficPolicy {
	if d == nil {
		return model.TrafficPolicy{}
	}
	p := forPort(d.Policy, port)
	if s == nil || s.Policy == nil {
		return p
	}
	if s.Policy.Balancing != nil {
		p.Balancing = s.Policy.Balancing
	}
	if s.Policy.Pool != nil {
		p.Pool = s.Policy.Pool
	}
	if s.Policy.Outlier != nil {
		p.Outlier = s.Policy.Outlier
	}
	if s.Policy.TLS != nil {
		p.TLS = s.Policy.TLS
	}
	if s.Policy.ProxyProtocol != 0 {
		p.ProxyProtocol = s.Policy.ProxyProtocol
	}
	if s.Policy.RetryBudget != nil {
		p.RetryBudget = s.Policy.RetryBudget
	}
	if s.Policy.Tunnel != nil {
		p.Tunnel = s.Policy.Tunnel
	}
	if own := s.Policy.Ports[port]; own != nil {
		return portPolicy(own, p)
	}
	return p
}

func forPort(p model.TrafficPolicy, port uint16) model.TrafficPolicy {
	if own := p.Ports[port]; own != nil {
		return portPolicy(own, p)
	}
	return p
}

// portPolicy is that of a port, with what can only be said for all ports.
func portPolicy(own *model.TrafficPolicy, all model.TrafficPolicy) model.TrafficPolicy {
	p := *own
	p.ProxyProtocol, p.RetryBudget, p.Tunnel = all.ProxyProtocol, all.RetryBudget, all.Tunnel
	return p
}
