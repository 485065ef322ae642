package mesh

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/wire"
)

// objects gives what a runtime reports to the control plane: Services with their addresses, Pods, EndpointSlices.
func objects(services []*corev1.Service, pods []*Pod) []source.Kube {
	var all []source.Kube
	for _, p := range pods {
		all = append(all, p.object())
	}
	for _, s := range services {
		all = append(all, s)
		if len(s.Spec.Selector) > 0 {
			all = append(all, slice(s, pods))
		}
	}
	return all
}

// object is the Pod as a cluster shows it.
func (p *Pod) object() *corev1.Pod {
	ready := corev1.ConditionFalse
	if p.ready && !p.leaving {
		ready = corev1.ConditionTrue
	}
	controller := true
	labels := maps.Clone(p.Labels)
	if p.role() == wire.Sidecar {
		labels["security.istio.io/tlsMode"] = "istio"
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, Labels: labels, CreationTimestamp: metav1.Time{Time: p.born},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "Deployment", Name: p.Workload, Controller: &controller,
			}},
		},
		Spec: corev1.PodSpec{ServiceAccountName: p.ServiceAccount, Containers: p.spec.Containers},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: p.IP.String(), PodIPs: []corev1.PodIP{{IP: p.IP.String()}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		},
	}
}

// slice lists the pods behind a service. Those that are not ready are in it and marked, as in a cluster.
func slice(s *corev1.Service, pods []*Pod) *discoveryv1.EndpointSlice {
	es := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name + "-weft", Namespace: s.Namespace, Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, port := range s.Spec.Ports {
		name, number, protocol := port.Name, targetPort(port, s, pods), cmp.Or(port.Protocol, corev1.ProtocolTCP)
		es.Ports = append(es.Ports, discoveryv1.EndpointPort{
			Name: &name, Port: &number, Protocol: &protocol, AppProtocol: port.AppProtocol,
		})
	}
	for _, p := range pods {
		if !selects(s, p) {
			continue
		}
		ready, terminating := p.ready && !p.leaving, p.leaving
		serving := p.ready
		es.Endpoints = append(es.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{p.IP.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name},
		})
	}
	return es
}

func selects(s *corev1.Service, p *Pod) bool {
	if s.Namespace != p.Namespace {
		return false
	}
	for k, v := range s.Spec.Selector {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

func targetPort(port corev1.ServicePort, s *corev1.Service, pods []*Pod) int32 {
	if port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal != 0 {
		return port.TargetPort.IntVal
	}
	for _, p := range pods {
		if port.TargetPort.Type != intstr.String || !selects(s, p) {
			continue
		}
		for _, c := range p.spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == port.TargetPort.StrVal {
					return cp.ContainerPort
				}
			}
		}
	}
	return port.Port
}

func byName[T source.Kube](all []T) []T {
	slices.SortFunc(all, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all
}
