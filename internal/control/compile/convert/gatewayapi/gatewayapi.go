package gatewayapi

import (
	"net/netip"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// apiGateway converts a Gateway of the Gateway API whose class we know by name. Others may be ours by their GatewayClass; until
// that is looked up they are left alone, since what they mean is up to their implementation.
func (p converter) apiGateway(g *gatewayv1.Gateway) {
	if slices.Contains(parts.OurClasses, string(g.Spec.GatewayClassName)) {
		Gateway(p.Part, g)
	}
}

// Gateway converts a Gateway that is ours. What its TLS refers to is looked up later.
func Gateway(part *parts.Part, g *gatewayv1.Gateway) {
	p := converter{part}
	spec := &g.Spec
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: parts.IngressSelector(), Created: p.Born, ProxyProtocol: p.ExpectedHeader()}
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
				p.Err("DuplicatePort", parts.At("spec.tls.frontend.perPort", i)+".port", "", "port %d has settings already", c.Port)
			}
			ports[c.Port] = true
		}
	}
	p.listenersHTTP3()
}

// listenersHTTP3 reads the annotation, once the listeners are known.
func (p converter) listenersHTTP3() {
	for _, l := range p.Listeners {
		if !l.Refused {
			p.Gateway.Servers = append(p.Gateway.Servers, l.Server)
		}
	}
	p.HTTP3()
	for _, l := range p.Listeners {
		switch quic := slices.ContainsFunc(p.Gateway.Servers, func(s model.Server) bool {
			return s.Port == l.Server.Port && parts.TakesUDP(p.Gateway, s, p.Gateway, l.Server)
		}); {
		case l.Refused || l.Server.Protocol != model.UDP:
		case quic:
			p.refuseListener(l, ProtocolConflict, ".port", "use another port", "HTTP/3 has port %d of UDP", l.Port)
		case p.Gateway.ProxyProtocol != model.NoProxyProtocol:
			p.Info("NoEffect", parts.Key("metadata.annotations", parts.ProxyProtocolAnnotation), "", "datagrams to %s bring no PROXY protocol header", l.Field)
		}
	}
	p.Gateway.Servers = nil
}

func (p converter) infrastructure(i *gatewayv1.GatewayInfrastructure) {
	if i == nil {
		return
	}
	if i.ParametersRef != nil {
		p.Err("InvalidParameters", "spec.infrastructure.parametersRef", "remove it: gateways take no parameters", "there is no kind of parameters %q", i.ParametersRef.Kind)
	}
	p.Info("NoEffect", "spec.infrastructure", "", "no workload is made for the gateway: the ingress gateway serves it")
}

// gatewayAddresses checks the addresses that a Gateway wants. Which of them it has is seen when its workloads are known.
func (p converter) gatewayAddresses(list []gatewayv1.GatewaySpecAddress) {
	for i, a := range list {
		field := parts.At("spec.addresses", i)
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
func (p converter) listenerSet(s *gatewayv1.ListenerSet) {
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: parts.IngressSelector(), Created: p.Born}
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
