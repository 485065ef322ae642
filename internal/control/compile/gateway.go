package compile

import (
	"maps"
	"reflect"
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// gatewayJoin is what the one unit of all gateways goes through: they compete for ports.
type gatewayJoin struct {
	*compiler
	inForce []*model.Gateway
	owner   map[*model.Gateway]*part
	uses    map[uint16][]*use   // of what is in force, by port, the oldest first
	parts   map[model.Ref]*part // of Gateways of the Gateway API
	opened  map[model.Ref]*opened
	homes   map[model.Ref][]string // the namespaces of their workloads
	groups  map[*part][]*opened    // what adds listeners to a Gateway, in the order of precedence
}

// use is what the servers of a gateway make of a port. Of those that are the same to who competes with them, the first stands for all.
type use struct {
	gateway *model.Gateway
	server  *model.Server
}

// same reports whether no gateway competes with one and not with the other.
func (u *use) same(as *use) bool {
	a, b, s, t := u.gateway, as.gateway, u.server, as.server
	return a.SelectorNamespace == b.SelectorNamespace && maps.Equal(a.Selector, b.Selector) && a.Ref.Kind == b.Ref.Kind &&
		a.ProxyProtocol == b.ProxyProtocol && a.HTTP3 == b.HTTP3 && s.Bind == t.Bind && parts.PortUse(*s) == parts.PortUse(*t) &&
		(s.Protocol == model.UDP) == (t.Protocol == model.UDP) && s.TerminatesHTTPS() == t.TerminatesHTTPS()
}

// force puts a gateway in force.
func (c *gatewayJoin) force(g *model.Gateway, p *part) {
	c.inForce = append(c.inForce, g)
	c.owner[g] = p
	for i := range g.Servers {
		one := &use{g, &g.Servers[i]}
		if list := c.uses[one.server.Port]; !slices.ContainsFunc(list, one.same) {
			c.uses[one.server.Port] = append(list, one)
		}
	}
}

// joinGateways makes all gateways. When two open one port of the same workloads for different protocols, the younger is refused.
func (c *compiler) joinGateways(u *unit) {
	g := &gatewayJoin{compiler: c, owner: map[*model.Gateway]*part{}, uses: map[uint16][]*use{}, parts: map[model.Ref]*part{},
		opened: map[model.Ref]*opened{}, homes: map[model.Ref][]string{}, groups: map[*part][]*opened{}}
	all := slices.Concat(c.ofKind("Gateway.istio"), c.ofKind("Gateway.k8s"), c.ofKind("Ingress"))
	slices.SortStableFunc(all, func(a, b *record) int { return source.Older(a.Object, b.Object) })
	for _, r := range all {
		p := c.own(r)
		switch made, ours := c.ingressGateway(p); {
		case p.Kind.Name == "Ingress" && ours:
			g.addGateway(p, made)
		case p.Kind.Name == "Ingress":
		case p.Ref().Kind == "Gateway.k8s":
			g.parts[p.Ref()] = p
			g.openGateway(p)
		default:
			g.addGateway(p, p.Gateway)
		}
	}
	for _, r := range c.ofKind(listenerSetKind) { // whose listeners give way to those of Gateways
		g.openListenerSet(c.own(r))
	}
	for _, group := range g.groups {
		isolate(group)
	}
	g.tellShadowed()
	for _, o := range g.opened {
		o.group = g.groups[o.root]
	}
	c.state.setGateways(u, g)
}

// setGateways puts all gateways into the mesh, and passes on which differ from before.
func (k *Compiler) setGateways(u *unit, g *gatewayJoin) {
	old, oldOpened := k.inForce, k.opened
	k.inForce, k.opened, k.defaults = make(map[model.Ref]*model.Gateway, len(g.inForce)), g.opened, k.defaults[:0:0]
	var list []*model.Gateway
	for _, made := range g.inForce {
		if was := old[made.Ref]; was != nil && reflect.DeepEqual(was, made) {
			made = was
		} else {
			k.gatewayDiffers(made.Ref)
		}
		list = append(list, made)
		k.inForce[made.Ref] = made
		if o := g.opened[made.Ref]; o != nil && o.part == o.root && gatewayapi.IsDefaultGateway(o.part.Kube) {
			k.defaults = append(k.defaults, o)
		}
	}
	for ref := range old {
		if k.inForce[ref] == nil {
			k.gatewayDiffers(ref)
		}
	}
	for ref, homes := range g.homes {
		if !slices.Equal(homes, k.homes[ref]) {
			k.dirty(gatewayTopic(ref))
		}
	}
	k.homes = g.homes
	for ref, o := range g.opened {
		if !o.same(oldOpened[ref]) {
			k.dirty(gatewayTopic(ref))
		}
	}
	k.dirty(topic{about: onDefaults})
	if !slices.Equal(u.opened, list) {
		u.opened = list
		k.changed.gateways = true
	}
}

func gatewayTopic(ref model.Ref) topic { return topic{onGateway, ref.Kind, ref.Namespace, ref.Name} }

// gatewayDiffers passes on that a gateway came, went or is not as it was.
func (k *Compiler) gatewayDiffers(ref model.Ref) {
	k.delta.Gateways[ref] = true
	k.dirty(gatewayTopic(ref))
}

func (c *gatewayJoin) addGateway(p *part, g *model.Gateway) {
	if g == nil || c.collides(p) {
		return
	}
	c.homes[g.Ref] = c.workloadNamespaces(g)
	c.resolveCredentials(p, c.gatewayNamespaces(g, c.homes[g.Ref]))
	c.force(g, p)
}

// announcesOtherwise refuses a Gateway of the Gateway API one of whose ports an older gateway opens with another PROXY protocol.
func (c *gatewayJoin) announcesOtherwise(p *part) bool {
	for _, l := range p.Listeners {
		for _, theirs := range c.uses[l.Server.Port] {
			other := theirs.gateway
			if !overlap(other, p.Gateway) || other.ProxyProtocol == p.Gateway.ProxyProtocol {
				continue
			}
			if p.Kind.Name == listenerSetKind && other.Ref.Kind != "Gateway.istio" {
				continue // it takes that of its Gateway
			}
			p.Err("PortCollision", parts.Key("metadata.annotations", parts.ProxyProtocolAnnotation), "say the same of both",
				"port %d is also opened by %s, which says otherwise of the PROXY protocol", l.Server.Port, c.owner[other].Ref())
			c.owner[other].Warn("PortCollision", "", "say the same of both", "port %d is also asked for by %s, which says otherwise of the PROXY protocol and is refused", l.Server.Port, p.Ref())
			return true
		}
	}
	return false
}

// collides compares a gateway with the older ones.
func (c *gatewayJoin) collides(p *part) bool {
	for i := range p.Gateway.Servers {
		s := &p.Gateway.Servers[i]
		for _, theirs := range c.uses[s.Port] {
			other := theirs.gateway
			if theirs.server.Bind != s.Bind || !overlap(other, p.Gateway) {
				continue
			}
			owner := c.owner[other]
			if other.ProxyProtocol != p.Gateway.ProxyProtocol {
				p.Err("PortCollision", parts.Key("metadata.annotations", parts.ProxyProtocolAnnotation), "say the same of both",
					"port %d is also opened by %s, which says otherwise of the PROXY protocol", s.Port, owner.Ref())
				owner.Warn("PortCollision", "", "say the same of both", "port %d is also asked for by %s, which says otherwise of the PROXY protocol and is refused", s.Port, p.Ref())
				return true
			}
			if a, b := parts.PortUse(*theirs.server), parts.PortUse(*s); parts.Collide(*theirs.server, *s) {
				p.Err("PortCollision", parts.At(p.ServersField(), i)+".port", "use another port, or other gateway workloads",
					"port %d is for %s here, and for %s in %s, which is in force%s", s.Port, b, a, owner.Ref(), alone(a, b))
				owner.Warn("PortCollision", "", "use another port, or other gateway workloads",
					"%s, which is refused, wants port %d for %s", p.Ref(), s.Port, b)
				return true
			}
		}
	}
	return false
}

// alone says why two uses of a port that are the same exclude each other.
func alone(a, b string) string {
	if a != b {
		return ""
	}
	return ": connections do not say which of the two they are for"
}

// tellShadowed warns of servers that end TLS for a host for which an older gateway does it at the same port, and asks clients for
// something else: theirs is never asked. Those that ask for the same share their routes.
func (c *gatewayJoin) tellShadowed() {
	type place struct {
		port uint16
		host string
	}
	type server struct {
		gateway *model.Gateway
		*model.Server
	}
	first := map[place][]server{}
	for _, g := range c.inForce {
		for i := range g.Servers {
			s := server{g, &g.Servers[i]}
			if s.TLS == nil || s.TLS.Mode == model.TLSPassthrough || s.TLS.Mode == model.TLSAutoPassthrough {
				continue
			}
			for _, h := range s.Hosts {
				at := place{s.Port, h.Host}
				older := slices.IndexFunc(first[at], func(o server) bool {
					return o.gateway != g && overlap(o.gateway, g) && !model.AsksTheSame(o.Server, s.Server)
				})
				if older >= 0 {
					owner := c.owner[first[at][older].gateway]
					owner.Warn("DuplicateHost", owner.ServersField(), "use another host or port, or the same settings of TLS",
						"%s asks for other TLS for %s at port %d: what it says has no effect", c.owner[g].Ref(), h.Host, s.Port)
					c.owner[g].Warn("DuplicateHost", c.owner[g].ServersField(), "use another host or port, or the same settings of TLS",
						"%s at port %d is served by %s, which is %s, and asks for other TLS: what is said of it here has no effect", h.Host, s.Port, owner.Ref(), age(owner.Object, c.owner[g].Object))
				}
				first[at] = append(first[at], s)
				c.bid(&bid{place: endingPlace(s.Port, h.Host), object: c.owner[g].Object, field: c.owner[g].ServersField()})
			}
		}
	}
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
