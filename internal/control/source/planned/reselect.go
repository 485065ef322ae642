package planned

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Those who make EndpointSlices of the Pods that Services select, as they label them: the local runtime, and Kubernetes.
const (
	byRuntime = "weft"
	byCluster = "endpointslice-controller.k8s.io"
)

// Reselect gives the objects of a running mesh as they would be after a change, with the EndpointSlices of the Services that are new in
// it, or select otherwise than before, made anew of the Pods, as those who observe these would. Slices that somebody wrote stay.
func Reselect(before, after []*source.Object) []*source.Object {
	was := map[string]*corev1.Service{}
	for _, o := range before {
		if s, ok := o.Kube.(*corev1.Service); ok {
			was[full(s)] = s
		}
	}
	changed := map[string]*corev1.Service{}
	var order []*corev1.Service
	for _, o := range after {
		if s, ok := o.Kube.(*corev1.Service); ok && !selectsAlike(was[full(s)], s) {
			changed[full(s)] = s
			order = append(order, s)
		}
	}
	if len(order) == 0 {
		return after
	}
	seen := observe(before, was)
	var out []*source.Object
	var pods []*corev1.Pod
	for _, o := range after {
		switch k := o.Kube.(type) {
		case *discoveryv1.EndpointSlice:
			if s := changed[k.Namespace+"/"+k.Labels[discoveryv1.LabelServiceName]]; s != nil && remade(k, s) {
				continue
			}
		case *corev1.Pod:
			if k.Status.Phase != corev1.PodSucceeded && k.Status.Phase != corev1.PodFailed {
				pods = append(pods, k)
			}
		}
		out = append(out, o)
	}
	for _, s := range order {
		for _, slice := range seen.slices(s, pods) {
			if o, err := source.FromKube(source.LayerRuntime, slice); err == nil { // its kind is known
				out = append(out, o)
			}
		}
	}
	return out
}

func full(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// selectsAlike reports that a Service has the same endpoints as before.
func selectsAlike(was, s *corev1.Service) bool {
	if was == nil || was.Spec.PublishNotReadyAddresses != s.Spec.PublishNotReadyAddresses ||
		len(was.Spec.Selector) != len(s.Spec.Selector) || !model.Selects(was.Spec.Selector, s.Spec.Selector) || len(was.Spec.Ports) != len(s.Spec.Ports) {
		return false
	}
	for i := range s.Spec.Ports {
		if !reflect.DeepEqual(was.Spec.Ports[i], s.Spec.Ports[i]) {
			return false
		}
	}
	return true
}

// remade reports whether a slice follows its Service. Kubernetes leaves those of one that selects nothing any more.
func remade(slice *discoveryv1.EndpointSlice, s *corev1.Service) bool {
	by := slice.Labels[discoveryv1.LabelManagedBy]
	return by == byRuntime || by == byCluster && len(s.Spec.Selector) > 0
}

// observed is what the slices before the change tell of Pods, by "namespace/name".
type observed struct {
	endpoints map[string]discoveryv1.Endpoint
	// ports are where the ports of containers are reached: elsewhere, where workloads share the network of the machine.
	ports map[string]map[int32]int32
}

func observe(before []*source.Object, services map[string]*corev1.Service) observed {
	seen := observed{map[string]discoveryv1.Endpoint{}, map[string]map[int32]int32{}}
	pods := map[string]*corev1.Pod{}
	for _, o := range before {
		if p, ok := o.Kube.(*corev1.Pod); ok {
			pods[full(p)] = p
		}
	}
	for _, o := range before {
		slice, ok := o.Kube.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		s := services[slice.Namespace+"/"+slice.Labels[discoveryv1.LabelServiceName]]
		for _, e := range slice.Endpoints {
			if e.TargetRef == nil || s == nil {
				continue
			}
			if p := pods[e.TargetRef.Namespace+"/"+e.TargetRef.Name]; p != nil {
				seen.note(s, slice, p, e)
			}
		}
	}
	return seen
}

func (seen observed) note(s *corev1.Service, slice *discoveryv1.EndpointSlice, p *corev1.Pod, e discoveryv1.Endpoint) {
	k := full(p)
	seen.endpoints[k] = e
	if seen.ports[k] == nil {
		seen.ports[k] = map[int32]int32{}
	}
	for _, declared := range portsOf(s, p) {
		for _, found := range slice.Ports {
			if found.Name != nil && found.Port != nil && *found.Name == *declared.Name {
				seen.ports[k][*declared.Port] = *found.Port
			}
		}
	}
}

// slices makes those of a Service, as the local runtime's.
func (seen observed) slices(s *corev1.Service, pods []*corev1.Pod) []*discoveryv1.EndpointSlice {
	all := slicesOf(s, pods, "reselected", func(p *corev1.Pod) ([]discoveryv1.EndpointPort, discoveryv1.Endpoint) {
		ports := portsOf(s, p)
		for i := range ports {
			if n, ok := seen.ports[full(p)][*ports[i].Port]; ok {
				ports[i].Port = &n
			}
		}
		return ports, seen.endpoint(s, p)
	})
	for _, slice := range all {
		slice.Labels[discoveryv1.LabelManagedBy] = byRuntime
	}
	return all
}

// endpoint is a Pod's, with what is known of it from other slices, such as its zone.
func (seen observed) endpoint(s *corev1.Service, p *corev1.Pod) discoveryv1.Endpoint {
	e := seen.endpoints[full(p)]
	serving, terminating := false, p.DeletionTimestamp != nil
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			serving = c.Status == corev1.ConditionTrue
		}
	}
	ready := serving && !terminating || s.Spec.PublishNotReadyAddresses
	e.Hints = nil // another Service's
	e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
	if e.NodeName == nil && p.Spec.NodeName != "" {
		e.NodeName = &p.Spec.NodeName
	}
	return e
}
