package idle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// ports warns of ports of a Gateway that no Service of its pods has: nothing from outside arrives there. Without such a Service
// nobody knows who comes.
func (l *lint) ports(o *source.Object) {
	i := slices.IndexFunc(l.mesh.Gateways, func(g *model.Gateway) bool { return g.Ref == o.Ref() })
	if i < 0 || len(l.mesh.Gateways[i].Selector) == 0 {
		return
	}
	g := l.mesh.Gateways[i]
	services := l.servicesOf(g)
	if len(services) == 0 {
		return
	}
	for i, s := range g.Servers {
		if !slices.ContainsFunc(services, func(svc *corev1.Service) bool { return exposes(svc, s.Port) }) {
			l.say(o, model.Warning, "PortNotFound", convert.At("spec.servers", i)+".port.number", "add the port to the Service",
				"no Service of the gateway's pods has port %d, such as Service %s/%s", s.Port, services[0].Namespace, services[0].Name)
		}
	}
}

// servicesOf gives the Services that lead to the pods which a Gateway selects.
func (l *lint) servicesOf(g *model.Gateway) []*corev1.Service {
	var list []*corev1.Service
	for _, o := range l.objects {
		svc, ok := o.Kube.(*corev1.Service)
		if !ok || len(svc.Spec.Selector) == 0 {
			continue
		}
		for _, w := range l.mesh.Workloads.All() {
			if w.Namespace == svc.Namespace && has(w.Labels, g.Selector) && has(w.Labels, svc.Spec.Selector) {
				list = append(list, svc)
				break
			}
		}
	}
	return list
}

// exposes reports whether a Service has a port, or leads to it. Where a port is named nobody knows which it is.
func exposes(svc *corev1.Service, port uint16) bool {
	return slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Port == int32(port) || p.TargetPort.IntVal == int32(port) || p.TargetPort.StrVal != ""
	})
}
