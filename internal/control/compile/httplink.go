package compile

import (
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// linkAPIRoute makes a set of routes for each parent that takes a route of the Gateway API: each listener of a Gateway, and each
// Service.
func (c *compiler) linkAPIRoute(p *part) (sets []*model.RouteSet) {
	denied := c.linkBackends(p)
	if len(p.API.Parents) == 0 && !p.API.DefaultGateways {
		p.Warn("NoParent", "spec.parentRefs", "", "the route has no parent, and no effect")
	}
	for i, ref := range p.API.Parents {
		field := parts.At("spec.parentRefs", i)
		group, kind := parts.ParentKind(ref)
		switch {
		case group == source.GroupGateway && (kind == "Gateway" || kind == listenerSetKind):
			sets = append(sets, c.gatewayParent(p, ref, kind, field)...)
		case (group == "" || group == "core") && kind == "Service":
			sets = append(sets, c.serviceParent(p, ref, field)...)
		case group == source.GroupNetworking && kind == "ServiceEntry":
			sets = append(sets, c.entryParent(p, ref, field)...)
		default:
			p.Warn("InvalidKind", field+".kind", "use a Gateway, a ListenerSet, a Service or a ServiceEntry", "a %s (%s) cannot be a parent: the route is not attached to it", kind, group)
		}
	}
	if p.API.DefaultGateways {
		sets = append(sets, c.defaultParents(p)...)
	}
	for _, rs := range sets {
		if !rs.Mesh {
			deny(rs, denied)
		}
	}
	return sets
}

// defaultParents attaches a route that asks for it to the Gateways that take all such routes, save those that it names itself.
func (c *compiler) defaultParents(p *part) []*model.RouteSet {
	var sets []*model.RouteSet
	for _, o := range c.defaultGateways() {
		if ref := gatewayapi.DefaultParent(o.part.Object); !p.API.Names(ref, p.GetNamespace()) {
			sets = append(sets, c.gatewayParent(p, ref, "Gateway", "spec.useDefaultGateways")...)
		}
	}
	return sets
}

// gatewayParent attaches a route to listeners of a Gateway or ListenerSet.
func (c *compiler) gatewayParent(p *part, ref gatewayv1.ParentReference, kind, field string) []*model.RouteSet {
	namespace := parts.NamespaceOr(ref.Namespace, p.GetNamespace())
	gref := model.GatewayRef{Kind: refKind(kind), Namespace: namespace, Name: string(ref.Name)}
	owner := model.Ref{Kind: gref.Kind, Namespace: namespace, Name: gref.Name}
	name := namespace + "/" + gref.Name
	if c.object(owner) == nil {
		p.Warn("GatewayNotFound", field+".name", "", "there is no %s %s: the route is not attached to it", kind, name)
		return nil
	}
	o := c.openedBy(owner)
	if o == nil {
		return nil // another implementation's, or refused, which is said there
	}
	attached, code, why := c.attach(p, p.Routes.Hosts, o, ref)
	var sets []*model.RouteSet
	for _, a := range attached {
		place := o.where(a.listener)
		if isHTTP(p.Kind.Name) {
			if other := c.otherKind(p, a.hosts, place); other != nil {
				code, why = gatewayapi.HostnameConflict, place+" has "+other.object.Ref().String()+", which is "+age(other.object, p.Object)+", and of another kind, for hosts of the route"
				c.about(other.object).Warn(gatewayapi.HostnameConflict, "", "use other hosts, or one kind", "%s is for some of its hosts at %s too, and is not accepted there", p.Ref(), place)
				continue
			}
			c.bid(&bid{place: listenerPlace(place), hosts: a.hosts})
		}
		gref.Section, gref.Port = string(a.listener.Name), uint16(a.listener.Port)
		sets = append(sets, c.setAt(p, o, a, gref, place, field))
	}
	if len(sets) == 0 {
		p.Warn(code, field, "", "%s %s does not take the route: %s", kind, name, why)
	}
	return sets
}

// setAt makes the routes for a listener. They have no hosts where other listeners or routes have them all: the route is attached
// then, and gets nothing.
func (c *compiler) setAt(p *part, o *opened, a attachment, gref model.GatewayRef, place, field string) *model.RouteSet {
	rs := *p.Routes
	rs.Hosts = slices.DeleteFunc(slices.Clone(a.hosts), func(h string) bool { return o.takenByOther(a.listener, h) })
	if len(rs.Hosts) == 0 {
		p.Warn("NoEffect", field, "", "other listeners of the port are for all hosts that the route has at %s", place)
	}
	rs.Hosts = c.firstFor(p, rs.Hosts, place, field)
	rs.TLS = forNames(rs.TLS, rs.Hosts, 0)
	rs.Gateways = []model.GatewayRef{gref}
	return &rs
}

// serviceParent attaches a route to a Service, for the sidecars of its clients. A route in the Service's own namespace is for all
// of them, one in another namespace for the clients there (GEP-1426).
func (c *compiler) serviceParent(p *part, ref gatewayv1.ParentReference, field string) []*model.RouteSet {
	if p.Kind.Name == parts.UDPRoute {
		p.Warn("InvalidKind", field+".kind", "use a Gateway or a ListenerSet with a listener of protocol UDP", "a Service cannot be the parent of a UDPRoute, since sidecars do not capture UDP: the route is not attached to it")
		return nil
	}
	namespace := parts.NamespaceOr(ref.Namespace, p.GetNamespace())
	s := c.service(parts.ServiceHost(string(ref.Name), namespace, c.settings))
	if s == nil {
		p.Warn("HostNotFound", field+".name", "", "there is no Service %s/%s: the route is not attached to it", namespace, ref.Name)
		return nil
	}
	return c.hostParent(p, s, ref, field)
}

// entryParent attaches a route to a ServiceEntry, which is to all hosts of it, as Istio does.
func (c *compiler) entryParent(p *part, ref gatewayv1.ParentReference, field string) (sets []*model.RouteSet) {
	namespace := parts.NamespaceOr(ref.Namespace, p.GetNamespace())
	o := c.object(model.Ref{Kind: "ServiceEntry", Namespace: namespace, Name: string(ref.Name)})
	if p.Kind.Name == parts.UDPRoute {
		p.Warn("InvalidKind", field+".kind", "use a Gateway or a ListenerSet with a listener of protocol UDP", "a ServiceEntry cannot be the parent of a UDPRoute: the route is not attached to it")
		return nil
	}
	if o == nil {
		p.Warn("HostNotFound", field+".name", "", "there is no ServiceEntry %s/%s: the route is not attached to it", namespace, ref.Name)
		return nil
	}
	se, _ := o.Kube.(*networking.ServiceEntry)
	var others []string
	for _, host := range se.Spec.Hosts {
		host = parts.HostName(host)
		if s := c.serviceFor(host, namespace); s != nil && s.Namespace == namespace && s.Ref.Kind == "ServiceEntry" {
			sets = append(sets, c.hostParent(p, s, ref, field)...)
		} else {
			others = append(others, host)
		}
	}
	code := "DuplicateHost"
	if len(sets) == 0 {
		code = "NoEffect"
	}
	for _, host := range others {
		p.Warn(code, field, "", "host %s of ServiceEntry %s/%s belongs to another object: the route is not attached to it", host, namespace, ref.Name)
	}
	return sets
}

// hostParent attaches a route to what is known of a parent's host.
func (c *compiler) hostParent(p *part, s *model.Service, ref gatewayv1.ParentReference, field string) []*model.RouteSet {
	if len(p.Routes.Hosts) > 0 && len(p.Routes.TLS) == 0 {
		p.Warn("NoEffect", "spec.hostnames", "", "hostnames have no effect on a route for a %s", s.Ref.Kind)
	}
	port, ok := parentPort(s, ref)
	if !ok {
		p.Warn("PortNotFound", field, "", "%s has no such port (it has %s): the route is not attached to it", s.Host, portList(s))
		return nil
	}
	if p.Kind.Name == parts.TLSRoute || p.Kind.Name == parts.TCPRoute {
		return c.connectionParent(p, s, port, field)
	}
	if port != 0 && !s.Port(port).Protocol.IsHTTP() && s.Port(port).Protocol != model.Auto {
		p.Warn("HTTPRuleOnTCPPort", field, `name the port "http" or set its appProtocol, if it speaks HTTP`,
			"the route has no effect: port %d of %s is declared as %s", port, s.Host, s.Port(port).Protocol)
	}
	if port == 0 && len(s.Ports) > 0 && !slices.ContainsFunc(s.Ports, func(port model.Port) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto }) {
		p.Warn("HTTPRuleOnTCPPort", field, `name the port "http" or set its appProtocol, if it speaks HTTP`,
			"the route has no effect: no port of %s is declared as HTTP (%s)", s.Host, protocolList(s))
	}
	rs := *p.Routes
	rs.Hosts, rs.Mesh = []string{s.Host}, true
	if s.Namespace != p.GetNamespace() {
		rs.ExportTo = model.Visibility{Private: true}
	}
	if port != 0 {
		rs.HTTP = onPort(rs.HTTP, port)
	}
	if c.rule(p, s.Host, &rs, reachOf(&rs), field) {
		who := "in sidecars"
		if rs.ExportTo.Private {
			who += " of namespace " + rs.Namespace
		}
		c.claims = append(c.claims, matching.Claims(&rs, []matching.Place{{Where: who, Host: s.Host}}, nil, nil)...)
	}
	return []*model.RouteSet{&rs}
}

