package runtime

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/runtime/demand"
)

// nodeName is the one machine.
const nodeName = "local"

// LabelTLSMode says on a pod that its sidecar takes mutual TLS; the name is Istio's.
const LabelTLSMode = "security.istio.io/tlsMode"

// labelOwnPorts says on a service that a gateway behind it does not listen on its target ports; the name is Istio's.
const labelOwnPorts = "experimental.istio.io/disable-gateway-port-translation"

// Observed gives what runs now.
func (r *Runtime) Observed() Observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Observed{Services: slices.Clone(r.services), Findings: slices.Clone(r.findings)}
	pods := make([]*pod, 0, len(r.pods))
	for _, k := range sortedKeys(r.pods) {
		pods = append(pods, r.pods[k])
		o := r.pods[k].object()
		r.pods[k].status(o)
		out.Pods = append(out.Pods, o)
		out.Findings = append(out.Findings, r.pods[k].findings()...)
	}
	for _, s := range r.services {
		out.EndpointSlices = append(out.EndpointSlices, r.endpointSlices(s, pods)...)
	}
	return out
}

// findings say what a sidecar cannot open. A gateway's ports are the machine's, and have findings of their own; mu is held.
func (p *pod) findings() []Finding {
	if p.w.Gateway || p.sidecar == nil || !p.sidecar.running || p.sidecar.lacking == "" {
		return nil
	}
	return []Finding{{Severity: Warning, Kind: "Deployment", Namespace: p.Namespace, Name: p.w.Name,
		Message: fmt.Sprintf("the sidecar of %s cannot listen as its Sidecar object says: %s", p.Name, p.sidecar.lacking)}}
}

// object is the pod as a cluster would show it, without what changes.
func (p *pod) object() *corev1.Pod {
	o := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	p.w.Template.ObjectMeta.DeepCopyInto(&o.ObjectMeta)
	p.w.Template.Spec.DeepCopyInto(&o.Spec)
	o.Namespace, o.Name, o.UID = p.Namespace, p.Name, p.uid
	o.CreationTimestamp = metav1.NewTime(p.created)
	controller := true
	o.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: p.w.Name, Controller: &controller}}
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	if p.w.Sidecar && !p.w.Gateway {
		o.Labels[LabelTLSMode] = "istio"
	}
	o.Spec.ServiceAccountName, o.Spec.NodeName = p.w.Account, nodeName
	o.Status.PodIP, o.Status.PodIPs = p.ip.String(), []corev1.PodIP{{IP: p.ip.String()}}
	o.Status.HostIP = "127.0.0.1"
	return o
}

// status fills in what changes; mu is held.
func (p *pod) status(o *corev1.Pod) {
	if p.terminating {
		t := metav1.NewTime(p.deleted)
		o.DeletionTimestamp = &t
	}
	o.Status.Phase = corev1.PodPending
	for _, c := range p.apps {
		if c.running || c.restarts > 0 {
			o.Status.Phase = corev1.PodRunning
		}
	}
	if p.w.Gateway && p.sidecarWasUp {
		o.Status.Phase = corev1.PodRunning
	}
	state, reason := p.state()
	condition := func(kind corev1.PodConditionType, ok bool) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: string(state), Message: reason}
		if ok {
			c = corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue}
		}
		o.Status.Conditions = append(o.Status.Conditions, c)
	}
	condition(corev1.PodInitialized, p.initsDone)
	condition(corev1.ContainersReady, p.serving())
	condition(corev1.PodReady, p.ready())
	if p.sidecar != nil {
		o.Status.InitContainerStatuses = append(o.Status.InitContainerStatuses, p.sidecar.status()) // where Kubernetes has native sidecars
	}
	for _, c := range p.inits {
		o.Status.InitContainerStatuses = append(o.Status.InitContainerStatuses, c.status())
	}
	for _, c := range p.apps {
		o.Status.ContainerStatuses = append(o.Status.ContainerStatuses, c.status())
	}
}

func (s *process) status() corev1.ContainerStatus {
	started := s.running
	st := corev1.ContainerStatus{Name: s.name, Ready: s.ready || s.finished, RestartCount: int32(s.restarts), Started: &started}
	switch {
	case s.running:
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(s.started)}
	case s.finished:
		st.State.Terminated = &corev1.ContainerStateTerminated{Reason: "Completed"}
	case s.waiting != "":
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: string(CrashLoop), Message: s.waiting}
	default:
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return st
}

