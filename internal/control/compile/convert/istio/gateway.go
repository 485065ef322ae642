package istio

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// istioGateway converts a Gateway of Istio.
func (p converter) istioGateway(g *networking.Gateway) {
	spec := &g.Spec
	p.Only(spec, "spec", "servers", "selector")
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: p.ValidLabels(spec.Selector, "spec.selector"), Created: p.Born,
		ProxyProtocol: p.ExpectedHeader()}
	if len(spec.Servers) == 0 {
		p.Err("MissingField", "spec.servers", "", "at least one server is needed")
	}
	for i, s := range spec.Servers {
		p.server(s, parts.At("spec.servers", i), i)
	}
	p.samePortName()
	p.sameProtocol()
	p.HTTP3()
}

func (p converter) server(s *networkingapi.Server, field string, index int) {
	p.Only(s, field, "port", "bind", "hosts", "tls", "name")
	if s.Port == nil {
		p.Err("MissingField", field+".port", "", "a port is missing")
		return
	}
	p.Only(s.Port, field+".port", "number", "protocol", "name")
	out := model.Server{Port: p.ValidPort(s.Port.Number, field+".port.number"), Name: s.Port.Name, Bind: s.Bind,
		Protocol: p.Protocol(s.Port.Protocol, s.Port.Name, field+".port.protocol")}
	if s.Port.Name == "" {
		p.Err("MissingField", field+".port.name", "", "the port needs a name")
	}
	if s.Port.Protocol == "" {
		p.Err("MissingField", field+".port.protocol", "", "the port needs a protocol")
	}
	if s.Bind != "" {
		if _, err := netip.ParseAddr(s.Bind); err != nil {
			p.Err("InvalidAddress", field+".bind", "", "%q is not an IP address", s.Bind)
		}
	}
	if len(s.Hosts) == 0 {
		p.Err("MissingField", field+".hosts", `use "*" for any host`, "at least one host is needed")
	}
	for i, h := range s.Hosts {
		out.Hosts = append(out.Hosts, p.gatewayHost(h, parts.At(field+".hosts", i)))
	}
	p.serverTLS(s.Tls, field+".tls", &out, index)
	p.Gateway.Servers = append(p.Gateway.Servers, out)
}

// gatewayHost reads "host" or "namespace/host"; "." is the own namespace, "*" any.
func (p converter) gatewayHost(s, field string) model.GatewayHost {
	namespace, host, ok := strings.Cut(s, "/")
	if !ok {
		namespace, host = "", s
	}
	switch namespace {
	case "*":
		namespace = ""
	case ".":
		namespace = p.GetNamespace()
	default:
		p.NamespaceName(namespace, field)
	}
	if p.ValidHost(host, field, true) && host != "*" && !strings.ContainsAny(host, ".:") {
		p.Err("InvalidHost", field, `write a host in full, as "www.example.com", or "*"`, "%q is not a host in full", host)
	}
	return model.GatewayHost{Namespace: namespace, Host: strings.ToLower(host)}
}

var serverModes = map[networkingapi.ServerTLSSettings_TLSmode]model.TLSMode{
	networkingapi.ServerTLSSettings_PASSTHROUGH: model.TLSPassthrough, networkingapi.ServerTLSSettings_SIMPLE: model.TLSSimple,
	networkingapi.ServerTLSSettings_MUTUAL: model.TLSMutual, networkingapi.ServerTLSSettings_ISTIO_MUTUAL: model.TLSIstioMutual,
	networkingapi.ServerTLSSettings_OPTIONAL_MUTUAL:  model.TLSOptionalMutual,
	networkingapi.ServerTLSSettings_AUTO_PASSTHROUGH: model.TLSAutoPassthrough,
}

// tlsVersions are those that proxies speak.
var tlsVersions = map[networkingapi.ServerTLSSettings_TLSProtocol]uint16{networkingapi.ServerTLSSettings_TLS_AUTO: 0,
	networkingapi.ServerTLSSettings_TLSV1_2: tls.VersionTLS12, networkingapi.ServerTLSSettings_TLSV1_3: tls.VersionTLS13,
}

func (p converter) tlsVersion(v networkingapi.ServerTLSSettings_TLSProtocol, field string) uint16 {
	version, ok := tlsVersions[v]
	if !ok {
		p.Unsupported(field, "use TLSV1_2 or TLSV1_3: older versions are not safe")
	}
	return version
}

