package local

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

func TestSettledNeedsEveryReadyInstance(t *testing.T) {
	yes, no := true, false
	slice := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{
		{TargetRef: &corev1.ObjectReference{Name: "a"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
		{TargetRef: &corev1.ObjectReference{Name: "b"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		{TargetRef: &corev1.ObjectReference{Name: "gateway", Namespace: "istio-system"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
	}}
	slice.Namespace = "default"
	a := &model.Endpoint{Namespace: "default", Instance: "a"}
	mesh := &model.Mesh{Services: model.TableOf(map[string]*model.Service{"s": {Endpoints: []*model.Endpoint{a}}})}
	if hasReady(mesh, []*discoveryv1.EndpointSlice{slice}) {
		t.Error("settled although the mesh does not know that a is ready")
	}
	a.Ready = true
	if !hasReady(mesh, []*discoveryv1.EndpointSlice{slice}) {
		t.Error("not settled although the mesh has all there is")
	}
}
