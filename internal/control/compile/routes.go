package compile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinRoute makes the routes of one object, and reports what they name and nobody has.
func (c *compiler) joinRoute(u *unit) {
	p := c.own(u.rec)
	var sets []*model.RouteSet
	switch k := p.Kube.(type) {
	case *networkingv1.Ingress:
		if c.hasGateway(model.GatewayRef{Kind: "Ingress", Namespace: k.Namespace, Name: k.Name}) {
			sets = c.ingressRoutes(p, k)
		}
	case *gatewayv1.HTTPRoute, *gatewayv1.GRPCRoute, *gatewayv1.TLSRoute, *gatewayv1.TCPRoute, *gatewayv1.UDPRoute:
		sets = c.linkAPIRoute(p)
	case *networking.VirtualService:
		sets = c.virtualService(p, &k.Spec)
	}
	c.claimAtGateways(p, sets)
	c.state.setRoutes(u, sets)
}

// virtualService makes the routes of a VirtualService; none where it has no hosts: those are for others to delegate to.
func (c *compiler) virtualService(p *part, spec *networkingapi.VirtualService) []*model.RouteSet {
	c.linkVirtualService(p, spec)
	if len(p.Routes.Hosts) == 0 {
		c.undelegated(p)
		return nil
	}
	c.delegate(p, spec)
	c.checkUnnamedPorts(p)
	if p.Routes.Mesh {
		reach := reachOf(p.Routes)
		for i, host := range spec.Hosts {
			c.rule(p, p.FullHost(host), p.Routes, reach, parts.At("spec.hosts", i))
		}
	}
	return []*model.RouteSet{p.Routes}
}

// setRoutes puts the routes of an object into the mesh.
func (k *Compiler) setRoutes(u *unit, sets []*model.RouteSet) {
	if reflect.DeepEqual(u.sets, sets) {
		return
	}
	k.touch(u)
	u.sets = sets
	k.touch(u)
	k.enqueue(u.rec.contest)
}

// touch says that what a unit has put into a list of the mesh differs from before.
func (k *Compiler) touch(u *unit) {
	for _, rs := range u.sets {
		k.changed.routes = true
		k.touchRoutes(rs)
	}
	if p := u.peer; p != nil {
		k.changed.peers = true
		k.delta.Policies[p.Namespace] = true
	}
	if p := u.policy; p != nil {
		k.changed.policies = true
		k.delta.Policies[p.Namespace] = true
	}
	if l := u.limit; l != nil {
		k.changed.limits = true
		k.delta.Policies[l.Namespace] = true
	}
	if s := u.sidecar; s != nil {
		k.changed.sidecars = true
		k.delta.Sidecars[s.Namespace] = true
	}
	if p := u.proxy; p != nil {
		k.changed.proxies = true
		k.delta.Policies[p.Namespace] = true
	}
}

func (k *Compiler) touchRoutes(rs *model.RouteSet) {
	if rs.Mesh {
		for _, h := range rs.Hosts {
			k.delta.Routes[h] = true
		}
	}
	for _, g := range rs.Gateways {
		k.delta.Gateways[model.Ref{Kind: g.Kind, Namespace: g.Namespace, Name: g.Name}] = true
	}
}

// linkVirtualService reports gateways, destinations and ports that are not there.
func (c *compiler) linkVirtualService(p *part, spec *networkingapi.VirtualService) {
	c.linkGateways(p, spec.Gateways, "spec.gateways")
	for i, r := range spec.Http {
		for j, m := range r.Match {
			c.linkGateways(p, m.Gateways, parts.At(parts.At("spec.http", i)+".match", j)+".gateways")
		}
		c.linkHTTPDestinations(p, r, &p.Routes.HTTP[i])
	}
	for _, r := range p.Routes.TCP {
		c.linkDestinations(p, r.Destinations, r.Field, closed)
		c.linkTunnels(p, r.Destinations, r.Field)
	}
	for _, r := range p.Routes.TLS {
		c.linkDestinations(p, r.Destinations, r.Field, closed)
		c.linkTunnels(p, r.Destinations, r.Field)
	}
	if p.Routes.Mesh {
		c.checkProtocols(p)
	}
}

