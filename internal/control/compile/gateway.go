package compile

import (
	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addGateways puts gateways into the mesh. When two open one port of the same workloads for different protocols, the younger is
// refused.
func (c *compiler) addGateways() {
	for _, kind := range []string{"Gateway.istio", "Gateway.k8s", "Ingress"} {
		for _, p := range c.byKind[kind] {
			if g, ok := c.ourGateway(p); ok && !c.collides(p) {
				c.resolveCredentials(p, c.gatewayNamespaces(g))
				c.mesh.Gateways = append(c.mesh.Gateways, g)
				c.owner[g] = p
			}
		}
	}
}

// ourGateway leaves out gateways that belong to another implementation.
func (c *compiler) ourGateway(p *part) (*model.Gateway, bool) {
	switch p.Ref().Kind {
	case "Gateway.k8s":
		return c.apiGatewayOf(p)
	case "Ingress":
		return c.ingressGateway(p)
	}
	return p.Gateway, p.Gateway != nil
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
