// Package workloads says what single Pods and WorkloadEntries are in a mesh: workloads, and endpoints of services. Who is an endpoint of
// what is found out by the compiler.
package workloads

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Annotations and labels of pods that say what they are in a mesh.
const (
	// sidecarAnnotation with the value "true" says that a sidecar is in front of the pod, as Istio's label tlsMode does.
	sidecarAnnotation = "weft.dev/sidecar"
	// gatewayAnnotation with the value "true" says that the pod is a gateway.
	gatewayAnnotation = "weft.dev/gateway"

	injectLabel              = "sidecar.istio.io/inject"
	istioStatusAnnotation    = "sidecar.istio.io/status"
	istioTemplatesAnnotation = "inject.istio.io/templates"
	localityLabel            = "istio-locality"
)

// Ended reports whether a pod runs no more.
func Ended(pod *source.Pod) bool {
	return pod.Phase == corev1.PodSucceeded || pod.Phase == corev1.PodFailed
}

// Placed reports whether a pod has its addresses to itself; otherwise they are the node's.
func Placed(pod *source.Pod) bool { return !Ended(pod) && !pod.HostNetwork }

// OfPod is a pod as a workload, without what services say of its ports.
func OfPod(pod *source.Pod) *model.Workload {
	w := &model.Workload{
		Namespace: pod.Namespace, Name: pod.Name, Owner: podOwner(pod), Labels: pod.Labels,
		Locality: localityOf(pod.Labels), ServiceAccount: serviceAccount(pod), Gateway: IsGateway(pod.Labels, pod.Annotations), Ready: pod.Ready,
		ProxyProtocol: parts.PodHeader(pod.Annotations),
	}
	w.Bare = !w.Gateway && !hasSidecar(pod) && (pod.Labels[injectLabel] == "false" || pod.Annotations[injectLabel] == "false")
	for _, ip := range pod.IPs {
		addAddress(w, ip)
	}
	for _, port := range pod.Ports {
		AddPort(w, model.WorkloadPort{Number: port, Protocol: model.Auto})
	}
	return w
}

// Describe says of an endpoint what is known of its pod.
func Describe(ep *model.Endpoint, pod *source.Pod) {
	ep.Instance, ep.Namespace, ep.Labels = pod.Name, pod.Namespace, pod.Labels
	ep.ServiceAccount, ep.Workload, ep.Mesh = serviceAccount(pod), podOwner(pod), hasSidecar(pod)
	ep.Proxyless = isProxyless(pod.Annotations)
	if l := localityOf(pod.Labels); l != "" {
		ep.Locality = l
	}
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
func podOwner(pod *source.Pod) string {
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

func serviceAccount(pod *source.Pod) string {
	return cmp.Or(pod.ServiceAccount, "default")
}

// IsGateway reports whether a pod, or who a WorkloadEntry stands for, is a gateway: its annotations say so, or it has the label of one of
// those that Istio installs.
func IsGateway(labels, annotations map[string]string) bool {
	if annotations[gatewayAnnotation] == "true" || strings.Contains(annotations[istioTemplatesAnnotation], "gateway") {
		return true
	}
	l := labels[parts.IstioLabel]
	return l == "ingressgateway" || l == "egressgateway"
}

// isProxyless reports whether the own gRPC library of a pod, or of who a WorkloadEntry stands for, is in the mesh, in the way in which
// Istio's users ask for it.
func isProxyless(annotations map[string]string) bool {
	return slices.Contains(strings.Split(annotations[istioTemplatesAnnotation], ","), "grpc-agent")
}

func hasSidecar(pod *source.Pod) bool {
	return pod.Labels[parts.TLSModeLabel] == "istio" || pod.Annotations[sidecarAnnotation] == "true" || pod.Annotations[istioStatusAnnotation] != ""
}