func (c *compiler) linkHTTPDestinations(p *part, r *networkingapi.HTTPRoute, out *model.HTTPRoute) {
	c.linkDestinations(p, out.Destinations, out.Field, unavailable)
	for i, m := range out.Mirrors {
		field := parts.At(out.Field+".mirrors", i) + ".destination"
		if r.Mirror != nil {
			field = out.Field + ".mirror"
		}
		c.linkDestination(p, m.Destination, field, unmirrored)
	}
}

func (c *compiler) linkDestinations(p *part, list []model.WeightedDestination, field, fate string) {
	for i, d := range list {
		c.linkDestination(p, d, parts.At(field+".route", i)+".destination", fate)
	}
}

// linkTunnels reports destinations of one route that are reached through other tunnels than the first: a route has one.
func (c *compiler) linkTunnels(p *part, list []model.WeightedDestination, field string) {
	if len(list) < 2 {
		return
	}
	first := c.tunnel(list[0], p.GetNamespace())
	for i, d := range list[1:] {
		if t := c.tunnel(d, p.GetNamespace()); d.Weight > 0 && !reflect.DeepEqual(first, t) {
			p.Warn("ConflictingFields", parts.At(field+".route", i+1)+".destination", "give their DestinationRules the same tunnel, or write a route for each",
				"%s is reached through another tunnel than the route's first destination, or through none: its connections fail", d.Host)
		}
	}
}

// tunnel is that of the first DestinationRule for a destination that is visible in a namespace.
func (c *compiler) tunnel(d model.WeightedDestination, namespace string) *model.Tunnel {
	for _, host := range covering(d.Host) {
		for _, dest := range c.destinations(host) {
			if !dest.ExportTo.VisibleFrom(dest.Ref.Namespace, namespace) {
				continue
			}
			for _, s := range dest.Subsets {
				if s.Name == d.Subset && s.Policy != nil && s.Policy.Tunnel != nil {
					return s.Policy.Tunnel
				}
			}
			return dest.Policy.Tunnel
		}
	}
	return nil
}

func (c *compiler) linkGateways(p *part, names []string, field string) {
	for i, name := range names {
		refs, _ := p.GatewayRefs([]string{name})
		for _, ref := range refs {
			c.linkGateway(p, ref, parts.At(field, i))
		}
	}
}

func (c *compiler) linkGateway(p *part, ref model.GatewayRef, field string) {
	g := c.gateway(ref)
	if g == nil {
		p.Warn("GatewayNotFound", field, "name it as namespace/name when it is in another namespace",
			"there is no Gateway %s/%s: routes for it have no effect", ref.Namespace, ref.Name)
		return
	}
	for i, host := range p.Routes.Hosts {
		if !takesHost(g, p.GetNamespace(), host) {
			p.Warn("GatewayHostMismatch", parts.At("spec.hosts", i), "add it to the Gateway's hosts", "Gateway %s/%s does not take host %s of namespace %s: these rules have no effect there",
				ref.Namespace, ref.Name, host, p.GetNamespace())
		}
	}
}

// takesHost reports whether a gateway has a server for one of some hosts, or for a part of a wildcard, with routes of a namespace.
func takesHost(g *model.Gateway, namespace string, hosts ...string) bool {
	return slices.ContainsFunc(g.Servers, func(s model.Server) bool { return serverTakes(&s, namespace, hosts...) })
}

func serverTakes(s *model.Server, namespace string, hosts ...string) bool {
	for _, h := range s.Hosts {
		if (h.Namespace == "" || h.Namespace == namespace) && slices.ContainsFunc(hosts, func(host string) bool {
			_, ok := parts.HostsMeet(h.Host, host)
			return ok
		}) {
			return true
		}
	}
	return false
}

// What becomes, as in Istio, of what a VirtualService leads to a destination that is not there.
const (
	unavailable = "requests for it get 503"
	closed      = "connections for it are closed"
	unmirrored  = "nothing is mirrored there"
)