func (p converter) serverTLS(t *networkingapi.ServerTLSSettings, field string, out *model.Server, index int) {
	encrypted := out.Protocol == model.HTTPS || out.Protocol == model.TLS
	if t == nil {
		if encrypted {
			p.Err("MissingField", field, "", "protocol %s needs tls settings", strings.ToUpper(string(out.Protocol)))
		}
		return
	}
	p.Only(t, field, "httpsRedirect", "mode", "credentialName", "credentialNames", "minProtocolVersion", "maxProtocolVersion",
		"cipherSuites", "subjectAltNames", "verifyCertificateSpki", "verifyCertificateHash")
	if out.Protocol.IsHTTP() {
		out.HTTPSRedirect = t.HttpsRedirect
		if t.Mode != networkingapi.ServerTLSSettings_PASSTHROUGH || t.CredentialName != "" || len(t.CredentialNames) > 0 {
			p.Err("ConflictingFields", field, "use protocol HTTPS", "protocol %s is plaintext: only httpsRedirect can be set", strings.ToUpper(string(out.Protocol)))
		}
		return
	}
	if t.HttpsRedirect {
		p.Err("ConflictingFields", field+".httpsRedirect", "", "only a plaintext HTTP port can redirect to HTTPS")
	}
	mode, ok := serverModes[t.Mode]
	if !ok {
		p.Unsupported(field+".mode", "use one of SIMPLE, MUTUAL, OPTIONAL_MUTUAL, ISTIO_MUTUAL, PASSTHROUGH, AUTO_PASSTHROUGH")
		return
	}
	if mode == model.TLSAutoPassthrough && out.Protocol != model.TLS {
		p.Err("ConflictingFields", field+".mode", "use protocol TLS", "mode AUTO_PASSTHROUGH needs protocol TLS")
	}
	out.TLS = &model.ServerTLS{Mode: mode, MinVersion: p.tlsVersion(t.MinProtocolVersion, field+".minProtocolVersion"),
		MaxVersion: p.tlsVersion(t.MaxProtocolVersion, field+".maxProtocolVersion")}
	if max := out.TLS.MaxVersion; max != 0 && out.TLS.MinVersion > max {
		p.Err("InvalidValue", field+".minProtocolVersion", "", "the minimum is above the maximum")
	}
	if own := mode == model.TLSIstioMutual; own && (out.TLS.MaxVersion != 0 || len(t.CipherSuites) > 0) {
		p.Err("ConflictingFields", field+".mode", "leave maxProtocolVersion and cipherSuites out", "mode ISTIO_MUTUAL chooses them by itself")
	}
	p.serverSuites(t, out.TLS, field)
	p.serverPins(t, out.TLS, field)
	p.serverCredential(t, mode, field, index)
}

// serverPins reads which certificates of clients, or which of their keys, are let in.
func (p converter) serverPins(t *networkingapi.ServerTLSSettings, out *model.ServerTLS, field string) {
	pins := func(name string, hashes []string, says string, decoded func(string) ([]byte, error)) []string {
		if len(hashes) > 0 && out.Mode != model.TLSMutual && out.Mode != model.TLSOptionalMutual {
			p.Err("ConflictingFields", field+"."+name, "use mode MUTUAL", "mode %s does not compare the certificates of clients", t.Mode)
		}
		for i, h := range hashes {
			if b, err := decoded(h); err != nil || len(b) != sha256.Size {
				p.Err("InvalidValue", parts.At(field+"."+name, i), "", "%q is no SHA-256 in %s", h, says)
			}
		}
		return hashes
	}
	out.KeyHashes = pins("verifyCertificateSpki", t.VerifyCertificateSpki, "base64", base64.StdEncoding.DecodeString)
	out.CertificateHashes = pins("verifyCertificateHash", t.VerifyCertificateHash, "hexadecimal", func(h string) ([]byte, error) {
		return hex.DecodeString(strings.ReplaceAll(h, ":", ""))
	})
}

// serverSuites reads cipher suites, of which only safe ones are had, and the names of clients.
func (p converter) serverSuites(t *networkingapi.ServerTLSSettings, out *model.ServerTLS, field string) {
	terminates := out.Mode != model.TLSPassthrough && out.Mode != model.TLSAutoPassthrough
	if !terminates && len(t.CipherSuites) > 0 {
		p.Err("ConflictingFields", field+".cipherSuites", "", "mode %s does not end TLS", t.Mode)
	}
	for i, name := range t.CipherSuites {
		switch f := parts.At(field+".cipherSuites", i); {
		case slices.Contains(out.CipherSuites, name):
			p.Warn("DuplicateValue", f, "", "%s is there already", name)
		case wire.CipherSuite(name) == 0:
			p.Unsupported(f, "use some of "+strings.Join(wire.CipherSuites(), ", "))
		default:
			out.CipherSuites = append(out.CipherSuites, name)
		}
	}
	if len(t.CipherSuites) > 0 && out.MinVersion == tls.VersionTLS13 {
		p.Warn("NoEffect", field+".cipherSuites", "", "those of TLS 1.3 cannot be chosen")
	}
	if out.SANs = t.SubjectAltNames; len(out.SANs) > 0 && out.Mode != model.TLSMutual && out.Mode != model.TLSOptionalMutual {
		p.Err("ConflictingFields", field+".subjectAltNames", "use an AuthorizationPolicy, or mode MUTUAL", "mode %s does not compare the names of clients", t.Mode)
	}
}

