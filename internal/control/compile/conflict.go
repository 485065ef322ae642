package compile

import (
	"slices"
	"strconv"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// age says why one of two objects goes before the other where age decides.
func age(first, other *source.Object) string {
	if first.Born.Equal(other.Born) {
		return "as old and first by name"
	}
	return "older"
}

// claimTCP reports a rule of a VirtualService for all connections of a server that an older one has.
func (c *compiler) claimTCP(p *part, s *model.Server, where string) {
	for _, r := range p.Routes.TCP {
		all := len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, func(m model.L4Match) bool {
			return len(m.DestinationSubnets) == 0 && len(m.SourceLabels) == 0 && len(m.Gateways) == 0 && (m.Port == 0 || m.Port == s.Port)
		})
		if !all {
			continue
		}
		const hint = "put the destinations into one object"
		for _, older := range c.claim(&bid{place: topic{onPlace, "connections", where, ""}, routes: p.Routes, field: r.Field}) {
			if older.unit == c.unit {
				break
			}
			if outdoes(older.routes, p.Routes) {
				by := c.about(older.object)
				p.Warn("DuplicateHost", r.Field, hint, "%s, which is %s, has all connections of %s: the rule gets none of them", by.Ref(), age(older.object, p.Object), where)
				by.Warn("DuplicateHost", older.field, hint, "%s also asks for all connections of %s, and gets none of them", p.Ref(), where)
				break
			}
			if outdoes(p.Routes, older.routes) {
				by := c.about(older.object)
				by.Warn("DuplicateHost", older.field, hint, "%s, whose exportTo is narrower, has all connections of %s: the rule gets none of them", p.Ref(), where)
				p.Warn("DuplicateHost", r.Field, hint, "%s also asks for all connections of %s, and gets none of them", by.Ref(), where)
			}
		}
		return
	}
}

// tellEnding reports a rule for connections by a server name for which a server of another gateway ends TLS.
func (c *compiler) tellEnding(p *part, cl *matching.Claim, g *model.Gateway, port uint16) {
	const hint = "use another host, or remove one of them"
	name := cl.Place.Host
	for _, other := range c.ending(port, name) {
		ref := other.object.Ref()
		if t := c.gateway(model.GatewayRef{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}); t == nil || !overlap(t, g) {
			continue
		}
		p.Warn("DuplicateHost", cl.Field, hint, "%s ends TLS for %s at port %d of the same workloads: the older of it and %s gets the connections", ref, name, port, g.Ref)
		c.about(other.object).Warn("DuplicateHost", other.field, hint, "%s passes TLS for %s at port %d on, through %s: the older Gateway gets the connections", p.Ref(), name, port, g.Ref)
	}
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
