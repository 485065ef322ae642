package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Annotations and labels of pods that the compiler reads.
const (
	// SidecarAnnotation with the value "true" says that a sidecar is in front of the pod, as Istio's label tlsMode does.
	SidecarAnnotation = "weft.dev/sidecar"
	// GatewayAnnotation with the value "true" says that the pod is a gateway.
	GatewayAnnotation = "weft.dev/gateway"

	injectLabel              = "sidecar.istio.io/inject"
	istioStatusAnnotation    = "sidecar.istio.io/status"
	istioTemplatesAnnotation = "inject.istio.io/templates"
	localityLabel            = "istio-locality"
)

// instance names a workload.
type instance struct{ namespace, name string }

func (i instance) String() string { return i.namespace + "/" + i.name }

// lead is an endpoint of a service that is a workload: of the first, or of what others say of its host.
type lead struct {
	unit *unit
	nth  int
	ep   *model.Endpoint
}

func (l lead) service() *model.Service {
	if l.nth == 0 {
		return l.unit.service
	}
	return l.unit.service.Others[l.nth-1]
}

// moveLeads has the workloads that are a service's endpoints know it. Same says that all else of the service is as it was.
func (k *Compiler) moveLeads(u *unit, old, s *model.Service, same bool) {
	keep := map[*model.Endpoint]bool{}
	if same {
		for o := range s.All() {
			for _, ep := range o.Endpoints {
				keep[ep] = true
			}
		}
	}
	had := map[*model.Endpoint]bool{}
	for o := range old.All() {
		for _, ep := range o.Endpoints {
			if keep[ep] {
				had[ep] = true
				continue
			}
			i := instance{ep.Namespace, ep.Instance}
			if list := slices.DeleteFunc(k.leads[i], func(l lead) bool { return l.unit == u && l.ep == ep }); len(list) > 0 {
				k.leads[i] = list
			} else {
				delete(k.leads, i)
			}
			k.stirred[i] = struct{}{}
		}
	}
	nth := 0
	for o := range s.All() {
		for _, ep := range o.Endpoints {
			if had[ep] || ep.Instance == "" {
				continue
			}
			i := instance{ep.Namespace, ep.Instance}
			k.leads[i] = append(k.leads[i], lead{u, nth, ep})
			k.stirred[i] = struct{}{}
		}
		nth++
	}
}

// joinWorkloads makes those that may have changed.
func (k *Compiler) joinWorkloads() {
	for i := range k.stirred {
		k.setWorkload(i, k.workload(i))
	}
	clear(k.stirred)
}

// workload makes a workload of a WorkloadEntry or pod, with the ports that services have of it; nil when there is none.
func (k *Compiler) workload(i instance) *model.Workload {
	var w *model.Workload
	if r := k.records[model.Ref{Kind: "WorkloadEntry", Namespace: i.namespace, Name: i.name}]; r != nil && !r.refused {
		if e, ok := r.Kube.(*networking.WorkloadEntry); ok {
			w = entryWorkload(e)
		}
	} else if r := k.records[model.Ref{Kind: "Pod", Namespace: i.namespace, Name: i.name}]; r != nil && !r.refused {
		if pod := source.PodOf(r.Kube); pod != nil && !ended(pod) {
			w = podWorkload(pod)
		}
	}
	if w == nil {
		return nil
	}
	leads := slices.Clone(k.leads[i])
	slices.SortFunc(leads, func(a, b lead) int {
		return cmp.Or(strings.Compare(a.unit.name, b.unit.name), cmp.Compare(a.nth, b.nth), compareEndpoints(a.ep, b.ep))
	})
	for _, l := range leads {
		if _, err := netip.ParseAddr(l.ep.Address); err != nil {
			continue
		}
		for _, port := range l.service().Ports {
			if target, ok := l.ep.Ports[port.Number]; ok {
				addPort(w, model.WorkloadPort{Number: target, Protocol: port.Protocol, ServiceHost: l.unit.name, ServicePort: port.Number})
			}
		}
	}
	return w
}

// setWorkload puts a workload into the mesh, and passes on what differs from before.
func (k *Compiler) setWorkload(i instance, w *model.Workload) {
	name := i.String()
	old := k.mesh.Workloads.Get(name)
	if old == nil && w == nil || old != nil && w != nil && reflect.DeepEqual(old, w) {
		return
	}
	k.delta.Workloads[name] = true
	if w == nil {
		k.mesh.Workloads.Delete(name)
	} else {
		k.mesh.Workloads.Put(name, w)
	}
	if old != nil && old.Gateway || w != nil && w.Gateway {
		delete(k.gates, i)
		if w != nil && w.Gateway {
			k.gates[i] = w
		}
		k.dirty(topic{about: onGateways})
	}
	if isOpaque(old) || isOpaque(w) {
		k.setOpaque(i, w)
	}
}

