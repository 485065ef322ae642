// Package planned gives objects that run nowhere the instances that they ask for, so that a mesh can be judged from its files alone:
// the Pods of Deployments, the EndpointSlices of Services and the gateways that Gateways select. Names and addresses follow from the
// objects, and the same objects give the same instances.
package planned

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Labels and annotations that instances bear.
const (
	tlsModeLabel = "security.istio.io/tlsMode"
	injectLabel  = "sidecar.istio.io/inject"
)

// maxReplicas bounds the instances that are made of one Deployment.
const maxReplicas = 100

// Complete gives the objects and, after them, the instances that they ask for and that are not among them. A Deployment of which
// there is a Pod has its instances already.
func Complete(objects []*source.Object) []*source.Object {
	p := &plan{taken: map[netip.Addr]bool{}, running: map[string]bool{}}
	for _, o := range objects {
		p.note(o.Kube)
	}
	for _, o := range objects {
		if d, ok := o.Kube.(*appsv1.Deployment); ok && !p.running[d.Namespace+"/"+d.Name] {
			p.deployment(d)
		}
	}
	for _, o := range objects {
		p.gatewayOf(o.Kube)
	}
	for _, s := range p.services {
		p.slices(s)
	}
	out := slices.Clip(objects)
	for _, k := range p.made {
		if o, err := source.FromKube(source.LayerRuntime, k); err == nil { // its kinds are all known
			out = append(out, o)
		}
	}
	return out
}

// plan is what is being made.
type plan struct {
	made     []source.Kube
	pods     []*corev1.Pod // of those made
	every    []*corev1.Pod
	entries  []map[string]string // the labels of WorkloadEntries
	services []*corev1.Service
	taken    map[netip.Addr]bool
	running  map[string]bool // Deployments with Pods, as "namespace/name"
}

// note takes in what there is.
func (p *plan) note(k source.Kube) {
	switch o := k.(type) {
	case *corev1.Service:
		p.services = append(p.services, o)
	case *corev1.Pod:
		p.every = append(p.every, o)
		for _, ip := range o.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				p.taken[a] = true
			}
		}
		for _, ref := range o.OwnerReferences {
			name := ref.Name
			if ref.Kind == "ReplicaSet" {
				name = strings.TrimSuffix(name, "-"+o.Labels["pod-template-hash"])
			}
			p.running[o.Namespace+"/"+name] = true
		}
	case *networking.WorkloadEntry:
		p.entries = append(p.entries, workloads.Labels(o))
	}
}

func (p *plan) deployment(d *appsv1.Deployment) {
	replicas := 1
	if d.Spec.Replicas != nil {
		replicas = min(int(*d.Spec.Replicas), maxReplicas)
	}
	for i := range replicas {
		pod := p.pod(d.Namespace, d.Name, i+1)
		d.Spec.Template.ObjectMeta.DeepCopyInto(&pod.ObjectMeta)
		pod.Namespace, pod.Name = cmp.Or(d.Namespace, source.DefaultNamespace), d.Name+"-"+strconv.Itoa(i+1)
		d.Spec.Template.Spec.DeepCopyInto(&pod.Spec)
		own(pod, d.Name)
		label(pod)
	}
}

// pod makes an instance that is ready; its owner fills in the rest.
func (p *plan) pod(namespace, owner string, number int) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: cmp.Or(namespace, source.DefaultNamespace), Name: owner + "-" + strconv.Itoa(number)}}
	ip := p.address(pod.Namespace + "/" + pod.Name).String()
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	p.made, p.pods, p.every = append(p.made, pod), append(p.pods, pod), append(p.every, pod)
	return pod
}

func own(pod *corev1.Pod, name string) {
	controller := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: name, Controller: &controller}}
}

// label says that there is a sidecar, unless the user wants none.
func label(pod *corev1.Pod) {
	if pod.Labels[injectLabel] == "false" || pod.Annotations[injectLabel] == "false" || workloads.IsGateway(pod.Labels, pod.Annotations) {
		return
	}
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[tlsModeLabel] = "istio"
	pod.Labels = labels
}

// address is one of 240.0.0.0/4, which no network uses (RFC 1112 section 4), found by the instance's name.
func (p *plan) address(name string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(name))
	for n := h.Sum32(); ; n++ {
		n |= 0xf0000000
		a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		if !p.taken[a] && n&0xff != 0 && n&0xff != 0xff {
			p.taken[a] = true
			return a
		}
	}
}

