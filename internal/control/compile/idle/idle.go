// Package idle says what objects miss when they are all that there is: labels that nothing has, services that contradict each other
// about a port of their workloads, rules that gateways do not follow. A mesh that runs says of it only which Gateways nothing serves, since
// the rest of what it misses may be about to come.
package idle

import (
	"fmt"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Findings are what can be said of the objects that a mesh was made of, beside what was found then.
func Findings(objects []*source.Object, mesh *model.Mesh, found []model.Finding) []model.Finding {
	l := newLint(objects, mesh)
	refused := map[model.Ref]bool{}
	for _, f := range found {
		if f.Severity == model.Error {
			refused[f.Object] = true
		}
	}
	for _, o := range objects {
		if refused[o.Ref()] {
			continue
		}
		switch k := o.Kube.(type) {
		case *networking.Sidecar:
			l.selector(o, k.Spec.WorkloadSelector.GetLabels(), "spec.workloadSelector", o.GetNamespace())
			l.egress(o, &k.Spec)
		case *networking.WorkloadEntry:
			l.entry(o, k)
		case *networkingbeta.ProxyConfig:
			l.selector(o, k.Spec.Selector.GetMatchLabels(), "spec.selector", l.reach(o))
		case *security.AuthorizationPolicy:
			l.selector(o, k.Spec.Selector.GetMatchLabels(), "spec.selector", l.reach(o))
		case *security.PeerAuthentication:
			l.selector(o, k.Spec.Selector.GetMatchLabels(), "spec.selector", l.reach(o))
			l.mtlsPorts(o, &k.Spec)
		case *networking.DestinationRule:
			l.selector(o, k.Spec.WorkloadSelector.GetMatchLabels(), "spec.workloadSelector", o.GetNamespace())
		case *networking.ServiceEntry:
			if !l.joining[o.GetNamespace()] {
				l.selector(o, k.Spec.WorkloadSelector.GetLabels(), "spec.workloadSelector", o.GetNamespace())
			}
		case *networking.VirtualService:
			l.sources(o, &k.Spec)
		case *networking.Gateway:
			l.ports(o)
			l.written(o, k.Spec.Selector)
		}
	}
	l.contradictions()
	l.unfollowed()
	l.grants(objects)
	return l.found
}

// lint collects findings.
type lint struct {
	mesh     *model.Mesh
	objects  map[model.Ref]*source.Object
	gateways map[model.Ref]*model.Gateway
	leading  map[string][]*corev1.Service // to the pods that a Gateway selects, by the text of its selector
	joining  map[string]bool              // namespaces in which machines may join, whose labels are not all in files
	// selecting are the services that pick WorkloadEntries, by namespace; nil until selectingIn is called.
	selecting map[string][]selecting
	found     []model.Finding
}

func newLint(objects []*source.Object, mesh *model.Mesh) *lint {
	l := &lint{mesh: mesh, objects: make(map[model.Ref]*source.Object, len(objects)),
		gateways: make(map[model.Ref]*model.Gateway, len(mesh.Gateways)), leading: map[string][]*corev1.Service{}, joining: map[string]bool{}}
	for _, o := range objects {
		ref := o.Ref()
		if l.objects[ref] = o; ref.Kind == "WorkloadGroup" {
			l.joining[ref.Namespace] = true
		}
	}
	for _, g := range mesh.Gateways {
		l.gateways[g.Ref] = g
	}
	return l
}

func (l *lint) say(o *source.Object, severity model.Severity, code, field, hint, format string, args ...any) {
	l.found = append(l.found, o.Finding(severity, code, field, fmt.Sprintf(format, args...), hint))
}

// reach gives the namespace of the workloads that an object may select; "" for all.
func (l *lint) reach(o *source.Object) string {
	if o.GetNamespace() == l.mesh.Settings.RootNamespace {
		return ""
	}
	return o.GetNamespace()
}

// selector warns of labels that no workload has. Files without workloads do not say which there are, and gateways are there when a
// Gateway asks for them.
func (l *lint) selector(o *source.Object, labels map[string]string, field, namespace string) {
	if len(labels) == 0 || l.mesh.Workloads.Len() == 0 || model.Selects(labels, parts.IngressSelector()) {
		return
	}
	if slices.ContainsFunc(l.mesh.Gateways, func(g *model.Gateway) bool { return model.Selects(labels, g.Selector) }) {
		return
	}
	for _, w := range l.mesh.Workloads.All() {
		if (namespace == "" || w.Namespace == namespace) && model.Selects(labels, w.Labels) {
			return
		}
	}
	where := "namespace " + namespace
	if namespace == "" {
		where = "the mesh"
	}
	l.say(o, model.Warning, "NoEffect", field, "write the labels of the pods", "no workload of %s has the labels %s", where, parts.LabelList(labels))
}

// contradictions warns of services that say differently what a port of the same workload speaks: its sidecar takes it as one of them.
func (l *lint) contradictions() {
	said := map[[2]string]bool{}
	for _, host := range slices.Sorted(l.mesh.Services.Keys()) {
		s := l.mesh.Services.Get(host)
		for _, ep := range s.Endpoints {
			w := l.mesh.Workloads.Get(ep.Namespace + "/" + ep.Instance)
			if w == nil {
				continue
			}
			for _, port := range s.Ports {
				i := slices.IndexFunc(w.Ports, func(p model.WorkloadPort) bool { return p.Number == ep.Ports[port.Number] })
				if i < 0 || w.Ports[i].ServiceHost == s.Host || w.Ports[i].ServiceHost == "" || alike(w.Ports[i].Protocol, port.Protocol) {
					continue
				}
				other := l.mesh.Services.Get(w.Ports[i].ServiceHost)
				if key := [2]string{s.Host, other.Host}; !said[key] {
					said[key] = true
					l.contradict(s, other, port, w.Ports[i])
				}
			}
		}
	}
}

func alike(a, b model.Protocol) bool { return a == b || a.IsHTTP() && b.IsHTTP() }

func (l *lint) contradict(s, other *model.Service, port model.Port, taken model.WorkloadPort) {
	const hint = "have all Services of a workload say the same of its port"
	if o := l.objects[s.Ref]; o != nil {
		l.say(o, model.Warning, "ProtocolConflict", "spec.ports", hint, "port %d of the workloads is %s here, and %s in %s: sidecars take it as the latter",
			taken.Number, port.Protocol, taken.Protocol, other.Ref)
	}
	if o := l.objects[other.Ref]; o != nil && other.Ref != s.Ref {
		l.say(o, model.Warning, "ProtocolConflict", "spec.ports", hint, "port %d of the workloads is %s here, and %s in %s: sidecars take it as the former",
			taken.Number, taken.Protocol, port.Protocol, s.Ref)
	}
}

// unfollowed tells of rules for a service that a gateway which leads there does not follow, since they are for sidecars.
func (l *lint) unfollowed() {
	ruled := map[string]model.Ref{}
	for _, rs := range l.mesh.RouteSets {
		if rs.Mesh && rs.Ref.Kind == "VirtualService" && splits(rs) {
			for _, h := range rs.Hosts {
				ruled[h] = rs.Ref
			}
		}
	}
	for _, rs := range l.mesh.RouteSets {
		if len(rs.Gateways) == 0 || rs.Ref.Kind != "VirtualService" {
			continue
		}
		o := l.objects[rs.Ref]
		for n := range rs.HTTP {
			if rs.HTTP[n].Object != (model.Ref{}) {
				continue // a delegate's
			}
			for j, d := range rs.HTTP[n].Destinations {
				if by, ok := ruled[d.Host]; o != nil && ok && by != rs.Ref && d.Subset == "" {
					l.say(o, model.Info, "NoEffect", parts.At(rs.HTTP[n].Field+".route", j)+".destination", "name a subset here to choose one",
						"the rules of %s for %s are for sidecars: requests from the gateway go to all endpoints", by, d.Host)
				}
			}
		}
	}
}

// splits reports whether routes choose among subsets.
func splits(rs *model.RouteSet) bool {
	return slices.ContainsFunc(rs.HTTP, func(r model.HTTPRoute) bool {
		return slices.ContainsFunc(r.Destinations, func(d model.WeightedDestination) bool { return d.Subset != "" })
	})
}
