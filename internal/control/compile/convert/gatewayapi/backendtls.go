package gatewayapi

import (
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// backendTLSPolicy converts a BackendTLSPolicy; targets and authorities are looked up later.
func (p converter) backendTLSPolicy(b *gatewayv1.BackendTLSPolicy) {
	v, field := &b.Spec.Validation, "spec.validation"
	p.BackendTLS = &model.ClientTLS{Mode: model.TLSSimple, SNI: strings.ToLower(string(v.Hostname))}
	if len(b.Spec.TargetRefs) == 0 {
		p.Err("MissingField", "spec.targetRefs", "", "a target is needed")
	}
	for _, key := range parts.SortedKeys(b.Spec.Options) {
		p.Err("Unsupported", parts.Key("spec.options", string(key)), "", "there is no option %q", key)
	}
	if v.Hostname == "" {
		p.Err("MissingField", field+".hostname", "", "the server's name is needed")
	} else {
		p.ValidHost(string(v.Hostname), field+".hostname", false)
		if strings.HasPrefix(string(v.Hostname), "*") {
			p.Err("InvalidHost", field+".hostname", "", "a wildcard cannot be asked for")
		}
	}
	known := ""
	if v.WellKnownCACertificates != nil {
		known = string(*v.WellKnownCACertificates)
	}
	switch {
	case known != "" && len(v.CACertificateRefs) > 0:
		p.Err("ConflictingFields", field+".wellKnownCACertificates", "", "only one of it and caCertificateRefs can be set")
	case known == "" && len(v.CACertificateRefs) == 0:
		p.Err("MissingField", field, "", "one of caCertificateRefs and wellKnownCACertificates is needed")
	case known != "" && known != string(gatewayv1.WellKnownCACertificatesSystem):
		p.Err("InvalidValue", field+".wellKnownCACertificates", "use System", "%q is not known", known)
	}
	for i, s := range v.SubjectAltNames {
		p.backendName(s, parts.At(field+".subjectAltNames", i))
	}
}

func (p converter) backendName(s gatewayv1.SubjectAltName, field string) {
	switch s.Type {
	case gatewayv1.HostnameSubjectAltNameType:
		if p.ValidHost(string(s.Hostname), field+".hostname", false) {
			p.BackendTLS.SANs = append(p.BackendTLS.SANs, strings.ToLower(string(s.Hostname)))
		}
	case gatewayv1.URISubjectAltNameType:
		if !strings.Contains(string(s.URI), ":") {
			p.Err("InvalidValue", field+".uri", "", "%q is not a URI", s.URI)
		}
		p.BackendTLS.SANs = append(p.BackendTLS.SANs, string(s.URI))
	default:
		p.Err("InvalidValue", field+".type", "", "%q is neither Hostname nor URI", s.Type)
	}
}
