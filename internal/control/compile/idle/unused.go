package idle

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// egress warns of namespaces that a Sidecar imports everything of, and that have nothing. Files without services do not say which there are;
// of single hosts more is said.
func (l *lint) egress(o *source.Object, s *networkingapi.Sidecar) {
	for i, e := range s.Egress {
		for j, h := range e.Hosts {
			ns, host, ok := strings.Cut(h, "/")
			if !ok || !strings.HasPrefix(host, "*") || slices.Contains([]string{".", "*", "~", o.GetNamespace(), l.mesh.Settings.RootNamespace}, ns) {
				continue
			}
			if l.mesh.Services.Len() > 0 && !l.offers(ns) {
				l.say(o, model.Warning, "NoEffect", parts.At(parts.At("spec.egress", i)+".hosts", j), "write the namespace of the services", "there is neither a service nor a rule in namespace %s", ns)
			}
		}
	}
}

// offers reports whether a namespace has anything that a Sidecar may import.
func (l *lint) offers(ns string) bool {
	for _, s := range l.mesh.Services.All() {
		for s := range s.All() {
			if s.Namespace == ns {
				return true
			}
		}
	}
	return slices.ContainsFunc(l.mesh.RouteSets, func(rs *model.RouteSet) bool { return rs.Ref.Namespace == ns })
}

// mtlsPorts warns of ports that are those of Services where those of the workloads are meant.
func (l *lint) mtlsPorts(o *source.Object, s *securityapi.PeerAuthentication) {
	labels := s.Selector.GetMatchLabels()
	for _, port := range slices.Sorted(maps.Keys(s.PortLevelMtls)) {
		own, behind := false, uint16(0)
		for _, w := range l.mesh.Workloads.All() {
			if reach := l.reach(o); reach != "" && w.Namespace != reach || !model.Selects(labels, w.Labels) {
				continue
			}
			for _, p := range w.Ports {
				if own = own || uint32(p.Number) == port; uint32(p.ServicePort) == port && p.ServiceHost != "" && (behind == 0 || p.Number < behind) {
					behind = p.Number
				}
			}
		}
		if !own && behind != 0 {
			l.say(o, model.Warning, "PortNotFound", "spec.portLevelMtls."+strconv.FormatUint(uint64(port), 10), "write "+strconv.Itoa(int(behind)),
				"port %d is that of a Service: the workloads that are selected have port %d behind it", port, behind)
		}
	}
}

// reference is what an object of one namespace may name in another.
type reference struct{ group, kind, namespace, toGroup, toKind, toNamespace, toName string }

// grants tells of ReferenceGrants that permit nothing that is referred to.
func (l *lint) grants(objects []*source.Object) {
	made := map[reference]bool{}
	for _, o := range objects {
		referred(o, func(r reference) {
			r.group, r.kind, r.namespace = o.Kind.Group, o.Kind.Name, o.GetNamespace()
			made[r] = true
			r.toName = ""
			made[r] = true
		})
	}
	for _, o := range objects {
		g, ok := o.Kube.(*gatewayv1.ReferenceGrant)
		if !ok {
			continue
		}
		used := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
				return made[reference{string(f.Group), string(f.Kind), string(f.Namespace), string(t.Group), string(t.Kind), g.Namespace, parts.OrEmpty(t.Name)}]
			})
		})
		if !used {
			l.say(o, model.Info, "NoEffect", "spec", "", "nothing refers to what the grant permits")
		}
	}
}

// referred gives what an object of the Gateway API names in other namespaces.
func referred(o *source.Object, to func(reference)) {
	add := func(group *gatewayv1.Group, kind *gatewayv1.Kind, namespace *gatewayv1.Namespace, name gatewayv1.ObjectName, otherwise string) {
		if namespace != nil && string(*namespace) != o.GetNamespace() {
			to(reference{toGroup: parts.OrEmpty(group), toKind: cmp.Or(parts.OrEmpty(kind), otherwise), toNamespace: string(*namespace), toName: string(name)})
		}
	}
	backend := func(r gatewayv1.BackendObjectReference) { add(r.Group, r.Kind, r.Namespace, r.Name, "Service") }
	backends := func(list []gatewayv1.BackendRef) {
		for _, b := range list {
			backend(b.BackendObjectReference)
		}
	}
	secrets := func(t *gatewayv1.ListenerTLSConfig) {
		if t != nil {
			for _, r := range t.CertificateRefs {
				add(r.Group, r.Kind, r.Namespace, r.Name, "Secret")
			}
		}
	}
	switch k := o.Kube.(type) {
	case *gatewayv1.HTTPRoute:
		for _, r := range k.Spec.Rules {
			for _, b := range r.BackendRefs {
				backend(b.BackendObjectReference)
			}
			for _, f := range r.Filters {
				if f.RequestMirror != nil {
					backend(f.RequestMirror.BackendRef)
				}
			}
		}
	case *gatewayv1.GRPCRoute:
		for _, r := range k.Spec.Rules {
			for _, b := range r.BackendRefs {
				backend(b.BackendObjectReference)
			}
			for _, f := range r.Filters {
				if f.RequestMirror != nil {
					backend(f.RequestMirror.BackendRef)
				}
			}
		}
	case *gatewayv1.TLSRoute:
		for _, r := range k.Spec.Rules {
			backends(r.BackendRefs)
		}
	case *gatewayv1.TCPRoute:
		for _, r := range k.Spec.Rules {
			backends(r.BackendRefs)
		}
	case *gatewayv1.UDPRoute:
		for _, r := range k.Spec.Rules {
			backends(r.BackendRefs)
		}
	case *gatewayv1.Gateway:
		for _, listener := range k.Spec.Listeners {
			secrets(listener.TLS)
		}
		if t := k.Spec.TLS; t != nil && t.Frontend != nil {
			for _, v := range append([]*gatewayv1.FrontendTLSValidation{t.Frontend.Default.Validation}, validations(t.Frontend.PerPort)...) {
				if v != nil {
					for _, r := range v.CACertificateRefs {
						add(&r.Group, &r.Kind, r.Namespace, r.Name, "ConfigMap")
					}
				}
			}
		}
		if t := k.Spec.TLS; t != nil && t.Backend != nil && t.Backend.ClientCertificateRef != nil {
			r := t.Backend.ClientCertificateRef
			add(r.Group, r.Kind, r.Namespace, r.Name, "Secret")
		}
	case *gatewayv1.ListenerSet:
		for _, listener := range k.Spec.Listeners {
			secrets(listener.TLS)
		}
	}
}

func validations(list []gatewayv1.TLSPortConfig) (all []*gatewayv1.FrontendTLSValidation) {
	for _, p := range list {
		all = append(all, p.TLS.Validation)
	}
	return all
}