// linkDestination reports a host, port or subset that is not there; fate says what becomes of what is for it.
func (c *compiler) linkDestination(p *part, d model.WeightedDestination, field, fate string) {
	s := c.serviceFor(d.Host, p.GetNamespace())
	if s == nil {
		s = c.wildcardService(d.Host).For(p.GetNamespace(), nil)
	}
	if s == nil || !s.ExportTo.VisibleFrom(s.Namespace, p.GetNamespace()) {
		p.Warn("HostNotFound", field+".host", c.hostHint(d.Host, p.GetNamespace()), "there is no service %s: %s", d.Host, fate)
		return
	}
	if behind := c.behind(s, p.GetNamespace()); behind != s {
		s, d.Host = behind, behind.Host
	}
	if d.Port != 0 && s.Port(d.Port) == nil {
		p.Warn("PortNotFound", field+".port.number", "", "service %s has no port %d (it has %s): %s", d.Host, d.Port, portList(s), fate)
	}
	if d.Subset != "" && c.definer(d, p.GetNamespace()) == nil {
		why, hint := "no DestinationRule defines subset %q of %s", "define it in a DestinationRule for "+d.Host
		if dest := c.unexported(d); dest != nil {
			why = "DestinationRule " + dest.Ref.Namespace + "/" + dest.Ref.Name + " defines subset %q of %s and is not exported to this namespace"
			hint = "name the namespace in its exportTo, or d" + hint[1:]
		}
		p.Warn("SubsetNotFound", field+".subset", hint, why+": %s", d.Subset, d.Host, fate)
	}
}

// checkUnnamedPorts reports destinations without a port whose service has several and none with the number of a port that requests
// come to.
func (c *compiler) checkUnnamedPorts(p *part) {
	for _, r := range p.Routes.HTTP {
		var only []uint16
		for _, m := range r.Matches {
			only = append(only, m.Port)
		}
		c.checkUnnamed(p, r.Destinations, r.Field, only, true)
	}
	l4 := func(list []model.WeightedDestination, field string, matches []model.L4Match) {
		var only []uint16
		for _, m := range matches {
			only = append(only, m.Port)
		}
		c.checkUnnamed(p, list, field, only, false)
	}
	for _, r := range p.Routes.TCP {
		l4(r.Destinations, r.Field, r.Matches)
	}
	for _, r := range p.Routes.TLS {
		l4(r.Destinations, r.Field, r.Matches)
	}
}

// checkUnnamed does so for a rule, which is for some ports alone where each of its matches names one.
func (c *compiler) checkUnnamed(p *part, list []model.WeightedDestination, field string, only []uint16, requests bool) {
	what, fate := "connections", "are closed"
	if requests {
		what, fate = "requests", "get 503"
	}
	for i, d := range list {
		s := c.serviceFor(d.Host, p.GetNamespace())
		if s != nil {
			s = c.behind(s, p.GetNamespace())
		}
		if d.Port != 0 || s == nil || len(s.Ports) < 2 {
			continue
		}
		var missing []model.Port
		for _, port := range c.entryPorts(p, requests) {
			if s.Port(port) == nil && (len(only) == 0 || slices.Contains(only, 0) || slices.Contains(only, port)) {
				missing = append(missing, model.Port{Number: port})
			}
		}
		if len(missing) > 0 {
			p.Warn("PortNotFound", parts.At(field+".route", i)+".destination.port", "write port.number", "without a port, it is the one that %s came to, and service %s has none of %s (it has %s): they %s",
				what, d.Host, listPorts(missing), portList(s), fate)
		}
	}
}

