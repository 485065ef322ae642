package local

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/runtime/demand"
)

// gatewayServices are the Services by which workloads reach the built-in gateway, under the names that they have in a cluster: that of
// Istio's installation, with the ports of all Gateways that it serves, and NAME-CLASS for a Gateway of the Gateway API, with its own. None
// has no ports. mesh may be nil.
func gatewayServices(mesh *model.Mesh, objects []*source.Object) []*corev1.Service {
	if mesh == nil {
		return nil
	}
	builtIn := demand.GatewayWorkload(0)
	targets := gatewayTargets(mesh, builtIn)
	all, one := &gatewayPorts{targets: targets}, map[model.Ref]*gatewayPorts{}
	for _, g := range mesh.Gateways {
		if g.SelectorNamespace != "" && g.SelectorNamespace != builtIn.Namespace || !model.Selects(g.Selector, builtIn.Labels) {
			continue
		}
		own := &gatewayPorts{targets: targets}
		for i := range g.Servers {
			all.add(&g.Servers[i])
			own.add(&g.Servers[i])
		}
		one[g.Ref] = own
	}
	var list []*corev1.Service
	put := func(namespace, name string, labels, selector map[string]string, ports *gatewayPorts) {
		if len(ports.list) > 0 {
			list = append(list, ports.service(namespace, name, labels, selector))
		}
	}
	put(builtIn.Namespace, builtIn.Name, builtIn.Labels, builtIn.Labels, all)
	for _, o := range objects {
		g, ok := o.Kube.(*gatewayv1.Gateway)
		if ports := one[o.Ref()]; ok && ports != nil && len(g.Spec.Addresses) == 0 { // whoever names an address has a Service
			put(g.Namespace, g.Name+"-"+string(g.Spec.GatewayClassName), map[string]string{"gateway.networking.k8s.io/gateway-name": g.Name}, nil, ports)
		}
	}
	return list
}

// gatewayTargets are where the user's own Services lead on the gateway.
func gatewayTargets(mesh *model.Mesh, builtIn *demand.Workload) []model.Target {
	for _, w := range mesh.Workloads.All() {
		if w.Gateway && w.Namespace == builtIn.Namespace && w.Owner == builtIn.Name {
			return w.Targets
		}
	}
	return nil
}

// gatewayPorts gathers the ports of servers, in the order of their precedence.
type gatewayPorts struct {
	targets []model.Target
	list    []corev1.ServicePort
}

// add adds a server's port unless there is one of that number. Sidecars leave datagrams alone.
func (p *gatewayPorts) add(s *model.Server) {
	if s.Protocol == model.UDP || slices.ContainsFunc(p.list, func(o corev1.ServicePort) bool { return o.Port == int32(s.Port) }) {
		return
	}
	p.list = append(p.list, corev1.ServicePort{Name: serverScheme(s) + "-" + strconv.Itoa(int(s.Port)), Protocol: corev1.ProtocolTCP, Port: int32(s.Port),
		TargetPort: intstr.FromInt32(int32(model.TargetPort(p.targets, s.Port, false)))})
}

// service makes the Service, which does not count for the gateway's own ports: it follows them.
func (p *gatewayPorts) service(namespace, name string, labels, selector map[string]string) *corev1.Service {
	labels = maps.Clone(labels)
	labels[model.PortTranslationLabel] = "true"
	slices.SortFunc(p.list, func(a, b corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}, Spec: corev1.ServiceSpec{Selector: selector, Ports: p.list}}
}
