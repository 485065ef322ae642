package compile

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// ourClasses and ourControllers are what a Gateway or an Ingress names to be served by this mesh: our own names, and Istio's, so
// that its users' objects work.
var (
	ourClasses     = []string{"weft", "istio"}
	ourControllers = []string{"weft.dev/gateway-controller", "istio.io/gateway-controller", "weft.dev/ingress-controller", "istio.io/ingress-controller"}
)

// apiGateway converts a Gateway of the Gateway API whose class we know by name. Others may be ours by their GatewayClass; until
// that is looked up they are left alone, since what they mean is up to their implementation.
func (p *part) apiGateway(g *gatewayv1.Gateway) {
	if slices.Contains(ourClasses, string(g.Spec.GatewayClassName)) {
		p.listeners(g)
	}
}

// apiGatewayOf gives what was made of a Gateway that is ours to serve.
func (c *compiler) apiGatewayOf(p *part) (*model.Gateway, bool) {
	g, ok := p.Kube.(*gatewayv1.Gateway)
	if !ok {
		return nil, false
	}
	if class := string(g.Spec.GatewayClassName); !c.isOurs(class, "GatewayClass") {
		p.info("NotOurs", "spec.gatewayClassName", `use class "istio" or "weft" to have this mesh serve it`, "class %q belongs to another implementation", class)
		return nil, false
	}
	if p.gateway == nil {
		p.listeners(g)
	}
	return p.gateway, !p.failed()
}

// isOurs looks a class up; without an object of that name, the name decides.
func (c *compiler) isOurs(name, kind string) bool {
	controller := ""
	if p := c.byRef[model.Ref{Kind: kind, Name: name}]; p != nil {
		controller = controllerOf(p)
	}
	if controller == "" {
		return slices.Contains(ourClasses, name)
	}
	return slices.Contains(ourControllers, controller)
}

func (p *part) listeners(g *gatewayv1.Gateway) {
	spec := &g.Spec
	p.gateway = &model.Gateway{Ref: p.Ref(), Selector: ingressSelector, Created: p.Born}
	p.refuse("spec.addresses", len(spec.Addresses) > 0)
	p.refuse("spec.allowedListeners", spec.AllowedListeners != nil)
	p.refuse("spec.tls", spec.TLS != nil)
	p.refuse("spec.defaultScope", spec.DefaultScope != "")
	if spec.Infrastructure != nil {
		p.info("NoEffect", "spec.infrastructure", "", "no workload is made for the gateway: the ingress gateway serves it")
	}
	if len(spec.Listeners) == 0 {
		p.err("MissingField", "spec.listeners", "", "at least one listener is needed")
	}
	for i := range spec.Listeners {
		p.listener(spec, i)
	}
	p.sameProtocol()
}

func (p *part) refuse(field string, set bool) {
	if set {
		p.unsupported(field, "")
	}
}

var listenerProtocols = map[gatewayv1.ProtocolType]model.Protocol{
	gatewayv1.HTTPProtocolType: model.HTTP, gatewayv1.HTTPSProtocolType: model.HTTPS, gatewayv1.TLSProtocolType: model.TLS,
	gatewayv1.TCPProtocolType: model.TCP,
}

func (p *part) listener(spec *gatewayv1.GatewaySpec, i int) {
	l, field := &spec.Listeners[i], at("spec.listeners", i)
	host := "*"
	if l.Hostname != nil && *l.Hostname != "" {
		host = strings.ToLower(string(*l.Hostname))
		p.validHost(host, field+".hostname", false)
	}
	protocol, ok := listenerProtocols[l.Protocol]
	if !ok {
		p.err("InvalidProtocol", field+".protocol", "use one of HTTP, HTTPS, TLS, TCP", "protocol %q is not supported", l.Protocol)
	}
	if l.Name == "" {
		p.err("MissingField", field+".name", "", "a listener needs a name")
	}
	out := model.Server{Port: p.validPort(uint32(max(l.Port, 0)), field+".port"), Name: string(l.Name), Protocol: protocol,
		Hosts: []model.GatewayHost{{Host: host}}}
	for j, other := range p.gateway.Servers {
		if other.Name == out.Name {
			p.err("DuplicateListener", field+".name", "", "name %q is already that of spec.listeners[%d]", l.Name, j)
		}
		if other.Port == out.Port && other.Protocol == out.Protocol && other.Hosts[0].Host == host {
			p.err("DuplicateListener", field, "", "port and hostname are already those of spec.listeners[%d]", j)
		}
	}
	p.gateway.Servers = append(p.gateway.Servers, out)
	p.listenerTLS(l, field+".tls", i)
}

