package source

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Pod is what the mesh reads of a pod. A corev1.Pod takes several times the memory even when nearly all of it is empty, so sources
// of large meshes publish this in its place (Compact).
type Pod struct {
	metav1.ObjectMeta
	ServiceAccount string // empty means "default"
	Phase          corev1.PodPhase
	IPs            []string
	Ports          []uint16 // TCP ports that its containers name, in their order
	HostNetwork    bool     // its addresses are its node's
	Ready          bool
}

// GetObjectKind implements runtime.Object: the kind is known by the type.
func (p *Pod) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object.
func (p *Pod) DeepCopyObject() runtime.Object {
	c := *p
	p.DeepCopyInto(&c.ObjectMeta)
	c.IPs, c.Ports = slices.Clone(p.IPs), slices.Clone(p.Ports)
	return &c
}

// MarshalJSON shows it as the pod that it is of, as far as that is known.
func (p *Pod) MarshalJSON() ([]byte, error) {
	o := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: p.ObjectMeta}
	o.Spec.ServiceAccountName, o.Spec.HostNetwork, o.Status.Phase = p.ServiceAccount, p.HostNetwork, p.Phase
	var ports []corev1.ContainerPort
	for _, n := range p.Ports {
		ports = append(ports, corev1.ContainerPort{ContainerPort: int32(n)})
	}
	o.Spec.Containers = []corev1.Container{{Ports: ports}}
	for i, ip := range p.IPs {
		if i == 0 {
			o.Status.PodIP = ip
		}
		o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if p.Ready {
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return json.Marshal(o)
}

// PodOf gives what the mesh reads of a pod, in whichever form a source published it; nil for other kinds.
func PodOf(k Kube) *Pod {
	switch p := k.(type) {
	case *Pod:
		return p
	case *corev1.Pod:
		return compactPod(p)
	}
	return nil
}

// Compact gives an object in the form that takes least memory. The given one is not to be used any more.
func Compact(k Kube) Kube {
	if p, ok := k.(*corev1.Pod); ok {
		return compactPod(p)
	}
	return k
}

func compactPod(o *corev1.Pod) *Pod {
	p := &Pod{ObjectMeta: o.ObjectMeta, ServiceAccount: o.Spec.ServiceAccountName, Phase: o.Status.Phase, HostNetwork: o.Spec.HostNetwork}
	for _, ip := range o.Status.PodIPs {
		p.IPs = append(p.IPs, ip.IP)
	}
	if len(p.IPs) == 0 && o.Status.PodIP != "" {
		p.IPs = []string{o.Status.PodIP}
	}
	for i := range o.Spec.Containers {
		for _, port := range o.Spec.Containers[i].Ports {
			if (port.Protocol == "" || port.Protocol == corev1.ProtocolTCP) && port.ContainerPort > 0 {
				p.Ports = append(p.Ports, uint16(port.ContainerPort))
			}
		}
	}
	p.Ready = slices.ContainsFunc(o.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	return p
}
