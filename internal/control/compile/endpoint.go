package compile

import (
	"maps"
	"net/netip"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/services"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// endpoints gathers the instances of one service.
type endpoints struct {
	list  []*model.Endpoint
	known map[whereabouts]*model.Endpoint
	alike map[whereabouts][]int // places in the list; nil until something is joined, then nothing is added otherwise
	once  bool                  // an instance counts once, with its first address: it may have one of each family
}

// whereabouts name an instance. The address alone does not: instances that share the host's network differ by port.
type whereabouts struct{ address, name string }

// add adds an instance, or more ports of one that another slice named already. The ports are shared with others.
func (e *endpoints) add(ep *model.Endpoint, ports, udp map[uint16]uint16) {
	if len(ports) == 0 && len(udp) == 0 {
		return
	}
	at := whereabouts{ep.Address, ep.Instance}
	if e.once && ep.Instance != "" {
		at.address = ""
	}
	have := e.known[at]
	if have == nil {
		ep.Ports, ep.UDP = ports, udp
		e.list = append(e.list, ep)
		e.known[at] = ep
		return
	}
	have.Ports, have.UDP = joined(have.Ports, ports), joined(have.UDP, udp)
}

// joined gives both, of which neither is changed.
func joined(a, b map[uint16]uint16) map[uint16]uint16 {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// addEndpoints gives a service its instances: those that the object names, those of EndpointSlices, and the WorkloadEntries and pods
// that it selects.
func (c *compiler) addEndpoints(s *model.Service, by *record, added []addition) {
	found := &endpoints{list: slices.Clone(s.Endpoints), known: map[whereabouts]*model.Endpoint{}}
	switch k := by.Kube.(type) {
	case *corev1.Service:
		found.once = !s.Headless // whose names stand for all addresses
		for _, slice := range c.slicesOf(s, k) {
			c.addSlice(found, s, slice)
		}
		found.once = false
		c.selectEntries(found, s, k)
	case *networking.ServiceEntry:
		c.selectForEntry(found, k)
		c.addAdded(found, added)
	}
	slices.SortStableFunc(found.list, compareEndpoints)
	s.Endpoints = found.list
}

// slicesOf gives the EndpointSlices of a service, those of the family of its first address before others.
func (c *compiler) slicesOf(s *model.Service, svc *corev1.Service) []*discoveryv1.EndpointSlice {
	var first, rest []*discoveryv1.EndpointSlice
	for _, r := range c.selected("EndpointSlice", svc.Namespace, map[string]string{discoveryv1.LabelServiceName: svc.Name}) {
		slice, ok := r.Kube.(*discoveryv1.EndpointSlice)
		switch {
		case !ok || slice.AddressType == discoveryv1.AddressTypeFQDN:
		case len(s.Addresses) == 0 || (slice.AddressType == discoveryv1.AddressTypeIPv6) == s.Addresses[0].Is6():
			first = append(first, slice)
		default:
			rest = append(rest, slice)
		}
	}
	return append(first, rest...)
}

func (c *compiler) addSlice(found *endpoints, s *model.Service, slice *discoveryv1.EndpointSlice) {
	ports, udp := slicePorts(s.Ports, slice), slicePorts(s.UDP, slice)
	for i := range slice.Endpoints {
		for _, address := range slice.Endpoints[i].Addresses {
			a, err := netip.ParseAddr(address)
			if err != nil {
				continue
			}
			found.add(c.endpointOf(slice, &slice.Endpoints[i], a.Unmap()), ports, udp)
		}
	}
}

// slicePorts maps service ports to the slice's, which bear the same names.
func slicePorts(of []model.Port, slice *discoveryv1.EndpointSlice) map[uint16]uint16 {
	if len(of) == 0 {
		return nil
	}
	ports := map[uint16]uint16{}
	for _, port := range slice.Ports {
		if port.Port == nil || *port.Port < 1 || *port.Port > 65535 {
			continue
		}
		name := ""
		if port.Name != nil {
			name = *port.Name
		}
		for _, sp := range of {
			if sp.Name == name {
				ports[sp.Number] = uint16(*port.Port)
			}
		}
	}
	return ports
}

func (c *compiler) endpointOf(slice *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint, a netip.Addr) *model.Endpoint {
	ep := &model.Endpoint{Address: a.String(), Namespace: slice.Namespace,
		Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
	if e.Zone != nil {
		ep.Locality = "/" + *e.Zone
	}
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
		// The youngest of those with the address has it now.
		if list := c.at(a); len(list) > 0 {
			if pod := source.PodOf(list[len(list)-1].Kube); pod != nil && pod.Namespace == slice.Namespace {
				describePod(ep, pod)
			}
		}
		return ep
	}
	ep.Instance = e.TargetRef.Name
	if o := c.object(model.Ref{Kind: "Pod", Namespace: slice.Namespace, Name: e.TargetRef.Name}); o != nil {
		if pod := source.PodOf(o.Kube); pod != nil {
			describePod(ep, pod)
		}
	}
	return ep
}

func describePod(ep *model.Endpoint, pod *source.Pod) {
	ep.Instance, ep.Namespace, ep.Labels = pod.Name, pod.Namespace, pod.Labels
	ep.ServiceAccount, ep.Workload, ep.Mesh = serviceAccount(pod), podOwner(pod), hasSidecar(pod)
	ep.Proxyless = isProxyless(pod.Annotations)
	if l := localityOf(pod.Labels); l != "" {
		ep.Locality = l
	}
}

// selectEntries adds the WorkloadEntries that a Kubernetes service selects, as Istio does for VMs.
func (c *compiler) selectEntries(found *endpoints, s *model.Service, svc *corev1.Service) {
	if len(svc.Spec.Selector) == 0 {
		return
	}
	for _, r := range c.selected("WorkloadEntry", svc.Namespace, svc.Spec.Selector) {
		e, ok := r.Kube.(*networking.WorkloadEntry)
		if !ok {
			continue
		}
		found.add(entryEndpoint(e), entryPorts(s.Ports, svc, e), entryPorts(s.UDP, svc, e))
	}
}

// entryPorts maps ports of a service to those of a WorkloadEntry that it selects.
func entryPorts(of []model.Port, svc *corev1.Service, e *networking.WorkloadEntry) map[uint16]uint16 {
	if len(of) == 0 {
		return nil
	}
	ports := map[uint16]uint16{}
	for _, port := range of {
		ports[port.Number] = port.Number
		for _, sp := range svc.Spec.Ports {
			if sp.Name == port.Name && sp.Port == int32(port.Number) && sp.TargetPort.IntVal > 0 {
				ports[port.Number] = uint16(sp.TargetPort.IntVal)
			}
		}
		if n := e.Spec.Ports[port.Name]; n > 0 {
			ports[port.Number] = uint16(n)
		}
	}
	return ports
}

func entryEndpoint(e *networking.WorkloadEntry) *model.Endpoint {
	ep := services.EntryEndpoint(&e.Spec, e.Namespace, e.Name, entryLabels(e))
	ep.Proxyless = isProxyless(e.Annotations)
	return ep
}

// selectForEntry adds the pods and WorkloadEntries that a ServiceEntry with a workloadSelector selects.
func (c *compiler) selectForEntry(found *endpoints, se *networking.ServiceEntry) {
	if se.Spec.WorkloadSelector == nil {
		return
	}
	for _, r := range c.selected("WorkloadEntry", se.Namespace, se.Spec.WorkloadSelector.Labels) {
		if e, ok := r.Kube.(*networking.WorkloadEntry); ok {
			found.add(entryEndpoint(e), services.TargetPorts(se.Spec.Ports, e.Spec.Ports), nil)
		}
	}
	for _, r := range c.selected("Pod", se.Namespace, se.Spec.WorkloadSelector.Labels) {
		pod := source.PodOf(r.Kube)
		if pod == nil || len(pod.IPs) == 0 {
			continue
		}
		ep := &model.Endpoint{Address: pod.IPs[0], Ready: pod.Ready}
		describePod(ep, pod)
		found.add(ep, services.TargetPorts(se.Spec.Ports, nil), nil)
	}
}
