package compile

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// part is one object: what was made of it, as far as it can be by itself, and what there is to say about it.
type part struct {
	*source.Object
	settings model.Settings
	findings []model.Finding

	services []*model.Service // Service, ServiceEntry
	routes   *model.RouteSet  // VirtualService
	dest     *model.Destination
	gateway  *model.Gateway
	peer     *model.PeerAuthentication
	authz    *model.AuthorizationPolicy
	// credentials wait for their Secret.
	credentials []credential
}

// convert makes of an object what can be made of it alone.
func convert(o *source.Object, s model.Settings) *part {
	p := &part{Object: o, settings: s}
	switch k := o.Kube.(type) {
	case *corev1.Service:
		p.service(k)
	case *networking.ServiceEntry:
		p.serviceEntry(k)
	case *networking.WorkloadEntry:
		p.workloadEntry(&k.Spec, "spec")
	case *networking.VirtualService:
		p.virtualService(k)
	case *networking.DestinationRule:
		p.destinationRule(k)
	case *networking.Gateway:
		p.istioGateway(k)
	case *security.PeerAuthentication:
		p.peerAuthentication(k)
	case *security.AuthorizationPolicy:
		p.authorizationPolicy(k)
	case *gatewayv1.Gateway:
		p.apiGateway(k)
	case *gatewayv1.HTTPRoute:
		p.checkHTTPRoute(k)
	case *networkingv1.Ingress:
		p.checkIngress(k)
	}
	return p
}

func (p *part) failed() bool { return source.HasErrors(p.findings) }

func (p *part) err(code, field, hint, format string, args ...any) {
	p.findings = append(p.findings, p.Finding(model.Error, code, field, fmt.Sprintf(format, args...), hint))
}

func (p *part) warn(code, field, hint, format string, args ...any) {
	p.findings = append(p.findings, p.Finding(model.Warning, code, field, fmt.Sprintf(format, args...), hint))
}

func (p *part) info(code, field, hint, format string, args ...any) {
	p.findings = append(p.findings, p.Finding(model.Info, code, field, fmt.Sprintf(format, args...), hint))
}

// unsupported refuses a field that the mesh would otherwise have to ignore.
func (p *part) unsupported(field, hint string) {
	p.err("Unsupported", field, hint, "not supported yet")
}

// only refuses every field of a message that is set and not named: what the mesh does not carry is never ignored.
func (p *part) only(m proto.Message, path string, names ...string) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := f.JSONName(); !slices.Contains(names, name) {
			p.unsupported(path+"."+name, "")
		}
		return true
	})
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// key appends a map's key to a path.
func key(path, k string) string {
	if strings.ContainsAny(k, ".[]\" ") {
		return fmt.Sprintf("%s[%q]", path, k)
	}
	return path + "." + k
}
