package compile

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// isOurs looks a class up; without an object of that name, the name decides.
func (c *compiler) isOurs(name, kind string) bool {
	controller := ""
	if o := c.object(model.Ref{Kind: kind, Name: name}); o != nil {
		controller = controllerOf(o)
	}
	if controller == "" {
		return slices.Contains(parts.OurClasses, name)
	}
	return slices.Contains(parts.OurControllers, controller)
}

// granted reports whether a part may refer to an object of a namespace: its own, or one whose ReferenceGrants allow it.
func (c *compiler) granted(from *part, namespace, group, kind, name string) bool {
	if namespace == from.GetNamespace() {
		return true
	}
	for _, r := range c.inNamespace("ReferenceGrant", namespace) {
		g, ok := r.Kube.(*gatewayv1.ReferenceGrant)
		if !ok {
			continue
		}
		who := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == from.Kind.Group && string(f.Kind) == from.Kind.Name && string(f.Namespace) == from.GetNamespace()
		})
		what := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == kind && (parts.OrEmpty(t.Name) == "" || string(*t.Name) == name)
		})
		if who && what {
			return true
		}
	}
	return false
}

// attachment is a listener that takes a route, with the hosts that both have.
type attachment struct {
	listener listener
	hosts    []string
}

// Reasons why no listener takes a route, in the order in which they are found out.
const (
	noMatchingParent   = string(gatewayv1.RouteReasonNoMatchingParent)
	notAllowed         = string(gatewayv1.RouteReasonNotAllowedByListeners)
	noMatchingHostname = string(gatewayv1.RouteReasonNoMatchingListenerHostname)
)

// attach finds the listeners that take a route, or says why none does.
func (c *compiler) attach(route *part, hostnames []string, o *opened, ref gatewayv1.ParentReference) (found []attachment, code, why string) {
	code, why = noMatchingParent, "it has no such listener"
	for _, l := range o.listeners {
		if section := parts.OrEmpty(ref.SectionName); section != "" && section != string(l.Name) {
			continue
		}
		if ref.Port != nil && *ref.Port != l.Port {
			continue
		}
		if !slices.Contains(l.Kinds, route.Kind.Name) {
			if code != noMatchingHostname {
				code, why = notAllowed, "its listener "+string(l.Name)+", of protocol "+string(l.Protocol)+", takes no "+route.Kind.Name
			}
			continue
		}
		if !c.allowed(route, o.part.GetNamespace(), l) {
			if code != noMatchingHostname {
				code, why = notAllowed, "its listener "+string(l.Name)+" does not allow routes of namespace "+route.GetNamespace()
			}
			continue
		}
		hosts := meeting(hostnames, l.Server.Hosts[0].Host)
		if len(hosts) == 0 {
			code, why = noMatchingHostname, "its listener "+string(l.Name)+" has no hostname in common with the route"
			continue
		}
		found = append(found, attachment{l, hosts})
	}
	return found, code, why
}

// meeting intersects a route's hostnames with a listener's; none at all means any.
func meeting(hostnames []string, listener string) []string {
	if len(hostnames) == 0 {
		return []string{listener}
	}
	var hosts []string
	for _, h := range hostnames {
		if both, ok := parts.HostsMeet(h, listener); ok && !slices.Contains(hosts, both) {
			hosts = append(hosts, both)
		}
	}
	return hosts
}

// allowed reports whether a listener takes routes of the route's namespace.
func (c *compiler) allowed(route *part, own string, l listener) bool {
	if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
		return route.GetNamespace() == own
	}
	ns := l.AllowedRoutes.Namespaces
	return c.inScope(*ns.From, ns.Selector, own, route.GetNamespace())
}

// otherKind gives the older route of the other kind, HTTPRoute or GRPCRoute, that has a host of a listener already: of two such
// routes one is accepted (GRPCRouteSpec.hostnames).
func (c *compiler) otherKind(p *part, hosts []string, place string) *bid {
	for _, older := range c.bidders(listenerPlace(place)) {
		if older.object.Kind.Name != p.Kind.Name && slices.ContainsFunc(hosts, func(h string) bool {
			return slices.ContainsFunc(older.hosts, func(o string) bool { _, meet := parts.HostsMeet(h, o); return meet })
		}) {
			c.read(objectTopic(older.object.Ref()))
			return older
		}
	}
	return nil
}

// listenerPlace is where routes for requests are at a listener.
func listenerPlace(where string) topic { return topic{about: onPlace, a: listenerClaims, b: where} }

const listenerClaims = "listener"

// namespaceLabels gives a namespace's labels; every namespace is labelled with its name, whether or not there is an object.
func (c *compiler) namespaceLabels(name string) map[string]string {
	l := map[string]string{}
	if o := c.object(model.Ref{Kind: "Namespace", Name: name}); o != nil {
		for k, v := range o.GetLabels() {
			l[k] = v
		}
	}
	l["kubernetes.io/metadata.name"] = name
	return l
}

func labelSet(m map[string]string) labels.Set { return labels.Set(m) }

// refKind gives the kind of the model that a reference to a Gateway or ListenerSet means.
func refKind(kind string) string {
	if kind == listenerSetKind {
		return listenerSetKind
	}
	return "Gateway.k8s"
}

// isHTTP reports whether routes of a kind are for requests.
func isHTTP(kind string) bool { return kind == "HTTPRoute" || kind == "GRPCRoute" }