// selects reports whether a service selects a pod; mu is held.
func (r *Runtime) selects(s *corev1.Service, p *pod) bool {
	if r.ofGateway[keyOf(s)] {
		return p.w.Key == demand.GatewayKey
	}
	return selectsWorkload(s, p.w)
}

func selectsWorkload(s *corev1.Service, w *demand.Workload) bool {
	if s.Namespace != w.Namespace || len(s.Spec.Selector) == 0 {
		return false
	}
	for k, v := range s.Spec.Selector {
		if w.Labels[k] != v {
			return false
		}
	}
	return true
}

// endpointSlices gives a service's endpoints; pods whose ports differ (named ports, ports mode) are in slices of their own. mu is held.
func (r *Runtime) endpointSlices(s *corev1.Service, pods []*pod) []*discoveryv1.EndpointSlice {
	byPorts := map[string]*discoveryv1.EndpointSlice{}
	var order []string
	for _, p := range pods {
		if !r.selects(s, p) {
			continue
		}
		address, ports := p.ip, endpointPorts(s, p)
		if p.w.Gateway && r.mode == Ports {
			if address, ports = r.publishedPorts(s); len(ports) == 0 {
				continue
			}
		}
		id := portsID(ports)
		slice := byPorts[id]
		if slice == nil {
			slice = &discoveryv1.EndpointSlice{
				TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
				ObjectMeta: metav1.ObjectMeta{
					Namespace: s.Namespace, Name: s.Name + "-" + id,
					Labels: map[string]string{discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: "weft"},
				},
				AddressType: discoveryv1.AddressTypeIPv4, Ports: ports,
			}
			if address.Is6() {
				slice.AddressType = discoveryv1.AddressTypeIPv6
			}
			byPorts[id] = slice
			order = append(order, id)
		}
		slice.Endpoints = append(slice.Endpoints, endpoint(s, p, address))
	}
	slices.Sort(order)
	var out []*discoveryv1.EndpointSlice
	for _, id := range order {
		out = append(out, byPorts[id])
	}
	return out
}

func endpoint(s *corev1.Service, p *pod, address netip.Addr) discoveryv1.Endpoint {
	ready, serving, terminating, node := p.ready() || s.Spec.PublishNotReadyAddresses, p.serving(), p.terminating, nodeName
	return discoveryv1.Endpoint{
		Addresses:  []string{address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.uid},
		NodeName:   &node,
	}
}

// publishedPorts gives where the host listens for a service's ports on a gateway, without those that are not published: for its target
// ports, or else for the ports themselves, as gateways have the numbers that their objects name. Loopback stands for all addresses.
func (r *Runtime) publishedPorts(s *corev1.Service) (address netip.Addr, out []discoveryv1.EndpointPort) {
	at := map[int32]netip.AddrPort{}
	for _, published := range r.broker.Published() {
		if a, err := netip.ParseAddrPort(published.Address); err == nil && !published.UDP {
			at[int32(published.Port)] = a
		}
	}
	for _, sp := range s.Spec.Ports {
		a, ok := at[firstPort(sp.TargetPort.IntVal, sp.Port)]
		if !ok {
			a, ok = at[sp.Port]
		}
		if name, protocol := sp.Name, cmp.Or(sp.Protocol, corev1.ProtocolTCP); ok && protocol == corev1.ProtocolTCP {
			number := int32(a.Port())
			out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol, AppProtocol: sp.AppProtocol})
			address = a.Addr().Unmap()
		}
	}
	switch address {
	case netip.IPv4Unspecified():
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		address = netip.IPv6Loopback()
	}
	return address, out
}

// endpointPorts resolves a service's ports on a pod; a name that the pod lacks is left out, as in a cluster.
func endpointPorts(s *corev1.Service, p *pod) []discoveryv1.EndpointPort {
	var declared []corev1.ContainerPort
	for _, c := range p.w.Apps {
		declared = append(declared, c.Ports...)
	}
	var out []discoveryv1.EndpointPort
	for _, sp := range s.Spec.Ports {
		target := sp.TargetPort
		if target.IntVal == 0 && target.StrVal == "" {
			target.IntVal = sp.Port
		}
		port, err := demand.ResolvePort(target, declared)
		if err != nil {
			continue
		}
		number, name, protocol := int32(p.plan.endpointPort(port)), sp.Name, cmp.Or(sp.Protocol, corev1.ProtocolTCP)
		if protocol == corev1.ProtocolUDP { // no sidecar stands before it
			number = int32(p.plan.appPort(port))
		}
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol, AppProtocol: sp.AppProtocol})
	}
	return out
}