// parentPort gives the port that a parent reference names; 0 when it names none.
func parentPort(s *model.Service, ref gatewayv1.ParentReference) (uint16, bool) {
	if section := parts.OrEmpty(ref.SectionName); section != "" {
		for _, port := range s.Ports {
			if port.Name == section && (ref.Port == nil || uint16(*ref.Port) == port.Number) {
				return port.Number, true
			}
		}
		return 0, false
	}
	if ref.Port == nil {
		return 0, true
	}
	return uint16(*ref.Port), s.Port(uint16(*ref.Port)) != nil
}

// onPort narrows routes to a port.
func onPort(routes []model.HTTPRoute, port uint16) []model.HTTPRoute {
	out := slices.Clone(routes)
	for i := range out {
		out[i].Matches = slices.Clone(out[i].Matches)
		for j := range out[i].Matches {
			out[i].Matches[j].Port = port
		}
	}
	return out
}

// linkBackends marks backends that are not there: requests for them get 500, connections are closed. It gives those that may not be
// used at gateways, which expose a Service to others than its own clients; for a route of sidecars no namespace has to permit it
// (GEP-1294).
func (c *compiler) linkBackends(p *part) (denied []parts.APIBackend) {
	mesh, gateways := c.parentSorts(p)
	for _, b := range p.API.Backends {
		d, fate := backendOf(p.Routes, b), p.Fate()
		if b.Mirror {
			fate = unmirrored
		}
		if d == nil || d.Invalid != "" {
			continue
		}
		if gateways && !c.backendGranted(p, b.Ref) {
			denied = append(denied, b)
			at := ""
			if mesh {
				at = "at gateways, "
			}
			p.Warn(refNotPermitted, b.Field+".namespace", "make a ReferenceGrant there", "namespace %s does not permit its Service %s to be used here: %s",
				parts.OrEmpty(b.Ref.Namespace), b.Ref.Name, at+fate)
			if !mesh {
				continue
			}
		}
		c.linkBackend(p, d, b.Ref, b.Field, fate)
	}
	return denied
}