// gatewayOf makes the gateway that a Gateway selects, or that serves an Ingress, where there is none.
func (p *plan) gatewayOf(k source.Kube) {
	switch g := k.(type) {
	case *networking.Gateway:
		selector := g.Spec.Selector
		if len(selector) == 0 {
			selector = ingressLabels
		}
		p.gateway(selector)
	case *gatewayv1.Gateway, *networkingv1.Ingress:
		p.gateway(ingressLabels)
	}
}

// ingressLabels are those of the gateway of Istio's installation, and of a local mesh.
var ingressLabels = map[string]string{"istio": "ingressgateway"}

func (p *plan) gateway(selector map[string]string) {
	if slices.ContainsFunc(p.every, func(pod *corev1.Pod) bool { return model.Selects(selector, pod.Labels) }) ||
		slices.ContainsFunc(p.entries, func(labels map[string]string) bool { return model.Selects(selector, labels) }) {
		return
	}
	kind := selector["istio"]
	name := "istio-" + kind
	if kind == "" {
		keys := slices.Sorted(maps.Keys(selector))
		name = cmp.Or(selector["app"], selector[keys[0]])
	}
	pod := p.pod("istio-system", name, 1)
	pod.Labels = map[string]string{"app": name}
	maps.Copy(pod.Labels, selector)
	pod.Annotations = map[string]string{"weft.dev/gateway": "true"}
	pod.Spec.ServiceAccountName = name + "-service-account"
	own(pod, name)
}

// slices gives a Service the instances that were made and that it selects.
func (p *plan) slices(s *corev1.Service) {
	for _, slice := range slicesOf(s, p.pods, "planned", func(pod *corev1.Pod) ([]discoveryv1.EndpointPort, discoveryv1.Endpoint) {
		ready := true
		return portsOf(s, pod), discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}}
	}) {
		p.made = append(p.made, slice)
	}
}

// slicesOf makes those of a Service for the Pods that it selects, by kind in their names; Pods with the same ports share one. each gives a
// Pod's ports and its endpoint, but for the address.
func slicesOf(s *corev1.Service, pods []*corev1.Pod, kind string, each func(*corev1.Pod) ([]discoveryv1.EndpointPort, discoveryv1.Endpoint)) (all []*discoveryv1.EndpointSlice) {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	byPorts := map[string]*discoveryv1.EndpointSlice{}
	for _, pod := range pods {
		ip, err := netip.ParseAddr(pod.Status.PodIP)
		if err != nil || pod.Namespace != cmp.Or(s.Namespace, source.DefaultNamespace) || !model.Selects(s.Spec.Selector, pod.Labels) {
			continue
		}
		ports, endpoint := each(pod)
		endpoint.Addresses = []string{pod.Status.PodIP}
		family := discoveryv1.AddressTypeIPv4
		if ip.Is6() {
			family = discoveryv1.AddressTypeIPv6
		}
		id := fmt.Sprint(family, portNumbers(ports))
		slice := byPorts[id]
		if slice == nil {
			slice = &discoveryv1.EndpointSlice{AddressType: family, Ports: ports,
				ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("%s-%s-%d", s.Name, kind, len(all)+1),
					Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}}}
			byPorts[id], all = slice, append(all, slice)
		}
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	return all
}

// portsOf resolves a Service's ports on an instance; a name that the instance lacks is left out, as in a cluster.
func portsOf(s *corev1.Service, pod *corev1.Pod) (out []discoveryv1.EndpointPort) {
	for i := range s.Spec.Ports {
		sp := &s.Spec.Ports[i]
		number := sp.TargetPort.IntVal
		switch {
		case sp.TargetPort.Type == intstr.String:
			number = named(pod, sp.TargetPort.StrVal)
		case number == 0:
			number = sp.Port
		}
		if number == 0 {
			continue
		}
		name, protocol := sp.Name, cmp.Or(sp.Protocol, corev1.ProtocolTCP)
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol, AppProtocol: sp.AppProtocol})
	}
	return out
}

func named(pod *corev1.Pod, name string) int32 {
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func portNumbers(ports []discoveryv1.EndpointPort) (out []int32) {
	for _, p := range ports {
		out = append(out, *p.Port)
	}
	return out
}
