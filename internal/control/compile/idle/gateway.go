package idle

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// ports warns of ports of a Gateway that no Service of its pods has: nothing from outside arrives there. Without such a Service
// nobody knows who comes.
func (l *lint) ports(o *source.Object) {
	g := l.gateways[o.Ref()]
	if g == nil || len(g.Selector) == 0 {
		return
	}
	services := l.servicesOf(g)
	if len(services) == 0 {
		return
	}
	for i, s := range g.Servers {
		if slices.ContainsFunc(services, func(svc *corev1.Service) bool { return exposes(svc, s.Port) }) {
			continue
		}
		field := parts.At("spec.servers", i) + ".port.number"
		if n := slices.IndexFunc(services, func(svc *corev1.Service) bool { return hasPort(svc, s.Port) }); n >= 0 {
			l.say(o, model.Warning, "PortNotFound", field, "write its target port, or take the label away",
				"port %d of Service %s/%s does not count for gateways: it has the label %s", s.Port, services[n].Namespace, services[n].Name, model.PortTranslationLabel)
			continue
		}
		l.say(o, model.Warning, "PortNotFound", field, "add the port to the Service",
			"no Service of the gateway's pods has port %d, such as Service %s/%s", s.Port, services[0].Namespace, services[0].Name)
	}
}

// servicesOf gives the Services that lead to the pods which a Gateway selects, by name.
func (l *lint) servicesOf(g *model.Gateway) []*corev1.Service {
	list, known := l.leading[parts.LabelList(g.Selector)]
	if known {
		return list
	}
	for _, o := range l.objects {
		svc, ok := o.Kube.(*corev1.Service)
		if !ok || len(svc.Spec.Selector) == 0 {
			continue
		}
		for _, w := range l.mesh.Workloads.All() {
			if w.Namespace == svc.Namespace && model.Selects(g.Selector, w.Labels) && model.Selects(svc.Spec.Selector, w.Labels) {
				list = append(list, svc)
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b *corev1.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	l.leading[parts.LabelList(g.Selector)] = list
	return list
}

// exposes reports whether a Service has a port, unless its ports do not count for gateways, or leads to it. Where a port is named nobody
// knows which it is.
func exposes(svc *corev1.Service, port uint16) bool {
	_, apart := svc.Labels[model.PortTranslationLabel]
	return hasPort(svc, port) && !apart || slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool {
		target := cmp.Or(p.TargetPort.IntVal, p.Port)
		return connects(p) && (target == int32(port) || p.TargetPort.StrVal != "")
	})
}

// hasPort reports whether a Service has a port for connections.
func hasPort(svc *corev1.Service, port uint16) bool {
	return slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return connects(p) && p.Port == int32(port) })
}

func connects(p corev1.ServicePort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }

// Unserved warns of the Gateways among objects whose labels no workload of a mesh that runs has. While it has no gateway at all, the built-in
// ones are about to come.
func Unserved(objects []*source.Object, mesh *model.Mesh) []model.Finding {
	l := newLint(objects, mesh)
	served := map[string]bool{} // by selector, of which there are few
	for _, o := range objects {
		g, ok := o.Kube.(*networking.Gateway)
		if !ok {
			continue
		}
		selector := g.Spec.Selector
		is, known := served[parts.LabelList(selector)]
		if !known {
			is = l.served(selector, func(w *model.Workload) bool { return true }) || builtIn(selector) && !l.anyGateway()
			served[parts.LabelList(selector)] = is
		}
		if !is {
			l.unserved(o, selector)
		}
	}
	return l.found
}

// written is Unserved for one of some files: the gateways that stand in for what they do not have do not count, and the built-in ones are
// elsewhere.
func (l *lint) written(o *source.Object, selector map[string]string) {
	if builtIn(selector) {
		return
	}
	real := func(w *model.Workload) bool {
		for _, kind := range []string{"Pod", "WorkloadEntry"} {
			if l.objects[model.Ref{Kind: kind, Namespace: w.Namespace, Name: w.Name}] != nil {
				return true
			}
		}
		return l.objects[model.Ref{Kind: "Deployment", Namespace: w.Namespace, Name: w.Owner}] != nil
	}
	if !l.served(selector, real) {
		l.unserved(o, selector)
	}
}

func (l *lint) unserved(o *source.Object, selector map[string]string) {
	l.say(o, model.Warning, "NoEffect", "spec.selector", "write the labels of the gateway's pods: the built-in one has "+parts.LabelList(parts.IngressSelector()),
		"no workload has the labels %s: nothing listens for the Gateway", parts.LabelList(selector))
}

// served reports whether a workload that counts has the labels of a selector. None picks all gateways.
func (l *lint) served(selector map[string]string, counts func(*model.Workload) bool) bool {
	if len(selector) == 0 {
		return true
	}
	for _, w := range l.mesh.Workloads.All() {
		if model.Selects(selector, w.Labels) && counts(w) {
			return true
		}
	}
	return false
}

func (l *lint) anyGateway() bool {
	for _, w := range l.mesh.Workloads.All() {
		if w.Gateway {
			return true
		}
	}
	return false
}

// builtIn reports whether a selector picks the gateway that a mesh is installed with, or that for requests which leave it.
func builtIn(selector map[string]string) bool {
	return model.Selects(selector, parts.IngressSelector()) || model.Selects(selector, map[string]string{parts.IstioLabel: "egressgateway"})
}
