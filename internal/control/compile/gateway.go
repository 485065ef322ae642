package compile

import (
	"reflect"
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// gatewayJoin is what the one unit of all gateways goes through.
type gatewayJoin struct {
	*compiler
	inForce []*model.Gateway
	owner   map[*model.Gateway]*part
}

// joinGateways makes all gateways: they compete for ports. When two open one port of the same workloads for different protocols, the
// younger is refused.
func (c *compiler) joinGateways(u *unit) {
	g := &gatewayJoin{compiler: c, owner: map[*model.Gateway]*part{}}
	for _, kind := range []string{"Gateway.istio", "Gateway.k8s", "Ingress"} {
		for _, r := range c.ofKind(kind) {
			p := c.own(r)
			if made, ok := c.ourGateway(p); ok && !g.collides(p) {
				c.resolveCredentials(p, c.gatewayNamespaces(made))
				g.inForce = append(g.inForce, made)
				g.owner[made] = p
			}
		}
	}
	c.state.setGateways(u, g.inForce)
}

// setGateways puts all gateways into the mesh, and passes on which differ from before.
func (k *Compiler) setGateways(u *unit, list []*model.Gateway) {
	old := k.inForce
	k.inForce = make(map[model.Ref]*model.Gateway, len(list))
	differs := func(ref model.Ref) {
		k.delta.Gateways[ref] = true
		k.dirty(topic{onGateway, ref.Kind, ref.Namespace, ref.Name})
	}
	for i, g := range list {
		if was := old[g.Ref]; was != nil && reflect.DeepEqual(was, g) {
			list[i] = was
		} else {
			differs(g.Ref)
		}
		k.inForce[g.Ref] = list[i]
	}
	for ref := range old {
		if k.inForce[ref] == nil {
			differs(ref)
		}
	}
	if !slices.Equal(u.opened, list) {
		u.opened = list
		k.changed.gateways = true
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
func (g *gatewayJoin) collides(p *part) bool {
	for _, other := range g.inForce {
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
						"port %d is also opened by %s, which says otherwise of the PROXY protocol", s.Port, g.owner[other].Ref())
					return true
				}
				if a, b := convert.PortUse(theirs), convert.PortUse(s); a != b || a == "TCP" {
					owner := g.owner[other]
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
