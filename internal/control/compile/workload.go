package compile

import (
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// Annotations and labels of pods that the compiler reads.
const (
	// SidecarAnnotation with the value "true" says that a sidecar is in front of the pod, as Istio's label tlsMode does.
	SidecarAnnotation = "weft.dev/sidecar"
	// GatewayAnnotation with the value "true" says that the pod is a gateway.
	GatewayAnnotation = "weft.dev/gateway"

	istioStatusAnnotation    = "sidecar.istio.io/status"
	istioTemplatesAnnotation = "inject.istio.io/templates"
	localityLabel            = "istio-locality"
)

// podSeat is a pod and the workload that was made of it.
type podSeat struct {
	pod      *corev1.Pod
	workload *model.Workload
}

// addWorkloads puts pods and WorkloadEntries into the mesh.
func (c *compiler) addWorkloads() {
	for _, p := range c.byKind["Pod"] {
		pod, ok := p.Kube.(*corev1.Pod)
		if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		w := podWorkload(pod)
		c.mesh.Workloads.Put(pod.Namespace+"/"+pod.Name, w)
		if pod.Spec.HostNetwork {
			continue // the address is the node's
		}
		for _, a := range w.Addresses {
			c.placed[a] = podSeat{pod, w}
		}
	}
	for _, p := range c.byKind["WorkloadEntry"] {
		if e, ok := p.Kube.(*networking.WorkloadEntry); ok {
			c.addWorkloadEntry(e)
		}
	}
}

func podWorkload(pod *corev1.Pod) *model.Workload {
	w := &model.Workload{
		Namespace: pod.Namespace, Name: pod.Name, Owner: podOwner(pod), Labels: pod.Labels,
		Locality: localityOf(pod.Labels), ServiceAccount: serviceAccount(pod), Gateway: isGateway(pod), Ready: isReady(pod),
		ProxyProtocol: convert.PodHeader(pod.Annotations),
	}
	for _, ip := range pod.Status.PodIPs {
		addAddress(w, ip.IP)
	}
	if len(pod.Status.PodIPs) == 0 {
		addAddress(w, pod.Status.PodIP)
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if (port.Protocol == "" || port.Protocol == corev1.ProtocolTCP) && port.ContainerPort > 0 {
				addPort(w, model.WorkloadPort{Number: uint16(port.ContainerPort), Protocol: model.Auto})
			}
		}
	}
	return w
}

// localityOf reads the labels that say where a pod runs, in Istio's form or Kubernetes' own.
func localityOf(labels map[string]string) string {
	if l := labels[localityLabel]; l != "" {
		return strings.ReplaceAll(l, ".", "/")
	}
	region, zone := labels[model.RegionLabel], labels[model.ZoneLabel]
	if region == "" && zone == "" {
		return ""
	}
	l := region + "/" + zone
	if s := labels[model.SubzoneLabel]; s != "" {
		l += "/" + s
	}
	return l
}

// podOwner names what a user calls the workload: the Deployment. A ReplicaSet is called after its Deployment and a hash.
func podOwner(pod *corev1.Pod) string {
	hash := pod.Labels["pod-template-hash"]
	for _, ref := range pod.OwnerReferences {
		if ref.Controller != nil && !*ref.Controller {
			continue
		}
		if ref.Kind == "ReplicaSet" {
			if i := strings.LastIndexByte(ref.Name, '-'); hash == "" && i > 0 {
				return ref.Name[:i]
			}
			return strings.TrimSuffix(ref.Name, "-"+hash)
		}
		return ref.Name
	}
	return pod.Name
}

func serviceAccount(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func isGateway(pod *corev1.Pod) bool {
	if pod.Annotations[GatewayAnnotation] == "true" || strings.Contains(pod.Annotations[istioTemplatesAnnotation], "gateway") {
		return true
	}
	l := pod.Labels[convert.IstioLabel]
	return l == "ingressgateway" || l == "egressgateway"
}

// isProxyless reports whether the pod's own gRPC library is in the mesh, in the way in which Istio's users ask for it.
func isProxyless(pod *corev1.Pod) bool {
	return slices.Contains(strings.Split(pod.Annotations[istioTemplatesAnnotation], ","), "grpc-agent")
}

func hasSidecar(pod *corev1.Pod) bool {
	return pod.Labels[convert.TLSModeLabel] == "istio" || pod.Annotations[SidecarAnnotation] == "true" || pod.Annotations[istioStatusAnnotation] != ""
}

func (c *compiler) addWorkloadEntry(e *networking.WorkloadEntry) {
	w := &model.Workload{Namespace: e.Namespace, Name: e.Name, Owner: e.Name, Labels: entryLabels(e), Locality: e.Spec.Locality,
		ServiceAccount: e.Spec.ServiceAccount, Ready: true}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	if a, err := netip.ParseAddr(e.Spec.Address); err == nil {
		w.Addresses = []netip.Addr{a.Unmap()}
	}
	for _, name := range sortedKeys(e.Spec.Ports) {
		addPort(w, model.WorkloadPort{Number: uint16(e.Spec.Ports[name]), Protocol: model.Auto})
	}
	c.mesh.Workloads.Put(w.Namespace+"/"+w.Name, w)
}

// entryLabels merges the labels of object and spec; the spec's are the instance's own.
func entryLabels(e *networking.WorkloadEntry) map[string]string {
	labels := map[string]string{}
	for k, v := range e.Labels {
		labels[k] = v
	}
	for k, v := range e.Spec.Labels {
		labels[k] = v
	}
	return labels
}

func addAddress(w *model.Workload, ip string) {
	if a, err := netip.ParseAddr(ip); err == nil {
		w.Addresses = append(w.Addresses, a.Unmap())
	}
}

// addPort adds a port, or tells which service leads to a port that is there already.
func addPort(w *model.Workload, port model.WorkloadPort) {
	i, found := slices.BinarySearchFunc(w.Ports, port.Number, func(p model.WorkloadPort, n uint16) int { return int(p.Number) - int(n) })
	if !found {
		w.Ports = slices.Insert(w.Ports, i, port)
		return
	}
	if have := &w.Ports[i]; have.ServiceHost == "" || port.ServiceHost != "" && port.ServiceHost < have.ServiceHost {
		*have = port
	}
}

// selects reports whether labels fulfil a selector; an empty one selects everything.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
