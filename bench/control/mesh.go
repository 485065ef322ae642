package main

import (
	"fmt"
	"net/netip"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/wire"
)

// size of the simulated mesh. Its objects are what a cluster would report: for each service a Service, an EndpointSlice, and a Pod for
// each endpoint. Every pod has a sidecar; those that connect are the proxies of the benchmark.
type size struct{ services, endpoints int }

const (
	namespace   = "shop"
	trustDomain = "cluster.local"
	port        = 8080
)

func serviceName(i int) string { return fmt.Sprintf("service-%05d", i) }

func host(i int) string { return serviceName(i) + "." + namespace + ".svc.cluster.local" }

func clusterName(i int) string { return wire.OutboundCluster(port, "", host(i)) }

func podName(service, instance int) string {
	return fmt.Sprintf("%s-7d4b9c6f5-%04d", serviceName(service), instance)
}

// podAddress is another one for each version of the pod.
func podAddress(service, instance, version int) string {
	return netip.AddrFrom4([4]byte{10, byte(64 + (instance+version*7)%190), byte(service >> 8), byte(service)}).String()
}

func (z size) objects() []source.Kube {
	var all []source.Kube
	for i := range z.services {
		all = append(all, service(i), z.slice(i, 0))
		for e := range z.endpoints {
			all = append(all, pod(i, e, podAddress(i, e, 0)))
		}
	}
	return all
}

func service(i int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(i), Namespace: namespace},
		Spec: corev1.ServiceSpec{
			ClusterIP: netip.AddrFrom4([4]byte{10, 255, byte(i >> 8), byte(i)}).String(),
			Selector:  map[string]string{"app": serviceName(i)},
			Ports:     []corev1.ServicePort{{Name: "http", Port: port}},
		},
	}
}

// slice gives the endpoints of a service. The first one has been replaced as often as version says.
func (z size) slice(i, version int) *discoveryv1.EndpointSlice {
	name, number, protocol, ready := "http", int32(port), corev1.ProtocolTCP, true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(i) + "-x7k2p", Namespace: namespace,
			Labels: map[string]string{discoveryv1.LabelServiceName: serviceName(i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &protocol}},
	}
	for e := range z.endpoints {
		v := 0
		if e == 0 {
			v = version
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{podAddress(i, e, v)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: podName(i, e)},
		})
	}
	return s
}

func pod(service, instance int, address string) *corev1.Pod {
	controller := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName(service, instance), Namespace: namespace,
			Labels: map[string]string{"app": serviceName(service), "version": "v1", "pod-template-hash": "7d4b9c6f5", "security.istio.io/tlsMode": "istio"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: serviceName(service) + "-7d4b9c6f5",
				Controller: &controller}}},
		Spec: corev1.PodSpec{ServiceAccountName: serviceName(service),
			Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: port}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// route is a VirtualService whose time-out is another one for each version.
func route(i, version int) *networking.VirtualService {
	header := map[string]*networkingapi.StringMatch{"x-version": {MatchType: &networkingapi.StringMatch_Exact{Exact: fmt.Sprint(version)}}}
	to := []*networkingapi.HTTPRouteDestination{{Destination: &networkingapi.Destination{Host: serviceName(i)}}}
	return &networking.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(i), Namespace: namespace},
		Spec: networkingapi.VirtualService{Hosts: []string{serviceName(i)}, Http: []*networkingapi.HTTPRoute{
			{Match: []*networkingapi.HTTPMatchRequest{{Headers: header}}, Route: to}, {Route: to}}},
	}
}
