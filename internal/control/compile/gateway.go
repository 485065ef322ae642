package compile

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// IngressSelector picks the workloads that serve Ingress objects and the Gateway API's gateways: Istio's ingress gateway, and the
// one that the local runtime starts.
var ingressSelector = map[string]string{istioLabel: "ingressgateway"}

// istioGateway converts a Gateway of Istio.
func (p *part) istioGateway(g *networking.Gateway) {
	spec := &g.Spec
	p.only(spec, "spec", "servers", "selector")
	p.gateway = &model.Gateway{Ref: p.Ref(), Selector: p.validLabels(spec.Selector, "spec.selector"), Created: p.Born}
	if len(spec.Servers) == 0 {
		p.err("MissingField", "spec.servers", "", "at least one server is needed")
	}
	for i, s := range spec.Servers {
		p.server(s, at("spec.servers", i), i)
	}
	p.sameProtocol()
}

func (p *part) server(s *networkingapi.Server, field string, index int) {
	p.only(s, field, "port", "bind", "hosts", "tls", "name")
	if s.Port == nil {
		p.err("MissingField", field+".port", "", "a port is missing")
		return
	}
	p.only(s.Port, field+".port", "number", "protocol", "name")
	out := model.Server{Port: p.validPort(s.Port.Number, field+".port.number"), Name: s.Port.Name, Bind: s.Bind,
		Protocol: p.istioProtocol(s.Port.Protocol, s.Port.Name, field+".port.protocol")}
	if s.Port.Name == "" {
		p.err("MissingField", field+".port.name", "", "the port needs a name")
	}
	if s.Port.Protocol == "" {
		p.err("MissingField", field+".port.protocol", "", "the port needs a protocol")
	}
	if s.Bind != "" {
		if _, err := netip.ParseAddr(s.Bind); err != nil {
			p.err("InvalidAddress", field+".bind", "", "%q is not an IP address", s.Bind)
		}
	}
	if len(s.Hosts) == 0 {
		p.err("MissingField", field+".hosts", `use "*" for any host`, "at least one host is needed")
	}
	for i, h := range s.Hosts {
		out.Hosts = append(out.Hosts, p.gatewayHost(h, at(field+".hosts", i)))
	}
	p.serverTLS(s.Tls, field+".tls", &out, index)
	p.gateway.Servers = append(p.gateway.Servers, out)
}

// gatewayHost reads "host" or "namespace/host"; "." is the own namespace, "*" any.
func (p *part) gatewayHost(s, field string) model.GatewayHost {
	namespace, host, ok := strings.Cut(s, "/")
	if !ok {
		namespace, host = "", s
	}
	switch namespace {
	case "*":
		namespace = ""
	case ".":
		namespace = p.GetNamespace()
	}
	p.validHost(host, field, true)
	return model.GatewayHost{Namespace: namespace, Host: strings.ToLower(host)}
}

var serverModes = map[networkingapi.ServerTLSSettings_TLSmode]model.TLSMode{
	networkingapi.ServerTLSSettings_PASSTHROUGH: model.TLSPassthrough, networkingapi.ServerTLSSettings_SIMPLE: model.TLSSimple,
	networkingapi.ServerTLSSettings_MUTUAL: model.TLSMutual, networkingapi.ServerTLSSettings_ISTIO_MUTUAL: model.TLSIstioMutual,
}

var tlsVersions = map[networkingapi.ServerTLSSettings_TLSProtocol]uint16{
	networkingapi.ServerTLSSettings_TLSV1_0: tls.VersionTLS10, networkingapi.ServerTLSSettings_TLSV1_1: tls.VersionTLS11,
	networkingapi.ServerTLSSettings_TLSV1_2: tls.VersionTLS12, networkingapi.ServerTLSSettings_TLSV1_3: tls.VersionTLS13,
}

func (p *part) serverTLS(t *networkingapi.ServerTLSSettings, field string, out *model.Server, index int) {
	encrypted := out.Protocol == model.HTTPS || out.Protocol == model.TLS
	if t == nil {
		if encrypted {
			p.err("MissingField", field, "", "protocol %s needs tls settings", strings.ToUpper(string(out.Protocol)))
		}
		return
	}
	p.only(t, field, "httpsRedirect", "mode", "credentialName", "minProtocolVersion", "maxProtocolVersion")
	if out.Protocol.IsHTTP() {
		out.HTTPSRedirect = t.HttpsRedirect
		if t.Mode != networkingapi.ServerTLSSettings_PASSTHROUGH || t.CredentialName != "" {
			p.err("ConflictingFields", field, "use protocol HTTPS", "protocol %s is plaintext: only httpsRedirect can be set", strings.ToUpper(string(out.Protocol)))
		}
		return
	}
	if t.HttpsRedirect {
		p.err("ConflictingFields", field+".httpsRedirect", "", "only a plaintext HTTP port can redirect to HTTPS")
	}
	mode, ok := serverModes[t.Mode]
	if !ok {
		p.unsupported(field+".mode", "use one of SIMPLE, MUTUAL, ISTIO_MUTUAL, PASSTHROUGH")
		return
	}
	out.TLS = &model.ServerTLS{Mode: mode, MinVersion: tlsVersions[t.MinProtocolVersion], MaxVersion: tlsVersions[t.MaxProtocolVersion]}
	if max := out.TLS.MaxVersion; max != 0 && out.TLS.MinVersion > max {
		p.err("InvalidValue", field+".minProtocolVersion", "", "the minimum is above the maximum")
	}
	p.serverCredential(t, mode, field, index)
}

