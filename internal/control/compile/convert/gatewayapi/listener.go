package gatewayapi

import (
	"crypto/tls"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/wire"
)

// Codes of findings that are also reasons of a listener's conditions.
const (
	HostnameConflict    = string(gatewayv1.ListenerReasonHostnameConflict)
	ProtocolConflict    = string(gatewayv1.ListenerReasonProtocolConflict)
	UnsupportedProtocol = string(gatewayv1.ListenerReasonUnsupportedProtocol)
	UnsupportedValue    = string(gatewayv1.ListenerReasonUnsupportedValue)
	InvalidRouteKinds   = string(gatewayv1.ListenerReasonInvalidRouteKinds)
	InvalidCertificate  = string(gatewayv1.ListenerReasonInvalidCertificateRef)
)

// listeners converts those of an object. One that cannot be is left out with a finding; the others are not affected. Which of them
// are in conflict is seen when all that share their ports are known.
func (p converter) listeners(list []gatewayv1.Listener) {
	if len(list) == 0 {
		p.Err("MissingField", "spec.listeners", "", "at least one listener is needed")
	}
	names := map[gatewayv1.SectionName]int{}
	for i := range list {
		l := p.listener(&list[i], parts.At("spec.listeners", i))
		if first, ok := names[l.Name]; ok {
			p.Err("DuplicateListener", l.Field+".name", "", "name %q is already that of spec.listeners[%d]", l.Name, first)
		}
		names[l.Name] = i
		p.Listeners = append(p.Listeners, l)
	}
}

var listenerProtocols = map[gatewayv1.ProtocolType]model.Protocol{
	gatewayv1.HTTPProtocolType: model.HTTP, gatewayv1.HTTPSProtocolType: model.HTTPS, gatewayv1.TLSProtocolType: model.TLS,
	gatewayv1.TCPProtocolType: model.TCP, gatewayv1.UDPProtocolType: model.UDP,
}

func (p converter) listener(l *gatewayv1.Listener, field string) *parts.APIListener {
	out := &parts.APIListener{Listener: *l, Field: field}
	host := "*"
	if h := parts.OrEmpty(l.Hostname); h != "" && l.Protocol != gatewayv1.TCPProtocolType && l.Protocol != gatewayv1.UDPProtocolType {
		host = strings.ToLower(h)
		p.ValidHost(host, field+".hostname", false)
	}
	if l.Name == "" {
		p.Err("MissingField", field+".name", "", "a listener needs a name")
	}
	protocol, ok := listenerProtocols[l.Protocol]
	if !ok {
		p.refuseListener(out, UnsupportedProtocol, ".protocol", "use one of HTTP, HTTPS, TLS, TCP, UDP", "protocol %q is not supported", l.Protocol)
	}
	out.Server = model.Server{Port: p.ValidPort(uint32(max(l.Port, 0)), field+".port"), Name: string(l.Name), Protocol: protocol,
		Hosts: []model.GatewayHost{{Host: host}}}
	p.listenerTLS(out)
	p.listenerKinds(out)
	return out
}

// refuseListener says why a listener is not opened.
func (p converter) refuseListener(l *parts.APIListener, code, field, hint, format string, args ...any) {
	l.Refused = true
	p.Warn(code, l.Field+field, hint, format+": the listener is not in force", args...)
}

// passes reports whether a listener does not end TLS.
func passes(l *gatewayv1.Listener) bool {
	return l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough
}

// RouteKinds gives the kinds of routes that a listener is for, and the places in allowedRoutes.kinds of those that it names and that
// are not for it. What is left of TLS when a listener has ended it is for a TCPRoute, too.
func RouteKinds(l *gatewayv1.Listener) (kinds []string, invalid []int) {
	switch listenerProtocols[l.Protocol] {
	case model.HTTP, model.HTTPS:
		kinds = []string{"HTTPRoute", "GRPCRoute"}
	case model.TLS:
		if kinds = []string{parts.TLSRoute, parts.TCPRoute}; passes(l) {
			kinds = kinds[:1]
		}
	case model.TCP:
		kinds = []string{parts.TCPRoute}
	case model.UDP:
		kinds = []string{parts.UDPRoute}
	}
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		return kinds, nil
	}
	var allowed []string
	for i, k := range l.AllowedRoutes.Kinds {
		if ours := k.Group == nil || *k.Group == source.GroupGateway; !ours || !slices.Contains(kinds, string(k.Kind)) {
			invalid = append(invalid, i)
			continue
		}
		allowed = append(allowed, string(k.Kind))
	}
	return allowed, invalid
}

