package idle

import (
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// selecting is a Service or ServiceEntry that picks WorkloadEntries by their labels.
type selecting struct {
	ref      model.Ref
	selector map[string]string
	ports    []string // their names
	static   bool
}

// selectingIn gives those of a namespace, in order.
func (l *lint) selectingIn(namespace string) []selecting {
	if l.selecting == nil {
		l.selecting = map[string][]selecting{}
		for _, o := range l.objects {
			s := selecting{ref: o.Ref()}
			switch k := o.Kube.(type) {
			case *corev1.Service:
				s.selector = k.Spec.Selector
				for _, p := range k.Spec.Ports {
					s.ports = append(s.ports, p.Name)
				}
			case *networking.ServiceEntry:
				s.selector, s.static = k.Spec.WorkloadSelector.GetLabels(), k.Spec.Resolution == networkingapi.ServiceEntry_STATIC
				for _, p := range k.Spec.Ports {
					s.ports = append(s.ports, p.Name)
				}
			}
			if len(s.selector) > 0 {
				l.selecting[o.GetNamespace()] = append(l.selecting[o.GetNamespace()], s)
			}
		}
		for _, list := range l.selecting {
			slices.SortFunc(list, func(a, b selecting) int { return strings.Compare(a.ref.String(), b.ref.String()) })
		}
	}
	return l.selecting[namespace]
}

// entry warns of what a WorkloadEntry says and no service that selects it takes up: a name for an address where addresses are needed, and
// ports that none of them has. An entry that no service selects may be a client's or a gateway's.
func (l *lint) entry(o *source.Object, e *networking.WorkloadEntry) {
	labels, selected := workloads.Labels(e), false
	var ports []string
	for _, s := range l.selectingIn(o.GetNamespace()) {
		if !model.Selects(s.selector, labels) {
			continue
		}
		selected, ports = true, append(ports, s.ports...)
		if s.static && isName(e.Spec.Address) {
			l.say(o, model.Warning, "NoEffect", "spec.address", "write its IP address, or resolution DNS in the ServiceEntry",
				"%s selects it and has resolution STATIC, for which the name %q is no address: it is no endpoint", s.ref, e.Spec.Address)
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	for _, name := range parts.SortedKeys(e.Spec.Ports) {
		if selected && !slices.Contains(ports, name) {
			l.say(o, model.Warning, "PortNotFound", "spec.ports["+name+"]", "write the name of a port of the service",
				"no service that selects it has a port named %q (they have %s): it says nothing", name, strings.Join(ports, ", "))
		}
	}
}

// isName reports whether an address is a name to be looked up.
func isName(address string) bool {
	_, err := netip.ParseAddr(address)
	return err != nil && address != "" && !strings.HasPrefix(address, "unix://")
}

// sources warns of matches for clients of which there are none.
func (l *lint) sources(o *source.Object, spec *networkingapi.VirtualService) {
	check := func(labels map[string]string, namespace, field string) {
		l.selector(o, labels, field+".sourceLabels", namespace)
		if namespace == "" || l.mesh.Workloads.Len() == 0 {
			return
		}
		for _, w := range l.mesh.Workloads.All() {
			if w.Namespace == namespace {
				return
			}
		}
		l.say(o, model.Warning, "NoEffect", field+".sourceNamespace", "write the namespace of the clients", "no workload is in namespace %s", namespace)
	}
	for i, r := range spec.Http {
		for j, m := range r.Match {
			check(m.SourceLabels, m.SourceNamespace, parts.At(parts.At("spec.http", i)+".match", j))
		}
	}
	for i, r := range spec.Tcp {
		for j, m := range r.Match {
			check(m.SourceLabels, m.SourceNamespace, parts.At(parts.At("spec.tcp", i)+".match", j))
		}
	}
	for i, r := range spec.Tls {
		for j, m := range r.Match {
			check(m.SourceLabels, m.SourceNamespace, parts.At(parts.At("spec.tls", i)+".match", j))
		}
	}
}
