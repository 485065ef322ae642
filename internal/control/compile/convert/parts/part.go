// Package parts is what one object becomes by itself: the parts of the model that it gives, what there is to say about it, and the
// checks that kinds of several APIs share.
package parts

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// Labels that conversion and joining read.
const (
	IstioLabel   = "istio"
	TLSModeLabel = "security.istio.io/tlsMode"
)

// Part is one object: what was made of it, as far as it can be by itself, and what there is to say about it. Each field is set for
// the kinds that it names, and belongs to whoever had the part made.
type Part struct {
	*source.Object
	Findings []model.Finding

	Services []*model.Service // Service, ServiceEntry
	Routes   *model.RouteSet  // VirtualService; routes of the Gateway API, of which hosts and gateways are left to be found
	API      *APIRoute        // routes of the Gateway API
	// Delegates of a VirtualService's rules, by position in Routes.HTTP.
	Delegates           map[int]model.Ref
	Destination         *model.Destination
	Gateway             *model.Gateway   // both kinds of Gateway, ListenerSet, and Ingress, when their class is known by name
	Listeners           []*APIListener   // Gateway of the Gateway API, ListenerSet
	BackendTLS          *model.ClientTLS // BackendTLSPolicy, of which the authority is left to be found
	PeerAuthentication  *model.PeerAuthentication
	AuthorizationPolicy *model.AuthorizationPolicy
	RateLimit           *model.RateLimit
	Sidecar             *model.Sidecar
	ProxyConfig         *model.ProxyConfig
	Credentials         []Credential    // they wait for their Secrets
	Settings            *model.Settings // the ConfigMap with the mesh's settings

	Mesh     model.Settings // under which it is converted
	Starting bool           // the settings are those that a mesh is made with
}

// Failed reports whether the object is refused.
func (p *Part) Failed() bool { return source.HasErrors(p.Findings) }

// Err adds an error about a field, which refuses the object.
func (p *Part) Err(code, field, hint, format string, args ...any) {
	p.say(model.Error, code, field, hint, format, args)
}

// Warn adds a warning about a field.
func (p *Part) Warn(code, field, hint, format string, args ...any) {
	p.say(model.Warning, code, field, hint, format, args)
}

// Info adds a remark about a field.
func (p *Part) Info(code, field, hint, format string, args ...any) {
	p.say(model.Info, code, field, hint, format, args)
}

// say adds a finding. Beyond model.MaxFindings only the first error counts, since it decides.
func (p *Part) say(s model.Severity, code, field, hint, format string, args []any) {
	n := len(p.Findings)
	switch {
	case n == model.MaxFindings:
		p.Findings = append(p.Findings, p.Finding(model.Info, "", "", "", "").AndMore())
	case n > model.MaxFindings && (s != model.Error || p.Failed()):
		return
	}
	p.Findings = append(p.Findings, p.Finding(s, code, field, fmt.Sprintf(format, args...), hint))
}

// Unsupported refuses a field that the mesh would otherwise have to ignore.
func (p *Part) Unsupported(field, hint string) {
	p.Err("Unsupported", field, hint, "not supported yet")
}

// Only refuses every field of a message that is set and not named: what the mesh does not carry is never ignored.
func (p *Part) Only(m proto.Message, path string, names ...string) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := f.JSONName(); !slices.Contains(names, name) {
			p.Unsupported(path+"."+name, instead[name])
		}
		return true
	})
}

// instead says what to do about fields that are refused.
var instead = map[string]string{
	"exponentialDelay":   "use fixedDelay",
	"zoneAwareLbSetting": "use localityLbSetting",
	"consecutiveErrors":  "use consecutive5xxErrors or consecutiveGatewayErrors",
	"targetRef":          "use selector",
	"targetRefs":         "use selector",
	"tlsCertificates":    "put the certificate into a Secret, and name it in credentialName",
	"serverCertificate":  "put the certificate into a Secret, and name it in credentialName",
	"privateKey":         "put the key into a Secret, and name it in credentialName",
	"caCrl":              "put the revocation lists into a Secret as ca.crl, beside ca.crt, and name it in credentialName",
	"caCertificates":     "put the authorities into a Secret as ca.crt, and name it in credentialName",
	"clientCertificate":  "put the certificate into a Secret, and name it in credentialName",
	"dryRun":             "leave the rule out until it is to count",
	"network":            "remove it: the mesh has one network",
}

// At appends a place in a list to a field path.
func At(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Key appends a map's key to a path.
func Key(path, k string) string { return document.Join(path, k) }

// Refuse is Unsupported for a field that is set.
func (p *Part) Refuse(field string, set bool) {
	if set {
		p.Unsupported(field, instead[field[strings.LastIndexByte(field, '.')+1:]])
	}
}
