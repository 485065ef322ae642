package convert

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// OurClasses are what a Gateway or an Ingress names to be served by this mesh: our own name, and Istio's, so that its users'
// objects work. It is never changed.
var OurClasses = []string{ownClass, istioClass}

const (
	ownClass   = "weft"
	istioClass = "istio"
)

// apiGateway converts a Gateway of the Gateway API whose class we know by name. Others may be ours by their GatewayClass; until
// that is looked up they are left alone, since what they mean is up to their implementation.
func (p *Part) apiGateway(g *gatewayv1.Gateway) {
	if slices.Contains(OurClasses, string(g.Spec.GatewayClassName)) {
		p.Listeners(g)
	}
}

// Listeners converts a Gateway that is ours.
func (p *Part) Listeners(g *gatewayv1.Gateway) {
	spec := &g.Spec
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: ingressSelector, Created: p.Born, ProxyProtocol: p.expectedHeader()}
	p.refuse("spec.addresses", len(spec.Addresses) > 0)
	p.refuse("spec.allowedListeners", spec.AllowedListeners != nil)
	p.refuse("spec.tls", spec.TLS != nil)
	p.refuse("spec.defaultScope", spec.DefaultScope != "")
	if spec.Infrastructure != nil {
		p.Info("NoEffect", "spec.infrastructure", "", "no workload is made for the gateway: the ingress gateway serves it")
	}
	if len(spec.Listeners) == 0 {
		p.Err("MissingField", "spec.listeners", "", "at least one listener is needed")
	}
	for i := range spec.Listeners {
		p.listener(spec, i)
	}
	p.sameProtocol()
	p.http3()
}

func (p *Part) refuse(field string, set bool) {
	if set {
		p.Unsupported(field, "")
	}
}

var listenerProtocols = map[gatewayv1.ProtocolType]model.Protocol{
	gatewayv1.HTTPProtocolType: model.HTTP, gatewayv1.HTTPSProtocolType: model.HTTPS, gatewayv1.TLSProtocolType: model.TLS,
	gatewayv1.TCPProtocolType: model.TCP,
}

func (p *Part) listener(spec *gatewayv1.GatewaySpec, i int) {
	l, field := &spec.Listeners[i], At("spec.listeners", i)
	host := "*"
	if l.Hostname != nil && *l.Hostname != "" {
		host = strings.ToLower(string(*l.Hostname))
		p.ValidHost(host, field+".hostname", false)
	}
	protocol, ok := listenerProtocols[l.Protocol]
	if !ok {
		p.Err("InvalidProtocol", field+".protocol", "use one of HTTP, HTTPS, TLS, TCP", "protocol %q is not supported", l.Protocol)
	}
	if l.Name == "" {
		p.Err("MissingField", field+".name", "", "a listener needs a name")
	}
	out := model.Server{Port: p.ValidPort(uint32(max(l.Port, 0)), field+".port"), Name: string(l.Name), Protocol: protocol,
		Hosts: []model.GatewayHost{{Host: host}}}
	for j, other := range p.Gateway.Servers {
		if other.Name == out.Name {
			p.Err("DuplicateListener", field+".name", "", "name %q is already that of spec.listeners[%d]", l.Name, j)
		}
		if other.Port == out.Port && other.Protocol == out.Protocol && other.Hosts[0].Host == host {
			p.Err("DuplicateListener", field, "", "port and hostname are already those of spec.listeners[%d]", j)
		}
	}
	p.Gateway.Servers = append(p.Gateway.Servers, out)
	p.listenerTLS(l, field+".tls", i)
}

func (p *Part) listenerTLS(l *gatewayv1.Listener, field string, i int) {
	server := &p.Gateway.Servers[i]
	encrypted := server.Protocol == model.HTTPS || server.Protocol == model.TLS
	if l.TLS == nil || !encrypted {
		switch {
		case encrypted:
			p.Err("MissingField", field, "", "protocol %s needs tls", l.Protocol)
		case l.TLS != nil:
			p.Err("ConflictingFields", field, "", "protocol %s takes no tls", l.Protocol)
		}
		return
	}
	p.refuse(field+".options", len(l.TLS.Options) > 0)
	if l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough {
		if server.Protocol == model.HTTPS {
			p.Err("ConflictingFields", field+".mode", "use protocol TLS", "protocol HTTPS ends TLS: mode Passthrough is not possible")
		}
		server.TLS = &model.ServerTLS{Mode: model.TLSPassthrough}
		return
	}
	server.TLS = &model.ServerTLS{Mode: model.TLSSimple}
	if len(l.TLS.CertificateRefs) == 0 {
		p.Err("MissingField", field+".certificateRefs", "", "a certificate is needed")
	}
	for j, ref := range l.TLS.CertificateRefs {
		f := At(field+".certificateRefs", j)
		switch {
		case j > 0:
			p.Unsupported(f, "use one certificate for each listener")
		case OrEmpty(ref.Group) != "" || ref.Kind != nil && *ref.Kind != "Secret":
			p.Unsupported(f, "use a Secret")
		default:
			p.serverSecret(NamespaceOr(ref.Namespace, p.GetNamespace()), string(ref.Name), f, false, i)
		}
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