// listenerKinds reads which kinds of routes a listener allows.
func (p converter) listenerKinds(l *parts.APIListener) {
	kinds, invalid := RouteKinds(&l.Listener)
	for _, i := range invalid {
		k := l.AllowedRoutes.Kinds[i]
		group := parts.OrEmpty(k.Group)
		if k.Group == nil {
			group = source.GroupGateway
		}
		p.Warn(InvalidRouteKinds, parts.At(l.Field+".allowedRoutes.kinds", i), "", "routes of kind %s (%s) are not for protocol %s", k.Kind, group, l.Protocol)
	}
	l.Kinds = kinds
}

func (p converter) listenerTLS(l *parts.APIListener) {
	field, t := l.Field+".tls", l.TLS
	encrypted := l.Server.Protocol == model.HTTPS || l.Server.Protocol == model.TLS
	switch {
	case t == nil && l.Server.Protocol == model.HTTPS: // which the API lets pass
		p.refuseListener(l, InvalidCertificate, ".tls", "", "protocol %s needs tls", l.Protocol)
		return
	case t == nil && encrypted:
		p.Err("MissingField", field, "", "protocol %s needs tls", l.Protocol)
		return
	case t == nil:
		return
	case !encrypted && l.Server.Protocol != "":
		p.Err("ConflictingFields", field, "", "protocol %s takes no tls", l.Protocol)
		return
	}
	if passes(&l.Listener) {
		if l.Server.Protocol == model.HTTPS {
			p.Err("ConflictingFields", field+".mode", "use protocol TLS", "protocol HTTPS ends TLS: mode Passthrough is not possible")
		}
		l.Server.TLS = &model.ServerTLS{Mode: model.TLSPassthrough}
		return
	}
	l.Server.TLS = &model.ServerTLS{Mode: model.TLSSimple}
	p.listenerOptions(l)
	switch {
	case len(t.CertificateRefs) > 0 || l.Server.TLS.Mode == model.TLSIstioMutual || l.Refused:
	case len(t.Options) > 0: // which may say where the certificate is from: the API lets it pass
		p.refuseListener(l, UnsupportedValue, ".tls.certificateRefs", "", "a certificate is needed")
	default:
		p.Err("MissingField", field+".certificateRefs", "", "a certificate is needed")
	}
}

// Options of a listener's TLS: Istio's for who proves what, ours for the rest.
const (
	terminateModeOption = "gateway.istio.io/tls-terminate-mode"
	minVersionOption    = "weft.dev/tls-min-version"
	maxVersionOption    = "weft.dev/tls-max-version"
	cipherSuitesOption  = "weft.dev/tls-cipher-suites"
)

var terminateModes = map[string]model.TLSMode{"SIMPLE": model.TLSSimple, "MUTUAL": model.TLSMutual, "OPTIONAL_MUTUAL": model.TLSOptionalMutual,
	"ISTIO_MUTUAL": model.TLSIstioMutual}

var optionVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// listenerOptions reads the options that we know; another one refuses the listener, since nobody knows what it asks for.
func (p converter) listenerOptions(l *parts.APIListener) {
	out := l.Server.TLS
	for _, key := range parts.SortedKeys(l.TLS.Options) {
		value, field := string(l.TLS.Options[key]), parts.Key(".tls.options", string(key))
		known := true
		switch key {
		case terminateModeOption:
			out.Mode, known = terminateModes[value]
		case minVersionOption:
			out.MinVersion, known = optionVersions[value]
		case maxVersionOption:
			out.MaxVersion, known = optionVersions[value]
		case cipherSuitesOption:
			for _, name := range parts.SplitList(value) {
				out.CipherSuites = append(out.CipherSuites, name)
				known = known && wire.CipherSuite(name) != 0
			}
		default:
			p.refuseListener(l, UnsupportedValue, field, "", "there is no option %q", key)
			continue
		}
		if !known {
			p.refuseListener(l, UnsupportedValue, field, "", "%q is not supported", value)
		}
	}
	if out.MaxVersion != 0 && out.MinVersion > out.MaxVersion {
		p.refuseListener(l, UnsupportedValue, parts.Key(".tls.options", minVersionOption), "", "the minimum is above the maximum")
	}
}

// Indistinct gives why a connection could not be assigned to one of two listeners: the reason of the condition, and words. It is
// empty when it can be.
func Indistinct(a, b *parts.APIListener) (code, why string) {
	if a.Server.Port != b.Server.Port {
		return "", ""
	}
	switch {
	case parts.Collide(a.Server, b.Server):
		return ProtocolConflict, "it uses the same port"
	case parts.PortUse(a.Server) == parts.PortUse(b.Server) && a.Server.Hosts[0] == b.Server.Hosts[0]:
		return HostnameConflict, "it has the same port and hostname"
	}
	return "", ""
}