const refNotPermitted = string(gatewayv1.RouteReasonRefNotPermitted)

// parentSorts reports whether a route of the Gateway API is for sidecars, for gateways or for both.
func (c *compiler) parentSorts(p *part) (mesh, gateways bool) {
	for _, ref := range p.API.Parents {
		if group, _ := parts.ParentKind(ref); group == source.GroupGateway {
			gateways = true
		} else {
			mesh = mesh || p.Kind.Name != parts.UDPRoute
		}
	}
	return mesh, gateways || p.API.DefaultGateways && len(c.defaultGateways()) > 0
}

// backendGranted reports whether a route may use a backend at gateways: a host, or a Service of its namespace or one that permits it.
func (c *compiler) backendGranted(p *part, ref gatewayv1.BackendObjectReference) bool {
	return gatewayapi.NamesHost(ref) || c.granted(p, parts.NamespaceOr(ref.Namespace, p.GetNamespace()), "", "Service", string(ref.Name))
}

// deny marks backends as not permitted in a set, which shares what it does not change with others of its object.
func deny(rs *model.RouteSet, denied []parts.APIBackend) {
	if len(denied) == 0 {
		return
	}
	apart(&rs.HTTP, func(r *model.HTTPRoute) {
		apart(&r.Destinations, nil)
		apart(&r.Mirrors, nil)
	})
	apart(&rs.TLS, func(r *model.TLSRoute) { apart(&r.Destinations, nil) })
	apart(&rs.TCP, func(r *model.TCPRoute) { apart(&r.Destinations, nil) })
	apart(&rs.UDP, func(r *model.UDPRoute) { apart(&r.Destinations, nil) })
	for _, b := range denied {
		backendOf(rs, b).Invalid = refNotPermitted
	}
}

