package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addEndpoints gives Kubernetes services their instances: those of EndpointSlices, and the WorkloadEntries they select.
func (c *compiler) addEndpoints() {
	for _, p := range c.byKind["EndpointSlice"] {
		slice, ok := p.Kube.(*discoveryv1.EndpointSlice)
		if !ok || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		ref := model.Ref{Kind: "Service", Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
		if owner := c.byRef[ref]; owner != nil {
			c.addSlice(owner.Services[0], slice)
		}
	}
	for _, p := range c.byKind["Service"] {
		c.selectEntries(p)
	}
	for _, host := range slices.Sorted(c.mesh.Services.Keys()) {
		c.finishEndpoints(c.mesh.Services.Get(host))
	}
}

func (c *compiler) addSlice(s *model.Service, slice *discoveryv1.EndpointSlice) {
	ports := slicePorts(s, slice)
	for _, e := range slice.Endpoints {
		for _, address := range e.Addresses {
			a, err := netip.ParseAddr(address)
			if err != nil {
				continue
			}
			c.addEndpoint(s, c.endpointOf(slice, e, a.Unmap()), ports)
		}
	}
}

// slicePorts maps service ports to the slice's, which bear the same names.
func slicePorts(s *model.Service, slice *discoveryv1.EndpointSlice) map[uint16]uint16 {
	ports := map[uint16]uint16{}
	for _, port := range slice.Ports {
		if port.Port == nil || *port.Port < 1 || *port.Port > 65535 {
			continue
		}
		name := ""
		if port.Name != nil {
			name = *port.Name
		}
		for _, sp := range s.Ports {
			if sp.Name == name {
				ports[sp.Number] = uint16(*port.Port)
			}
		}
	}
	return ports
}

func (c *compiler) endpointOf(slice *discoveryv1.EndpointSlice, e discoveryv1.Endpoint, a netip.Addr) *model.Endpoint {
	ep := &model.Endpoint{Address: a.String(), Namespace: slice.Namespace, ServiceAccount: "default",
		Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
	if e.Zone != nil {
		ep.Locality = "/" + *e.Zone
	}
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
		if seat, ok := c.placed[a]; ok && seat.pod.Namespace == slice.Namespace {
			describePod(ep, seat.pod)
		}
		return ep
	}
	ep.Instance = e.TargetRef.Name
	if p := c.byRef[model.Ref{Kind: "Pod", Namespace: slice.Namespace, Name: e.TargetRef.Name}]; p != nil {
		if pod, ok := p.Kube.(*corev1.Pod); ok {
			describePod(ep, pod)
		}
	}
	return ep
}

func describePod(ep *model.Endpoint, pod *corev1.Pod) {
	ep.Instance, ep.Namespace, ep.Labels = pod.Name, pod.Namespace, pod.Labels
	ep.ServiceAccount, ep.Workload, ep.Mesh = serviceAccount(pod), podOwner(pod), hasSidecar(pod)
	ep.Proxyless = isProxyless(pod)
	if l := localityOf(pod.Labels); l != "" {
		ep.Locality = l
	}
}

// instance is one of a service's. The address alone does not name it: instances that share the host's network differ by port.
type instance struct{ host, address, name string }

// addEndpoint adds an instance, or more ports of one that another slice named already.
func (c *compiler) addEndpoint(s *model.Service, ep *model.Endpoint, ports map[uint16]uint16) {
	if len(ports) == 0 {
		return
	}
	seat := instance{s.Host, ep.Address, ep.Instance}
	if have := c.instances[seat]; have != nil {
		ep = have
	} else {
		ep.Ports = map[uint16]uint16{}
		s.Endpoints = append(s.Endpoints, ep)
		c.instances[seat] = ep
	}
	for from, to := range ports {
		ep.Ports[from] = to
	}
}

// selectEntries adds the WorkloadEntries that a Kubernetes service selects, as Istio does for VMs.
func (c *compiler) selectEntries(p *part) {
	svc, ok := p.Kube.(*corev1.Service)
	if !ok || len(svc.Spec.Selector) == 0 {
		return
	}
	for _, e := range c.entriesOf(svc.Namespace, svc.Spec.Selector) {
		ports := map[uint16]uint16{}
		for _, port := range p.Services[0].Ports {
			ports[port.Number] = port.Number
			for _, sp := range svc.Spec.Ports {
				if sp.Port == int32(port.Number) && sp.TargetPort.IntVal > 0 {
					ports[port.Number] = uint16(sp.TargetPort.IntVal)
				}
			}
			if n := e.Spec.Ports[port.Name]; n > 0 {
				ports[port.Number] = uint16(n)
			}
		}
		c.addEndpoint(p.Services[0], convert.EntryEndpoint(&e.Spec, e.Namespace, e.Name, entryLabels(e)), ports)
	}
}

func (c *compiler) entriesOf(namespace string, selector map[string]string) []*networking.WorkloadEntry {
	var found []*networking.WorkloadEntry
	for _, p := range c.byKind["WorkloadEntry"] {
		if e, ok := p.Kube.(*networking.WorkloadEntry); ok && e.Namespace == namespace && selects(selector, entryLabels(e)) {
			found = append(found, e)
		}
	}
	return found
}

// finishEndpoints orders instances, tells workloads which service leads to them, and makes those of headless services known by
// their address.
func (c *compiler) finishEndpoints(s *model.Service) {
	slices.SortFunc(s.Endpoints, func(a, b *model.Endpoint) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), strings.Compare(a.Instance, b.Instance))
	})
	for _, ep := range s.Endpoints {
		a, err := netip.ParseAddr(ep.Address)
		if err != nil {
			continue
		}
		if s.Headless {
			c.mesh.ByAddress.Put(a, append(c.mesh.ByAddress.Get(a), s.Host))
		}
		w := c.mesh.Workloads.Get(ep.Namespace + "/" + ep.Instance)
		if w == nil {
			continue
		}
		for _, port := range s.Ports {
			if target, ok := ep.Ports[port.Number]; ok {
				addPort(w, model.WorkloadPort{Number: target, Protocol: port.Protocol, ServiceHost: s.Host, ServicePort: port.Number})
			}
		}
	}
}
