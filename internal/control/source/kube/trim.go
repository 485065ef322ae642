package kube

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/weftmesh/weft/internal/control/source"
)

// lastApplied holds a second copy of each object that kubectl has applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// trim drops what nobody here reads and what would make up most of the memory of a large cluster. It changes the object, which is
// its caller's alone, and may be called again.
func trim(o any) {
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	m.SetManagedFields(nil)
	if a := m.GetAnnotations(); a[lastApplied] != "" {
		delete(a, lastApplied)
		m.SetAnnotations(a)
	}
	switch k := o.(type) {
	case *corev1.Pod:
		trimPod(k)
	case *appsv1.Deployment:
		k.Spec.Template.Spec, k.Status = trimSpec(&k.Spec.Template.Spec), appsv1.DeploymentStatus{}
	}
}

func trimPod(p *corev1.Pod) {
	p.Spec = trimSpec(&p.Spec)
	s := &p.Status
	conditions := s.Conditions[:0]
	for _, c := range s.Conditions {
		if c.Type == corev1.PodReady {
			conditions = append(conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
		}
	}
	p.Status = corev1.PodStatus{Phase: s.Phase, PodIP: s.PodIP, PodIPs: s.PodIPs, HostIP: s.HostIP, Conditions: conditions}
}

// trimSpec keeps what says who a pod is and where it listens.
func trimSpec(s *corev1.PodSpec) corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName: s.ServiceAccountName, NodeName: s.NodeName, HostNetwork: s.HostNetwork, Hostname: s.Hostname, Subdomain: s.Subdomain,
		Containers: trimContainers(s.Containers), InitContainers: trimContainers(s.InitContainers),
	}
}

func trimContainers(all []corev1.Container) []corev1.Container {
	kept := make([]corev1.Container, len(all))
	for i := range all {
		kept[i] = corev1.Container{Name: all[i].Name, Ports: all[i].Ports}
	}
	return kept
}

// authorityKey is where ConfigMaps keep certificates that others refer to; no other ConfigMap concerns the mesh.
const authorityKey = "ca.crt"

// wanted tells what of the kinds that are read is of use.
func wanted(o source.Kube) bool {
	if c, ok := o.(*corev1.ConfigMap); ok {
		_, has := c.Data[authorityKey]
		return has
	}
	return true
}

// split takes the status, and what changes with it alone, out of an object.
func split(u *unstructured.Unstructured) (status any) {
	status = u.Object["status"]
	delete(u.Object, "status")
	u.SetResourceVersion("")
	return status
}