// entryPorts gives the ports, in order, at which requests, or other connections, come to the rules of a VirtualService: those of gateways,
// and in sidecars those of the services that it is for.
func (c *compiler) entryPorts(p *part, requests bool) []uint16 {
	var ports []uint16
	for _, ref := range p.Routes.Gateways {
		g := c.gateway(ref)
		if g == nil {
			continue
		}
		for i := range g.Servers {
			if s := &g.Servers[i]; carriesRequests(s) == requests && !s.HTTPSRedirect && serverTakes(s, p.GetNamespace(), p.Routes.Hosts...) {
				ports = append(ports, s.Port)
			}
		}
	}
	for _, host := range p.Routes.Hosts {
		s := c.serviceFor(host, p.GetNamespace())
		if !p.Routes.Mesh || s == nil {
			continue
		}
		for _, port := range s.Ports {
			if port.Protocol == model.Auto || port.Protocol.IsHTTP() == requests {
				ports = append(ports, port.Number)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// carriesRequests reports whether a server's connections are read as HTTP.
func carriesRequests(s *model.Server) bool {
	return s.Protocol.IsHTTP() || s.Protocol == model.HTTPS && s.TLS != nil && s.TLS.Mode != model.TLSPassthrough && s.TLS.Mode != model.TLSAutoPassthrough
}

func portList(s *model.Service) string { return listPorts(s.Ports) }

func listPorts(ports []model.Port) string {
	var list []string
	for _, p := range ports {
		list = append(list, fmt.Sprint(p.Number))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// definer finds a DestinationRule that is visible in a namespace and defines a destination's subset; nil where there is none. Whether it counts
// for all who follow the route is another question (see tellHidden).
func (c *compiler) definer(d model.WeightedDestination, namespace string) *model.Destination {
	for _, host := range covering(d.Host) {
		for _, dest := range c.destinations(host) {
			if dest.ExportTo.VisibleFrom(dest.Ref.Namespace, namespace) && findSubset(dest.Subsets, d.Subset) {
				return dest
			}
		}
	}
	return nil
}

// unexported finds a DestinationRule that defines a destination's subset for others only; nil where there is none.
func (c *compiler) unexported(d model.WeightedDestination) *model.Destination {
	for _, host := range covering(d.Host) {
		for _, dest := range c.destinations(host) {
			if findSubset(dest.Subsets, d.Subset) {
				return dest
			}
		}
	}
	return nil
}

// behind is the service that an ExternalName stands for, as view.Behind finds it; any other is itself.
func (c *compiler) behind(s *model.Service, namespace string) *model.Service {
	a := s
	for range maxAliases {
		if a.ExternalName == "" {
			return a
		}
		next := c.serviceFor(a.ExternalName, namespace)
		if next == nil || !next.ExportTo.VisibleFrom(next.Namespace, namespace) {
			break
		}
		a = next
	}
	return s
}

// maxAliases is how many aliases may follow one another.
const maxAliases = 8

// covering gives a host and the wildcards that take it in, the most specific first.
func covering(host string) []string {
	list := []string{host}
	for rest := strings.TrimPrefix(host, "*."); ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return append(list, "*")
		}
		list = append(list, "*."+parent)
		rest = parent
	}
}

// wildcardService finds a service whose wildcard host covers a host: the most specific one.
func (c *compiler) wildcardService(host string) *model.Service {
	for _, wildcard := range covering(host)[1:] {
		if s := c.service(wildcard); s != nil {
			return s
		}
	}
	return nil
}

// hostHint guesses which service a name was meant for.
func (c *compiler) hostHint(host, namespace string) string {
	if s := c.service(host + ".svc." + c.settings.ClusterDomain); s != nil {
		return "did you mean " + s.Host + "? A name with a dot is taken as it is"
	}
	short, _, _ := strings.Cut(host, ".")
	for _, name := range c.hostsNamed(short) {
		if s := c.service(name); s != nil && s.Namespace != namespace && s.Host != host {
			return "did you mean " + s.Host + "?"
		}
	}
	return ""
}

// checkProtocols warns when rules for requests are written for a service that carries none.
func (c *compiler) checkProtocols(p *part) {
	if len(p.Routes.HTTP) == 0 {
		return
	}
	for i, host := range p.Routes.Hosts {
		s := c.serviceFor(host, p.GetNamespace())
		if s == nil || len(s.Ports) == 0 {
			continue
		}
		if !slices.ContainsFunc(s.Ports, func(port model.Port) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto }) {
			p.Warn("HTTPRuleOnTCPPort", parts.At("spec.hosts", i), `name the port "http" or set its appProtocol, if it speaks HTTP`,
				"HTTP rules have no effect: no port of %s is declared as HTTP (%s)", host, protocolList(s))
			continue
		}
		for _, r := range p.Routes.HTTP {
			for _, m := range r.Matches {
				port := s.Port(m.Port)
				if m.Port != 0 && port != nil && !port.Protocol.IsHTTP() && port.Protocol != model.Auto {
					p.Warn("HTTPRuleOnTCPPort", m.Field+".port", `name the port "http" or set its appProtocol, if it speaks HTTP`,
						"it never matches: port %d of %s is declared as %s", m.Port, host, port.Protocol)
				}
			}
		}
	}
}

func protocolList(s *model.Service) string {
	var list []string
	for _, p := range s.Ports {
		list = append(list, fmt.Sprintf("%d is %s", p.Number, p.Protocol))
	}
	return strings.Join(list, ", ")
}

// rule records who rules a host in sidecars. Of two of which one counts wherever both may be used, and the other nowhere else, both are
// told. Routes of the Gateway API do not compete among themselves: they are merged. It reports whether the routes count.
func (c *compiler) rule(p *part, host string, routes *model.RouteSet, reach reach, field string) bool {
	own := &bid{place: hostPlace(host), routes: routes, reach: reach, field: field}
	for _, older := range c.claim(own) {
		merged := older.routes.ByPrecedence && routes.ByPrecedence
		switch {
		case !seenTogether(older.routes, routes):
			continue
		case older.unit == c.unit, merged && outdoes(older.routes, routes):
			return true
		case merged: // where the older one counts, which is not everywhere
			continue
		}
		switch {
		case outdoes(older.routes, routes):
			c.tellRuled(own, older, host, "which is "+age(older.object, own.object))
			return false
		case outdoes(routes, older.routes):
			c.tellRuled(older, own, host, "whose exportTo is narrower")
		}
	}
	return true
}

// tellRuled says of rules for a host in sidecars that others count in their place, and why.
func (c *compiler) tellRuled(lost, ruling *bid, host, why string) {
	const hint = "put the rules into one object"
	effect := "have no effect in sidecars"
	if ruling.reach.leaves(lost.reach) {
		effect = "count in sidecars only where the other object's leave out the client or the port"
	}
	loser, ruler := c.about(lost.object), c.about(ruling.object)
	loser.Warn("DuplicateHost", lost.field, hint, "host %s is already ruled by %s, %s: these rules %s", host, ruler.Ref(), why, effect)
	ruler.Warn("DuplicateHost", ruling.field, hint, "host %s is also named by %s, whose rules %s", host, loser.Ref(), effect)
}

// reach is which sorts of rules a set has, and which of them have one for every client and port.
type reach struct{ http, tcp, tls, allHTTP, allTCP, allTLS bool }

// leaves reports whether rules may lack one in a sidecar for which others have one.
func (r reach) leaves(other reach) bool {
	return other.http && !r.allHTTP || other.tcp && !r.allTCP || other.tls && !r.allTLS
}

func reachOf(set *model.RouteSet) reach {
	always := func(m model.L4Match) bool {
		return m.Port == 0 && len(m.SourceLabels) == 0 && m.SourceNamespace == "" && (len(m.Gateways) == 0 || m.Mesh)
	}
	return reach{http: len(set.HTTP) > 0, tcp: len(set.TCP) > 0, tls: len(set.TLS) > 0,
		allHTTP: slices.ContainsFunc(set.HTTP, func(r model.HTTPRoute) bool {
			return len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, func(m model.HTTPMatch) bool {
				return always(l4Match(&m))
			})
		}),
		allTCP: slices.ContainsFunc(set.TCP, func(r model.TCPRoute) bool { return len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, always) }),
		allTLS: slices.ContainsFunc(set.TLS, func(r model.TLSRoute) bool { return slices.ContainsFunc(r.Matches, always) }),
	}
}

func hostPlace(host string) topic { return topic{about: onPlace, a: "host", b: host} }

// rulers gives the routes that sidecars use for a host, to who does not compete with them.
func (c *compiler) rulers(host string) []*bid {
	c.read(hostPlace(host))
	return c.state.places[hostPlace(host)]
}

// seenTogether reports whether some namespace sees both.
func seenTogether(a, b *model.RouteSet) bool {
	return slices.ContainsFunc(namespacesOf(a, b), func(ns string) bool { return seenFrom(a, ns) && seenFrom(b, ns) })
}

// outdoes reports whether, in every namespace that sees the other of two sets for a host, one is seen too and goes first.
func outdoes(a, b *model.RouteSet) bool {
	return !slices.ContainsFunc(namespacesOf(a, b), func(ns string) bool {
		return seenFrom(b, ns) && (!seenFrom(a, ns) || a.CompareIn(ns, b) > 0)
	})
}

func seenFrom(s *model.RouteSet, ns string) bool { return s.ExportTo.VisibleFrom(s.Namespace, ns) }

// namespacesOf gives the namespaces that may see two sets otherwise than the rest does, for which "" stands.
func namespacesOf(a, b *model.RouteSet) []string {
	return slices.Concat([]string{a.Namespace, b.Namespace, ""}, a.ExportTo.Namespaces, b.ExportTo.Namespaces)
}
