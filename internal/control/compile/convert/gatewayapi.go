package convert

import (
	"net/netip"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
	"github.com/weftmesh/weft/internal/control/model"
)

// OurClasses are what a Gateway or an Ingress names to be served by this mesh: our own name, and Istio's, so that its users'
// objects work. It is never changed.
var OurClasses = []string{ownClass, istioClass}

const (
	ownClass   = "weft"
	istioClass = "istio"
)

// OurControllers are the controllers of classes that are ours, Istio's among them. It is never changed.
var OurControllers = []string{GatewayController, "istio.io/gateway-controller", "weft.dev/ingress-controller", "istio.io/ingress-controller"}

// GatewayController is our own name, in GatewayClasses and in statuses.
const GatewayController = "weft.dev/gateway-controller"

// apiGateway converts a Gateway of the Gateway API whose class we know by name. Others may be ours by their GatewayClass; until
// that is looked up they are left alone, since what they mean is up to their implementation.
func (p *Part) apiGateway(g *gatewayv1.Gateway) {
	if slices.Contains(OurClasses, string(g.Spec.GatewayClassName)) {
		p.APIGateway(g)
	}
}

// APIGateway converts a Gateway that is ours. What its TLS refers to is looked up later.
func (p *Part) APIGateway(g *gatewayv1.Gateway) {
	spec := &g.Spec
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: ingressSelector, Created: p.Born, ProxyProtocol: p.expectedHeader()}
	if s := spec.DefaultScope; s != "" && s != gatewayv1.GatewayDefaultScopeAll && s != gatewayv1.GatewayDefaultScopeNone {
		p.Unsupported("spec.defaultScope", "use All or None")
	}
	apirules.Gateway(p.Object, g, p.Err)
	p.infrastructure(spec.Infrastructure)
	p.gatewayAddresses(spec.Addresses)
	p.listeners(spec.Listeners)
	if t := spec.TLS; t != nil && t.Frontend != nil {
		ports := map[gatewayv1.PortNumber]bool{}
		for i, c := range t.Frontend.PerPort {
			if ports[c.Port] {
				p.Err("DuplicatePort", At("spec.tls.frontend.perPort", i)+".port", "", "port %d has settings already", c.Port)
			}
			ports[c.Port] = true
		}
	}
	p.listenersHTTP3()
}

// listenersHTTP3 reads the annotation, once the listeners are known.
func (p *Part) listenersHTTP3() {
	for _, l := range p.Listeners {
		if !l.Refused {
			p.Gateway.Servers = append(p.Gateway.Servers, l.Server)
		}
	}
	p.http3()
	for _, l := range p.Listeners {
		switch quic := slices.ContainsFunc(p.Gateway.Servers, func(s model.Server) bool {
			return s.Port == l.Server.Port && TakesUDP(p.Gateway, s, p.Gateway, l.Server)
		}); {
		case l.Refused || l.Server.Protocol != model.UDP:
		case quic:
			p.refuseListener(l, ProtocolConflict, ".port", "use another port", "HTTP/3 has port %d of UDP", l.Port)
		case p.Gateway.ProxyProtocol != model.NoProxyProtocol:
			p.Info("NoEffect", Key("metadata.annotations", ProxyProtocolAnnotation), "", "datagrams to %s bring no PROXY protocol header", l.Field)
		}
	}
	p.Gateway.Servers = nil
}

func (p *Part) infrastructure(i *gatewayv1.GatewayInfrastructure) {
	if i == nil {
		return
	}
	if i.ParametersRef != nil {
		p.Err("InvalidParameters", "spec.infrastructure.parametersRef", "remove it: gateways take no parameters", "there is no kind of parameters %q", i.ParametersRef.Kind)
	}
	p.Info("NoEffect", "spec.infrastructure", "", "no workload is made for the gateway: the ingress gateway serves it")
}

// gatewayAddresses checks the addresses that a Gateway wants. Which of them it has is seen when its workloads are known.
func (p *Part) gatewayAddresses(list []gatewayv1.GatewaySpecAddress) {
	for i, a := range list {
		field := At("spec.addresses", i)
		kind := gatewayv1.IPAddressType
		if a.Type != nil {
			kind = *a.Type
		}
		if kind != gatewayv1.IPAddressType && kind != gatewayv1.HostnameAddressType {
			p.Err("UnsupportedAddress", field+".type", "use IPAddress or Hostname", "addresses of type %q are not supported", kind)
		} else if _, err := netip.ParseAddr(a.Value); kind == gatewayv1.IPAddressType && a.Value != "" && err != nil {
			p.Err("InvalidAddress", field+".value", "", "%q is not an IP address", a.Value)
		}
	}
}

// listenerSet converts a ListenerSet. Whether it is ours is up to its Gateway.
func (p *Part) listenerSet(s *gatewayv1.ListenerSet) {
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: ingressSelector, Created: p.Born}
	p.listeners(SetListeners(s))
}

// SetListeners gives a ListenerSet's listeners as those of a Gateway, which are the same.
func SetListeners(s *gatewayv1.ListenerSet) []gatewayv1.Listener {
	var list []gatewayv1.Listener
	for _, e := range s.Spec.Listeners {
		list = append(list, gatewayv1.Listener(e))
	}
	return list
}

func (p *Part) refuse(field string, set bool) {
	if set {
		p.Unsupported(field, instead[field[strings.LastIndexByte(field, '.')+1:]])
	}
}

// OrEmpty gives what an optional string holds.
func OrEmpty[T ~string](v *T) string {
	if v == nil {
		return ""
	}
	return string(*v)
}

// NamespaceOr gives an optional namespace, or the other one.
func NamespaceOr(v *gatewayv1.Namespace, otherwise string) string {
	if OrEmpty(v) == "" {
		return otherwise
	}
	return string(*v)
}

// IngressSelector gives the labels of the workloads that serve the Gateway API's gateways and Ingresses. It must not be changed.
func IngressSelector() map[string]string { return ingressSelector }
