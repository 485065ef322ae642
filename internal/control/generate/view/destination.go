package view

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// Destination finds the DestinationRule of a service for this node. Several count as one: the first policy, all subsets.
func (v *View) Destination(s *model.Service) *model.Destination {
	client := model.Client{Namespace: v.node.Namespace, Labels: v.node.Labels}
	return merged(client.Rules(v.mesh.Settings().RootNamespace, s.Namespace, v.mesh.Destinations(s.Host)))
}

func merged(list []*model.Destination) *model.Destination {
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 {
		return list[0]
	}
	out := *list[0]
	out.Subsets = slices.Clone(out.Subsets)
	known := map[string]bool{}
	for _, s := range out.Subsets {
		known[s.Name] = true
	}
	for _, d := range list[1:] {
		had := len(out.Subsets)
		for _, s := range d.Subsets {
			if !known[s.Name] {
				out.Subsets = append(out.Subsets, s)
			}
		}
		for _, s := range out.Subsets[had:] {
			known[s.Name] = true
		}
		if out.Policy.IsZero() {
			out.Policy = d.Policy
		}
	}
	return &out
}

// Subset finds a subset by name; nil when there is none.
func Subset(d *model.Destination, name string) *model.Subset {
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

// Policy gives the policy of one port of a destination, or of a subset of it, with what it inherits from the mesh's settings: whole
// blocks where the rules have none, and single values where the block says nothing of them.
func (v *View) Policy(d *model.Destination, s *model.Subset, port uint16) model.TrafficPolicy {
	p, mesh := TrafficPolicy(d, s, port), v.mesh.Settings()
	if p.Outlier == nil {
		p.Outlier = mesh.Outlier
	}
	p.Pool = inheritPool(p.Pool, mesh)
	if mesh.Locality != nil && (p.Balancing == nil || p.Balancing.Locality == nil) {
		b := model.Balancing{}
		if p.Balancing != nil {
			b = *p.Balancing
		}
		b.Locality = mesh.Locality
		p.Balancing = &b
	}
	return p
}

// inheritPool completes a connection pool; nil stays nil where the mesh has nothing to add.
func inheritPool(own *model.ConnectionPool, mesh *model.Settings) *model.ConnectionPool {
	if own == nil {
		own = mesh.Pool
	}
	keepAlive := mesh.KeepAlive != nil && (own == nil || own.KeepAlive == nil)
	upgrade := mesh.UpgradeHTTP2 && (own == nil || !own.UpgradeHTTP2 && !own.KeepHTTP1)
	if !keepAlive && !upgrade {
		return own
	}
	p := model.ConnectionPool{}
	if own != nil {
		p = *own
	}
	if keepAlive {
		p.KeepAlive = mesh.KeepAlive
	}
	p.UpgradeHTTP2 = p.UpgradeHTTP2 || upgrade
	return &p
}

// Retries are those of a route: its own, or else the mesh's; nil for the built-in ones.
func (v *View) Retries(own *model.Retries) *model.Retries {
	if own == nil {
		return v.mesh.Settings().Retries
	}
	return own
}

// TrafficPolicy gives the policy of one port of a destination, or of a subset of it. A subset inherits what it does not set; the
// settings of a port replace all others, as Istio documents it.
func TrafficPolicy(d *model.Destination, s *model.Subset, port uint16) model.TrafficPolicy {
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
