package source

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCompactPodsSayTheSame(t *testing.T) {
	full := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a-1", Namespace: "n", Labels: map[string]string{"app": "a"}},
			Spec: corev1.PodSpec{ServiceAccountName: "a", HostNetwork: true, Containers: []corev1.Container{
				{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}}},
				{Name: "other", Ports: []corev1.ContainerPort{{ContainerPort: 81, Protocol: corev1.ProtocolTCP}}},
			}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
				Conditions: []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}
	}
	want := &Pod{ObjectMeta: full().ObjectMeta, ServiceAccount: "a", Phase: corev1.PodRunning, IPs: []string{"10.0.0.1", "fd00::1"},
		Ports: []uint16{80, 81}, HostNetwork: true, Ready: true}
	if got := PodOf(full()); !reflect.DeepEqual(got, want) {
		t.Errorf("of the whole one: %+v", got)
	}
	if got := PodOf(Compact(full())); !reflect.DeepEqual(got, want) {
		t.Errorf("of the compact one: %+v", got)
	}
	if PodOf(&corev1.Service{}) != nil {
		t.Error("a Service is a pod")
	}

	o, err := FromKube("test", Compact(full()))
	if err != nil {
		t.Fatal(err)
	}
	if o.Key() != (Key{Kind: "Pod", Namespace: "n", Name: "a-1"}) {
		t.Error(o.Key())
	}
	raw, err := json.Marshal(o.Kube)
	if err != nil {
		t.Fatal(err)
	}
	var shown corev1.Pod
	if err := json.Unmarshal(raw, &shown); err != nil {
		t.Fatal(err)
	}
	if got := PodOf(&shown); shown.Kind != "Pod" || !reflect.DeepEqual(got, want) {
		t.Errorf("shown as %s", raw)
	}
	if copied := want.DeepCopyObject(); !reflect.DeepEqual(copied, want) {
		t.Errorf("copied: %+v", copied)
	}

	notReady := full()
	notReady.Status = corev1.PodStatus{PodIP: "10.0.0.2"}
	if got := PodOf(notReady); got.Ready || !reflect.DeepEqual(got.IPs, []string{"10.0.0.2"}) {
		t.Errorf("without list of addresses: %+v", got)
	}
}
