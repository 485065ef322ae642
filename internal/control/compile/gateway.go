package compile

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addGateways puts gateways into the mesh. When two open one port of the same workloads for different protocols, the younger is
// refused.
func (c *compiler) addGateways() {
	for _, p := range c.byKind["Gateway.istio"] {
		c.addGateway(p, p.Gateway)
	}
	for _, p := range c.byKind["Gateway.k8s"] {
		c.openGateway(p)
	}
	for _, p := range c.byKind[listenerSetKind] {
		c.openListenerSet(p)
	}
	for _, p := range c.byKind["Ingress"] {
		if g, ok := c.ingressGateway(p); ok {
			c.addGateway(p, g)
		}
	}
}

func (c *compiler) addGateway(p *part, g *model.Gateway) {
	if g == nil || c.collides(p) {
		return
	}
	c.resolveCredentials(p, c.gatewayNamespaces(g))
	c.mesh.Gateways = append(c.mesh.Gateways, g)
	c.owner[g] = p
}

// announcesOtherwise refuses a Gateway of the Gateway API one of whose ports an older gateway opens with another PROXY protocol.
func (c *compiler) announcesOtherwise(p *part) bool {
	for _, other := range c.mesh.Gateways {
		for _, theirs := range other.Servers {
			same := slices.ContainsFunc(p.Listeners, func(l *convert.APIListener) bool { return l.Server.Port == theirs.Port })
			if owner := c.owner[other]; same && overlap(other, p.Gateway) && other.ProxyProtocol != p.Gateway.ProxyProtocol && owner != p {
				if p.Kind.Name == listenerSetKind && other.Ref.Kind != "Gateway.istio" {
					continue // it takes that of its Gateway
				}
				p.Err("PortCollision", convert.Key("metadata.annotations", convert.ProxyProtocolAnnotation), "say the same of both",
					"port %d is also opened by %s, which says otherwise of the PROXY protocol", theirs.Port, owner.Ref())
				return true
			}
		}
	}
	return false
}

// collides compares a gateway with the older ones.
func (c *compiler) collides(p *part) bool {
	for _, other := range c.mesh.Gateways {
		if !overlap(other, p.Gateway) {
			continue
		}
		for _, theirs := range other.Servers {
			for i, s := range p.Gateway.Servers {
				if s.Port != theirs.Port || theirs.Bind != s.Bind {
					continue
				}
				if other.ProxyProtocol != p.Gateway.ProxyProtocol {
					p.Err("PortCollision", convert.Key("metadata.annotations", convert.ProxyProtocolAnnotation), "say the same of both",
						"port %d is also opened by %s, which says otherwise of the PROXY protocol", s.Port, c.owner[other].Ref())
					return true
				}
				if a, b := convert.PortUse(theirs), convert.PortUse(s); a != b || a == "TCP" {
					owner := c.owner[other]
					p.Err("PortCollision", convert.At(p.ServersField(), i)+".port", "use another port, or other gateway workloads",
						"port %d is for %s here, and for %s in %s, which is in force", s.Port, b, a, owner.Ref())
					owner.Warn("PortCollision", "", "use another port, or other gateway workloads",
						"%s, which is refused, wants port %d for %s", p.Ref(), s.Port, b)
					return true
				}
			}
		}
	}
	return false
}

// overlap reports whether one workload may serve both gateways, as far as their selectors tell.
func overlap(a, b *model.Gateway) bool {
	if a.SelectorNamespace != "" && b.SelectorNamespace != "" && a.SelectorNamespace != b.SelectorNamespace {
		return false
	}
	for k, v := range a.Selector {
		if w, ok := b.Selector[k]; ok && v != w {
			return false
		}
	}
	return true
}