func (p *part) listenerTLS(l *gatewayv1.Listener, field string, i int) {
	server := &p.gateway.Servers[i]
	encrypted := server.Protocol == model.HTTPS || server.Protocol == model.TLS
	if l.TLS == nil || !encrypted {
		switch {
		case encrypted:
			p.err("MissingField", field, "", "protocol %s needs tls", l.Protocol)
		case l.TLS != nil:
			p.err("ConflictingFields", field, "", "protocol %s takes no tls", l.Protocol)
		}
		return
	}
	p.refuse(field+".options", len(l.TLS.Options) > 0)
	if l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough {
		if server.Protocol == model.HTTPS {
			p.err("ConflictingFields", field+".mode", "use protocol TLS", "protocol HTTPS ends TLS: mode Passthrough is not possible")
		}
		server.TLS = &model.ServerTLS{Mode: model.TLSPassthrough}
		return
	}
	server.TLS = &model.ServerTLS{Mode: model.TLSSimple}
	if len(l.TLS.CertificateRefs) == 0 {
		p.err("MissingField", field+".certificateRefs", "", "a certificate is needed")
	}
	for j, ref := range l.TLS.CertificateRefs {
		f := at(field+".certificateRefs", j)
		switch {
		case j > 0:
			p.unsupported(f, "use one certificate for each listener")
		case orEmpty(ref.Group) != "" || ref.Kind != nil && *ref.Kind != "Secret":
			p.unsupported(f, "use a Secret")
		default:
			p.serverSecret(namespaceOr(ref.Namespace, p.GetNamespace()), string(ref.Name), f, false, i)
		}
	}
}

func orEmpty[T ~string](v *T) string {
	if v == nil {
		return ""
	}
	return string(*v)
}

func namespaceOr(v *gatewayv1.Namespace, otherwise string) string {
	if orEmpty(v) == "" {
		return otherwise
	}
	return string(*v)
}

// granted reports whether a part may refer to an object of a namespace: its own, or one whose ReferenceGrants allow it.
func (c *compiler) granted(from *part, namespace, group, kind, name string) bool {
	if namespace == from.GetNamespace() {
		return true
	}
	for _, p := range c.byKind["ReferenceGrant"] {
		g, ok := p.Kube.(*gatewayv1.ReferenceGrant)
		if !ok || g.Namespace != namespace {
			continue
		}
		who := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == from.Kind.Group && string(f.Kind) == from.Kind.Name && string(f.Namespace) == from.GetNamespace()
		})
		what := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == kind && (orEmpty(t.Name) == "" || string(*t.Name) == name)
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
		if section := orEmpty(ref.SectionName); section != "" && section != string(l.Name) {
			continue
		}
		if ref.Port != nil && *ref.Port != l.Port {
			continue
		}
		if l.Protocol != gatewayv1.HTTPProtocolType && l.Protocol != gatewayv1.HTTPSProtocolType {
			why = "its listener is for " + string(l.Protocol)
			continue
		}
		if !c.allowed(route, g, l) {
			why = "its listener does not allow routes of this namespace or kind"
			continue
		}
		hosts := slices.DeleteFunc(meeting(hostnames, orEmpty(l.Hostname)), func(h string) bool { return takenByOther(g, l, h) })
		if len(hosts) == 0 {
			why = "its listener has no hostname in common with the route, or another one is more specific"
			continue
		}
		found = append(found, attachment{l, hosts})
	}
	return found, why
}

// takenByOther reports whether requests for a host go to a more specific listener of the same port.
func takenByOther(g *gatewayv1.Gateway, l *gatewayv1.Listener, host string) bool {
	own := meeting(nil, orEmpty(l.Hostname))[0]
	for i := range g.Spec.Listeners {
		other := meeting(nil, orEmpty(g.Spec.Listeners[i].Hostname))[0]
		if g.Spec.Listeners[i].Port == l.Port && other != own && hostCovers(own, other) && hostCovers(other, host) {
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
		if both, ok := hostsMeet(h, listener); ok && !slices.Contains(hosts, both) {
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
		return k.Kind == "HTTPRoute" && (k.Group == nil || *k.Group == source.GroupGateway)
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
	if p := c.byRef[model.Ref{Kind: "Namespace", Name: name}]; p != nil {
		for k, v := range p.GetLabels() {
			l[k] = v
		}
	}
	l["kubernetes.io/metadata.name"] = name
	return l
}
