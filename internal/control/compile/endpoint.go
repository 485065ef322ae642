package compile

import (
	"net/netip"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/services"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// addEndpoints gives a service its instances: those that the object names, those of EndpointSlices, and the WorkloadEntries and pods
// that it selects.
func (c *compiler) addEndpoints(s *model.Service, by *record, added []addition) {
	found := workloads.Gather(s.Endpoints)
	switch k := by.Kube.(type) {
	case *corev1.Service:
		found.Once = !s.Headless // whose names stand for all addresses
		for _, slice := range c.slicesOf(s, k) {
			c.addSlice(found, s, slice)
		}
		found.Once = false
		c.selectEntries(found, s, k)
	case *networking.ServiceEntry:
		c.selectForEntry(found, k)
		c.addAdded(found, added)
	}
	slices.SortStableFunc(found.List, workloads.Compare)
	s.Endpoints = found.List
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

func (c *compiler) addSlice(found *workloads.Endpoints, s *model.Service, slice *discoveryv1.EndpointSlice) {
	ports, udp := workloads.SlicePorts(s.Ports, slice), workloads.SlicePorts(s.UDP, slice)
	for i := range slice.Endpoints {
		for _, address := range slice.Endpoints[i].Addresses {
			a, err := netip.ParseAddr(address)
			if err != nil {
				continue
			}
			found.Add(c.endpointOf(slice, &slice.Endpoints[i], a.Unmap()), ports, udp)
		}
	}
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
				workloads.Describe(ep, pod)
			}
		}
		return ep
	}
	if ns := e.TargetRef.Namespace; ns != "" && ns != slice.Namespace { // whose pod is not described by who wrote the slice
		return ep
	}
	ep.Instance = e.TargetRef.Name
	if o := c.object(model.Ref{Kind: "Pod", Namespace: slice.Namespace, Name: e.TargetRef.Name}); o != nil {
		if pod := source.PodOf(o.Kube); pod != nil {
			workloads.Describe(ep, pod)
		}
	}
	return ep
}

// selectEntries adds the WorkloadEntries that a Kubernetes service selects, as Istio does for VMs.
func (c *compiler) selectEntries(found *workloads.Endpoints, s *model.Service, svc *corev1.Service) {
	if len(svc.Spec.Selector) == 0 {
		return
	}
	for _, r := range c.selected("WorkloadEntry", svc.Namespace, svc.Spec.Selector) {
		e, ok := r.Kube.(*networking.WorkloadEntry)
		if !ok {
			continue
		}
		found.Add(workloads.EntryEndpoint(e), workloads.EntryPorts(s.Ports, svc, e), workloads.EntryPorts(s.UDP, svc, e))
	}
}

// selectForEntry adds the pods and WorkloadEntries that a ServiceEntry with a workloadSelector selects.
func (c *compiler) selectForEntry(found *workloads.Endpoints, se *networking.ServiceEntry) {
	if se.Spec.WorkloadSelector == nil {
		return
	}
	for _, r := range c.selected("WorkloadEntry", se.Namespace, se.Spec.WorkloadSelector.Labels) {
		if e, ok := r.Kube.(*networking.WorkloadEntry); ok {
			found.Add(workloads.EntryEndpoint(e), services.TargetPorts(se.Spec.Ports, e.Spec.Ports), nil)
		}
	}
	for _, r := range c.selected("Pod", se.Namespace, se.Spec.WorkloadSelector.Labels) {
		pod := source.PodOf(r.Kube)
		if pod == nil || len(pod.IPs) == 0 {
			continue
		}
		ep := &model.Endpoint{Address: pod.IPs[0], Ready: pod.Ready}
		workloads.Describe(ep, pod)
		found.Add(ep, services.TargetPorts(se.Spec.Ports, nil), nil)
	}
}
