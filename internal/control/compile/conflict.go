package compile

import (
	"slices"
	"strconv"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// claimConnections reports rules of a VirtualService for connections that an older one has at the same server of a gateway, and those
// for server names for which a server ends TLS there.
func (c *compiler) claimConnections(p *part) {
	for _, ref := range p.Routes.Gateways {
		g := c.gateway(ref)
		if g == nil {
			continue
		}
		for i := range g.Servers {
			s := &g.Servers[i]
			if !serverTakes(s, p.GetNamespace(), p.Routes.Hosts...) {
				continue
			}
			where := "server " + s.Name + " (port " + strconv.Itoa(int(s.Port)) + ") of " + g.Ref.String()
			if s.TLS == nil || s.TLS.Mode != model.TLSPassthrough {
				c.claimTCP(p, s, where)
			} else {
				c.claimNames(p, g, s, where)
			}
		}
	}
}

func (c *compiler) claimTCP(p *part, s *model.Server, where string) {
	if s.Protocol != model.TCP && s.Protocol != model.TLS {
		return
	}
	for _, r := range p.Routes.TCP {
		all := len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, func(m model.L4Match) bool {
			return len(m.DestinationSubnets) == 0 && len(m.SourceLabels) == 0 && len(m.Gateways) == 0 && (m.Port == 0 || m.Port == s.Port)
		})
		if all {
			c.claimConnection(p, topic{onPlace, "connections", where, ""}, r.Field, "all connections", where)
			return
		}
	}
}

func (c *compiler) claimNames(p *part, g *model.Gateway, s *model.Server, where string) {
	const hint = "use another host, or remove one of them"
	for _, r := range p.Routes.TLS {
		for _, m := range r.Matches {
			if len(m.DestinationSubnets) > 0 || len(m.Gateways) > 0 || m.Port != 0 && m.Port != s.Port {
				continue
			}
			for _, name := range m.SNIHosts {
				c.claimConnection(p, topic{onPlace, "connections", where, name}, r.Field, "the connections for "+name, where)
				for _, other := range c.ending(s.Port, name) {
					ref := other.object.Ref()
					if t := c.gateway(model.GatewayRef{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}); t == nil || !overlap(t, g) {
						continue
					}
					p.Warn("DuplicateHost", r.Field, hint, "%s ends TLS for %s at port %d of the same workloads: the older of it and %s gets the connections", ref, name, s.Port, g.Ref)
					c.about(other.object).Warn("DuplicateHost", other.field, hint, "%s passes TLS for %s at port %d on, through %s: the older Gateway gets the connections", p.Ref(), name, s.Port, g.Ref)
				}
			}
		}
	}
}

func (c *compiler) claimConnection(p *part, place topic, field, what, where string) {
	const hint = "put the destinations into one object"
	list := c.claim(&bid{place: place, field: field})
	if len(list) == 0 || list[0].unit == c.unit {
		return
	}
	older := list[0]
	p.Warn("DuplicateHost", field, hint, "%s, which is older, has %s of %s: the rule gets none of them", older.object.Ref(), what, where)
	c.about(older.object).Warn("DuplicateHost", older.field, hint, "%s also asks for %s of %s, and gets none of them", p.Ref(), what, where)
}

func endingPlace(port uint16, host string) topic {
	return topic{onPlace, "ending TLS", strconv.Itoa(int(port)), host}
}

// ending gives the gateways of which a server ends TLS for a host at a port.
func (c *compiler) ending(port uint16, host string) []*bid {
	place := endingPlace(port, host)
	c.read(place)
	return c.state.places[place]
}

// tellBackendTLS reports BackendTLSPolicies for the host of a rule which asks for TLS itself.
func (c *compiler) tellBackendTLS(p *part) {
	rule, ok := p.Kube.(*networking.DestinationRule)
	s := c.service(p.Destination.Host)
	if !ok || s == nil || s.Ref.Kind != "Service" {
		return
	}
	ports := map[uint16]string{}
	asks := func(t *networkingapi.TrafficPolicy, field string) {
		if t.GetTls() != nil && ports[0] == "" {
			ports[0] = field + ".trafficPolicy.tls"
		}
		for i, pl := range t.GetPortLevelSettings() {
			if n := uint16(pl.GetPort().GetNumber()); pl.GetTls() != nil && n != 0 && ports[n] == "" {
				ports[n] = parts.At(field+".trafficPolicy.portLevelSettings", i) + ".tls"
			}
		}
	}
	asks(rule.Spec.TrafficPolicy, "spec")
	for i, subset := range rule.Spec.Subsets {
		asks(subset.TrafficPolicy, parts.At("spec.subsets", i))
	}
	if len(ports) == 0 {
		return
	}
	for _, r := range c.ask(topic{about: onTarget, a: s.Host}) {
		policy, ok := r.Kube.(*gatewayv1.BackendTLSPolicy)
		if !ok {
			continue
		}
		for i, target := range policy.Spec.TargetRefs {
			if !isService(target) || parts.ServiceHost(string(target.Name), policy.Namespace, c.settings) != s.Host {
				continue
			}
			for _, port := range parts.SortedKeys(ports) {
				if own := portNamed(s, parts.OrEmpty(target.SectionName)); port == 0 || own == 0 || own == port {
					const hint = "say it in one of them"
					p.Warn("DuplicatePolicy", ports[port], hint, "%s asks for TLS to %s too: for the clients that this rule is for, the rule's counts", r.Ref(), s.Host)
					c.about(r.Object).Warn("DuplicatePolicy", parts.At("spec.targetRefs", i), hint, "%s has TLS settings for the same: for the clients that it is for, they count in place of the policy's", p.Ref())
					break
				}
			}
		}
	}
}