func portsID(ports []discoveryv1.EndpointPort) string {
	raw, err := json.Marshal(ports)
	if err != nil { // plain values always marshal
		panic(err)
	}
	h := fnv.New32a()
	h.Write(raw)
	return fmt.Sprintf("%08x", h.Sum32())
}

// state sums a pod up in a word and a sentence; mu is held.
func (p *pod) state() (State, string) {
	all := append([]*process{}, p.apps...)
	if p.sidecar != nil {
		all = append([]*process{p.sidecar}, append(p.inits, all...)...)
	}
	switch {
	case p.terminating:
		return Stopping, ""
	case p.problem != "":
		return Pending, p.problem
	case p.ready():
		return Running, strings.Join(p.notes, "; ")
	}
	for _, s := range all {
		if s.waiting != "" && !s.running {
			return CrashLoop, s.name + ": " + s.waiting
		}
	}
	if p.sidecar != nil && !p.sidecarWasUp {
		return Pending, "its sidecar " + cmp.Or(p.sidecar.unready, "starts")
	}
	for _, s := range all {
		if s.running && !s.ready && s.unready != "" {
			return NotReady, s.name + ": " + s.unready
		}
	}
	return Starting, ""
}

// Workloads gives the state of every Deployment, program and gateway, sorted by namespace and name.
func (r *Runtime) Workloads() []WorkloadStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	byWorkload := map[demand.Key][]*pod{}
	for _, k := range sortedKeys(r.pods) {
		p := r.pods[k]
		byWorkload[p.w.Key] = append(byWorkload[p.w.Key], p)
	}
	known := map[demand.Key]bool{}
	for k := range r.workloads {
		known[k] = true
	}
	for k := range byWorkload { // those that leave
		known[k] = true
	}
	var out []WorkloadStatus
	for _, k := range sortedKeys(known) {
		out = append(out, summary(k, r.workloads[k], byWorkload[k]))
	}
	return out
}

func summary(k demand.Key, w *demand.Workload, pods []*pod) WorkloadStatus {
	st := WorkloadStatus{Namespace: k.Namespace, Name: k.Name, State: Stopping}
	var worst *PodStatus
	for _, p := range pods {
		ps := p.summary()
		st.Pods = append(st.Pods, ps)
		st.Ready += b2i(ps.Ready)
		st.Restarts += ps.Restarts
		if !ps.Ready && ps.State != Stopping && worst == nil {
			worst = &ps
		}
	}
	if w == nil {
		return st
	}
	st.Gateway, st.Desired = w.Gateway, w.Replicas
	switch {
	case w.State != "":
		st.State, st.Reason = State(w.State), w.Reason
	case w.Replicas == 0:
		st.State = ScaledDown
	case worst != nil && worst.State == CrashLoop && serving(pods, func(p *pod) bool { return p.w.Revision != w.Revision }) > 0:
		st.State, st.Reason = Stalled, "the instances from before serve; "+worst.Name+": "+worst.Reason
	case worst != nil && (st.Ready < w.Replicas || worst.State == CrashLoop):
		st.State, st.Reason = worst.State, worst.Reason
	case st.Ready >= w.Replicas:
		st.State = Running
	default:
		st.State = Pending
	}
	return st
}

// serving counts the ready pods of a kind; mu is held.
func serving(pods []*pod, kind func(*pod) bool) (n int) {
	for _, p := range pods {
		n += b2i(p.ready() && kind(p))
	}
	return n
}

func (p *pod) summary() PodStatus {
	st := PodStatus{Name: p.Name, IP: p.ip.String(), Ready: p.ready(), Started: p.created}
	st.State, st.Reason = p.state()
	all := append([]*process{}, p.apps...)
	if p.sidecar != nil {
		all = append(all, p.sidecar)
		st.AdminSocket = p.adminSocket()
	}
	for _, s := range all {
		st.Restarts += s.restarts
		ps := ProcessStatus{Name: s.name, PID: s.pid, Restarts: s.restarts, Running: s.running, LastExit: s.lastExit, Version: s.version}
		if s.c != nil {
			for _, port := range s.c.Ports {
				ps.Ports = append(ps.Ports, p.plan.appPort(uint16(port.ContainerPort)))
			}
		}
		st.Processes = append(st.Processes, ps)
	}
	return st
}