// isOpaque reports whether a workload has ports, none of which carries HTTP.
func isOpaque(w *model.Workload) bool {
	return w != nil && len(w.Ports) > 0 &&
		!slices.ContainsFunc(w.Ports, func(port model.WorkloadPort) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto })
}

func (k *Compiler) setOpaque(i instance, w *model.Workload) {
	list := k.opaque[i.namespace]
	if list == nil {
		list = map[string]*model.Workload{}
		k.opaque[i.namespace] = list
	}
	if isOpaque(w) {
		list[i.name] = w
	} else if delete(list, i.name); len(list) == 0 {
		delete(k.opaque, i.namespace)
	}
	k.dirty(topic{about: onOpaque, a: i.namespace})
	k.dirty(topic{about: onOpaque})
}

// opaqueWorkload gives the first, by name, of the workloads of a namespace ("" for any) that a selector picks and that carry no
// HTTP; nil for none.
func (c *compiler) opaqueWorkload(namespace string, selector map[string]string) (first *model.Workload) {
	c.read(topic{about: onOpaque, a: namespace})
	name := func(w *model.Workload) string { return w.Namespace + "/" + w.Name }
	look := func(list map[string]*model.Workload) {
		for _, w := range list {
			if selects(selector, w.Labels) && (first == nil || name(w) < name(first)) {
				first = w
			}
		}
	}
	if namespace != "" {
		look(c.state.opaque[namespace])
		return first
	}
	for _, list := range c.state.opaque {
		look(list)
	}
	return first
}

// gatewayWorkloads gives the workloads that are gateways, by name.
func (c *compiler) gatewayWorkloads() []*model.Workload {
	c.read(topic{about: onGateways})
	return slices.SortedFunc(maps.Values(c.state.gates), func(a, b *model.Workload) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}

// ended reports whether a pod runs no more.
func ended(pod *source.Pod) bool {
	return pod.Phase == corev1.PodSucceeded || pod.Phase == corev1.PodFailed
}

// placed reports whether a pod has its addresses to itself; otherwise they are the node's.
func placed(pod *source.Pod) bool { return !ended(pod) && !pod.HostNetwork }

func podWorkload(pod *source.Pod) *model.Workload {
	w := &model.Workload{
		Namespace: pod.Namespace, Name: pod.Name, Owner: podOwner(pod), Labels: pod.Labels,
		Locality: localityOf(pod.Labels), ServiceAccount: serviceAccount(pod), Gateway: isGateway(pod), Ready: pod.Ready,
		ProxyProtocol: parts.PodHeader(pod.Annotations),
	}
	w.Bare = !w.Gateway && !hasSidecar(pod) && (pod.Labels[injectLabel] == "false" || pod.Annotations[injectLabel] == "false")
	for _, ip := range pod.IPs {
		addAddress(w, ip)
	}
	for _, port := range pod.Ports {
		addPort(w, model.WorkloadPort{Number: port, Protocol: model.Auto})
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

func isGateway(pod *source.Pod) bool {
	if pod.Annotations[GatewayAnnotation] == "true" || strings.Contains(pod.Annotations[istioTemplatesAnnotation], "gateway") {
		return true
	}
	l := pod.Labels[parts.IstioLabel]
	return l == "ingressgateway" || l == "egressgateway"
}

// isProxyless reports whether the own gRPC library of a pod, or of who a WorkloadEntry stands for, is in the mesh, in the way in which
// Istio's users ask for it.
func isProxyless(annotations map[string]string) bool {
	return slices.Contains(strings.Split(annotations[istioTemplatesAnnotation], ","), "grpc-agent")
}

func hasSidecar(pod *source.Pod) bool {
	return pod.Labels[parts.TLSModeLabel] == "istio" || pod.Annotations[SidecarAnnotation] == "true" || pod.Annotations[istioStatusAnnotation] != ""
}

func entryWorkload(e *networking.WorkloadEntry) *model.Workload {
	w := &model.Workload{Namespace: e.Namespace, Name: e.Name, Owner: e.Name, Labels: entryLabels(e), Locality: e.Spec.Locality,
		ServiceAccount: e.Spec.ServiceAccount, Ready: true}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	if a, err := netip.ParseAddr(e.Spec.Address); err == nil {
		w.Addresses = []netip.Addr{a.Unmap()}
	}
	for _, name := range parts.SortedKeys(e.Spec.Ports) {
		addPort(w, model.WorkloadPort{Number: uint16(e.Spec.Ports[name]), Protocol: model.Auto})
	}
	return w
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
	have := &w.Ports[i]
	web := have.Protocol == model.GRPCWeb && port.Protocol.IsHTTP2() || port.Protocol == model.GRPCWeb && have.Protocol.IsHTTP2()
	if have.ServiceHost == "" || port.ServiceHost != "" && port.ServiceHost < have.ServiceHost {
		*have = port
	}
	if web { // which takes what the others take, too
		have.Protocol = model.GRPCWeb
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