// serverCredential asks for the Secrets that a server's mode needs.
func (p converter) serverCredential(t *networkingapi.ServerTLSSettings, mode model.TLSMode, field string, index int) {
	mutual := mode == model.TLSMutual || mode == model.TLSOptionalMutual
	needs, has := mode == model.TLSSimple || mutual, t.CredentialName != "" || len(t.CredentialNames) > 0
	files := t.ServerCertificate != "" || len(t.TlsCertificates) > 0 // these are refused, and say what to do
	switch {
	case needs && !has && !files:
		p.Err("MissingField", field+".credentialName", "", "mode %s needs a credentialName", t.Mode)
	case needs && !has:
	case !needs && t.CredentialName != "":
		p.Err("ConflictingFields", field+".credentialName", "", "mode %s takes no credential", t.Mode)
	case !needs && has:
		p.Err("ConflictingFields", field+".credentialNames", "", "mode %s takes no credential", t.Mode)
	case needs && t.CredentialName != "" && len(t.CredentialNames) > 0:
		p.Err("ConflictingFields", field+".credentialNames", "name all of them here, and leave credentialName out", "credentialName is set too")
	case needs && t.CredentialName != "":
		p.ServerSecret(parts.Credential{Name: t.CredentialName, Field: field + ".credentialName", CA: mutual}, index)
	case needs:
		p.serverSecrets(t.CredentialNames, field+".credentialNames", mutual, index)
	}
}

// serverSecrets asks for several Secrets, of which the first holds the authority where clients are verified.
func (p converter) serverSecrets(names []string, field string, mutual bool, index int) {
	for i, name := range names {
		switch f := parts.At(field, i); {
		case name == "":
			p.Err("MissingField", f, "", "the name of a Secret is missing")
		case slices.Contains(names[:i], name):
			p.Warn("DuplicateValue", f, "", "%s is there already", name)
		default:
			p.ServerSecret(parts.Credential{Name: name, Field: f, List: field, CA: mutual && i == 0}, index)
		}
	}
}

// sameProtocol refuses a gateway that opens one port for two protocols.
func (p converter) sameProtocol() {
	p.sameTLSHost()
	uses := map[uint16]int{}
	for i, s := range p.Gateway.Servers {
		first, ok := uses[s.Port]
		if !ok {
			uses[s.Port] = i
			continue
		}
		if a, b := parts.PortUse(p.Gateway.Servers[first]), parts.PortUse(s); parts.Collide(p.Gateway.Servers[first], s) {
			p.Err("PortCollision", parts.At(p.ServersField(), i)+".port", "use another port", "port %d is opened for %s here and for %s by %s",
				s.Port, b, a, parts.At(p.ServersField(), first))
		}
	}
}

// sameTLSHost refuses a second certificate for a host on a port: the server name alone decides which is shown.
func (p converter) sameTLSHost() {
	type seat struct {
		port uint16
		host string
	}
	first := map[seat]int{}
	for i, s := range p.Gateway.Servers {
		if parts.PortUse(s) != "TLS" {
			continue
		}
		for k, h := range s.Hosts {
			at := seat{s.Port, h.Host}
			if j, taken := first[at]; !taken {
				first[at] = i
			} else if j != i {
				p.Err("DuplicateHost", parts.At(parts.At(p.ServersField(), i)+".hosts", k), "", "host %s of port %d is already that of %s", h.Host, s.Port, parts.At(p.ServersField(), j))
			}
		}
	}
}

// samePortName refuses names that do not tell ports apart.
func (p converter) samePortName() {
	first := map[string]int{}
	for i, s := range p.Gateway.Servers {
		if j, taken := first[s.Name]; taken && s.Name != "" {
			p.Err("DuplicateValue", parts.At(p.ServersField(), i)+".port.name", "", "%s.port has that name already", parts.At(p.ServersField(), j))
			continue
		}
		first[s.Name] = i
	}
}