// apart replaces a list with a copy, whose elements it hands on.
func apart[T any](list *[]T, each func(*T)) {
	*list = slices.Clone(*list)
	for i := range *list {
		if each != nil {
			each(&(*list)[i])
		}
	}
}

// backendOf finds the place of a backend; nil where there is none, since no backend of the rule has a weight.
func backendOf(rs *model.RouteSet, b parts.APIBackend) *model.WeightedDestination {
	if b.Mirror {
		return &rs.HTTP[b.Rule].Mirrors[b.Index].Destination
	}
	if list := destinationsOf(rs, b.Rule); b.Index < len(list) {
		return &list[b.Index]
	}
	return nil
}

// destinationsOf gives those of a rule.
func destinationsOf(rs *model.RouteSet, rule int) []model.WeightedDestination {
	switch {
	case len(rs.TLS) > 0:
		return rs.TLS[rule].Destinations
	case len(rs.TCP) > 0:
		return rs.TCP[rule].Destinations
	case len(rs.UDP) > 0:
		return rs.UDP[rule].Destinations
	}
	return rs.HTTP[rule].Destinations
}

// linkBackend looks a backend up; fate says what becomes of its requests where it cannot be used.
func (c *compiler) linkBackend(p *part, d *model.WeightedDestination, ref gatewayv1.BackendObjectReference, field, fate string) {
	namespace := parts.NamespaceOr(ref.Namespace, p.GetNamespace())
	name := "Service " + namespace + "/" + string(ref.Name)
	s := c.service(d.Host)
	if gatewayapi.NamesHost(ref) {
		name = "service of host " + d.Host
		if s == nil {
			s = c.wildcardService(d.Host)
		}
		s = s.For(p.GetNamespace(), nil)
		if s != nil && !s.ExportTo.VisibleFrom(s.Namespace, p.GetNamespace()) {
			s = nil
		}
	}
	if s != nil {
		s = c.behind(s, p.GetNamespace())
	}
	switch {
	case s == nil:
		d.Invalid = "BackendNotFound"
		p.Warn(d.Invalid, field+".name", "", "there is no %s: %s", name, fate)
	case p.Kind.Name == parts.UDPRoute:
		if s.UDPPort(d.Port) == nil {
			d.Invalid = "PortNotFound"
			p.Warn(d.Invalid, field+".port", "", "%s has no port %d of UDP (it has %s): %s", name, d.Port, listPorts(s.UDP), fate)
		}
	case s.Port(d.Port) == nil:
		d.Invalid = "PortNotFound"
		p.Warn(d.Invalid, field+".port", "", "%s has no port %d (it has %s): %s", name, d.Port, portList(s), fate)
	}
}
