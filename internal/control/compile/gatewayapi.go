package compile

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// apiGatewayOf gives what was made of a Gateway that is ours to serve.
func (c *compiler) apiGatewayOf(p *part) (*model.Gateway, bool) {
	g, ok := p.Kube.(*gatewayv1.Gateway)
	if !ok {
		return nil, false
	}
	if class := string(g.Spec.GatewayClassName); !c.isOurs(class, "GatewayClass") {
		p.Info("NotOurs", "spec.gatewayClassName", `use class "istio" or "weft" to have this mesh serve it`, "class %q belongs to another implementation", class)
		return nil, false
	}
	if p.Gateway == nil {
		p.Listeners(g)
	}
	return p.Gateway, !p.Failed()
}

// ourControllers are the controllers of classes that are ours, Istio's among them.
var ourControllers = []string{"weft.dev/gateway-controller", "istio.io/gateway-controller", "weft.dev/ingress-controller", "istio.io/ingress-controller"}

// isOurs looks a class up; without an object of that name, the name decides.
func (c *compiler) isOurs(name, kind string) bool {
	controller := ""
	if o := c.object(model.Ref{Kind: kind, Name: name}); o != nil {
		controller = controllerOf(o)
	}
	if controller == "" {
		return slices.Contains(convert.OurClasses, name)
	}
	return slices.Contains(ourControllers, controller)
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
			return string(t.Group) == group && string(t.Kind) == kind && (convert.OrEmpty(t.Name) == "" || string(*t.Name) == name)
		})
		if who && what {
			return true
		}
	}
	return false
}

// attachment is a listener that takes a route, with the hosts that both have.
type attachment struct {
	listener *gatewayv1.Listener
	hosts    []string
}

// attach finds the listeners of a gateway that take a route, or says why none does.
func (c *compiler) attach(route *part, hostnames []string, g *gatewayv1.Gateway, ref gatewayv1.ParentReference) ([]attachment, string) {
	var found []attachment
	why := "it has no such listener"
	for i := range g.Spec.Listeners {
		l := &g.Spec.Listeners[i]
		if section := convert.OrEmpty(ref.SectionName); section != "" && section != string(l.Name) {
			continue
		}
		if ref.Port != nil && *ref.Port != l.Port {
			continue
		}
		if !carries(route.Kind.Name, l) {
			why = "its listener, of protocol " + string(l.Protocol) + passing(l) + ", is not for a " + route.Kind.Name
			continue
		}
		if !c.allowed(route, g, l) {
			why = "its listener does not allow routes of this namespace or kind"
			continue
		}
		hosts := slices.DeleteFunc(meeting(hostnames, convert.OrEmpty(l.Hostname)), func(h string) bool { return takenByOther(g, l, h) })
		if len(hosts) == 0 {
			why = "its listener has no hostname in common with the route, or another one is more specific"
			continue
		}
		found = append(found, attachment{l, hosts})
	}
	return found, why
}

// carries reports whether a listener's protocol is one that routes of a kind are for. A TCPRoute gets what is left of TLS when the
// listener has ended it.
func carries(kind string, l *gatewayv1.Listener) bool {
	switch kind {
	case convert.TLSRoute:
		return l.Protocol == gatewayv1.TLSProtocolType
	case convert.TCPRoute:
		return l.Protocol == gatewayv1.TCPProtocolType || l.Protocol == gatewayv1.TLSProtocolType && passing(l) == ""
	}
	return l.Protocol == gatewayv1.HTTPProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType
}

// passing says that a listener does not end TLS; it is empty for one that does.
func passing(l *gatewayv1.Listener) string {
	if l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough {
		return " and mode Passthrough"
	}
	return ""
}

// takenByOther reports whether requests for a host go to a more specific listener of the same port.
func takenByOther(g *gatewayv1.Gateway, l *gatewayv1.Listener, host string) bool {
	own := meeting(nil, convert.OrEmpty(l.Hostname))[0]
	for i := range g.Spec.Listeners {
		other := meeting(nil, convert.OrEmpty(g.Spec.Listeners[i].Hostname))[0]
		if g.Spec.Listeners[i].Port == l.Port && other != own && convert.HostCovers(own, other) && convert.HostCovers(other, host) {
			return true
		}
	}
	return false
}

// meeting intersects a route's hostnames with a listener's; none at all means any.
func meeting(hostnames []string, listener string) []string {
	listener = strings.ToLower(listener)
	if listener == "" {
		listener = "*"
	}
	if len(hostnames) == 0 {
		return []string{listener}
	}
	var hosts []string
	for _, h := range hostnames {
		if both, ok := convert.HostsMeet(h, listener); ok && !slices.Contains(hosts, both) {
			hosts = append(hosts, both)
		}
	}
	return hosts
}

// allowed reports whether a listener's allowedRoutes take the route.
func (c *compiler) allowed(route *part, g *gatewayv1.Gateway, l *gatewayv1.Listener) bool {
	if l.AllowedRoutes == nil {
		return route.GetNamespace() == g.Namespace
	}
	kinds := l.AllowedRoutes.Kinds
	if len(kinds) > 0 && !slices.ContainsFunc(kinds, func(k gatewayv1.RouteGroupKind) bool {
		return string(k.Kind) == route.Kind.Name && (k.Group == nil || *k.Group == source.GroupGateway)
	}) {
		return false
	}
	from := gatewayv1.NamespacesFromSame
	ns := l.AllowedRoutes.Namespaces
	if ns != nil && ns.From != nil {
		from = *ns.From
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(ns.Selector)
		return err == nil && selector.Matches(labels.Set(c.namespaceLabels(route.GetNamespace())))
	case gatewayv1.NamespacesFromSame:
		return route.GetNamespace() == g.Namespace
	}
	return false
}

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