func (p *part) serverCredential(t *networkingapi.ServerTLSSettings, mode model.TLSMode, field string, index int) {
	needs := mode == model.TLSSimple || mode == model.TLSMutual
	switch {
	case needs && t.CredentialName == "":
		p.err("MissingField", field+".credentialName", "", "mode %s needs a credentialName", t.Mode)
	case !needs && t.CredentialName != "":
		p.err("ConflictingFields", field+".credentialName", "", "mode %s takes no credential", t.Mode)
	case needs:
		p.serverSecret("", t.CredentialName, field+".credentialName", mode == model.TLSMutual, index)
	}
}

// serverSecret asks for the Secret of a server.
func (p *part) serverSecret(namespace, name, field string, ca bool, index int) {
	g := p.gateway
	p.credentials = append(p.credentials, credential{namespace: namespace, name: name, field: field, pair: true, ca: ca,
		take: func(s secret) {
			t := g.Servers[index].TLS
			t.Certificate, t.Key = s.certificate, s.key
			if ca {
				t.CA = s.ca
			}
		}})
}

// portUse is a port's use that cannot be shared with another.
func portUse(s model.Server) string {
	switch {
	case s.Protocol.IsHTTP():
		return "HTTP"
	case s.Protocol == model.HTTPS || s.Protocol == model.TLS:
		return "TLS"
	}
	return "TCP"
}

// sameProtocol refuses a gateway that opens one port for two protocols.
func (p *part) sameProtocol() {
	uses := map[uint16]int{}
	for i, s := range p.gateway.Servers {
		first, ok := uses[s.Port]
		if !ok {
			uses[s.Port] = i
			continue
		}
		p.sameTLSHost(s, i)
		if a, b := portUse(p.gateway.Servers[first]), portUse(s); a != b || a == "TCP" {
			p.err("PortCollision", at(p.serversField(), i)+".port", "use another port", "port %d is opened for %s here and for %s by %s",
				s.Port, b, a, at(p.serversField(), first))
		}
	}
}

// sameTLSHost refuses a second certificate for a host on a port: the server name alone decides which is shown.
func (p *part) sameTLSHost(s model.Server, i int) {
	for j, other := range p.gateway.Servers[:i] {
		for k, h := range s.Hosts {
			if portUse(s) == "TLS" && other.Port == s.Port && slices.ContainsFunc(other.Hosts, func(o model.GatewayHost) bool { return o.Host == h.Host }) {
				p.err("DuplicateHost", at(at(p.serversField(), i)+".hosts", k), "", "host %s of port %d is already that of %s", h.Host, s.Port, at(p.serversField(), j))
			}
		}
	}
}

func (p *part) serversField() string {
	if p.gateway.Ref.Kind == "Gateway.k8s" {
		return "spec.listeners"
	}
	return "spec.servers"
}

// addGateways puts gateways into the mesh. When two open one port of the same workloads for different protocols, the younger is
// refused.
func (c *compiler) addGateways() {
	for _, kind := range []string{"Gateway.istio", "Gateway.k8s", "Ingress"} {
		for _, p := range c.byKind[kind] {
			if g, ok := c.ourGateway(p); ok && !c.collides(p) {
				c.resolveCredentials(p, c.gatewayNamespaces(g))
				c.mesh.Gateways = append(c.mesh.Gateways, g)
				c.owner[g] = p
			}
		}
	}
}

// ourGateway leaves out gateways that belong to another implementation.
func (c *compiler) ourGateway(p *part) (*model.Gateway, bool) {
	switch p.Ref().Kind {
	case "Gateway.k8s":
		return c.apiGatewayOf(p)
	case "Ingress":
		return c.ingressGateway(p)
	}
	return p.gateway, p.gateway != nil
}

// collides compares a gateway with the older ones.
func (c *compiler) collides(p *part) bool {
	for _, other := range c.mesh.Gateways {
		if !overlap(other, p.gateway) {
			continue
		}
		for _, theirs := range other.Servers {
			for i, s := range p.gateway.Servers {
				if s.Port != theirs.Port || theirs.Bind != s.Bind {
					continue
				}
				if a, b := portUse(theirs), portUse(s); a != b || a == "TCP" {
					owner := c.owner[other]
					p.err("PortCollision", at(p.serversField(), i)+".port", "use another port, or other gateway workloads",
						"port %d is for %s here, and for %s in %s, which is in force", s.Port, b, a, owner.Ref())
					owner.warn("PortCollision", "", "use another port, or other gateway workloads",
						"%s, which is refused, wants port %d for %s", p.Ref(), s.Port, b)
					return true
				}
			}
		}
	}
	return false
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
