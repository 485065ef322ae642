package workloads

import (
	"net/netip"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/convert/services"
	"github.com/weftmesh/weft/internal/control/model"
)

// OfEntry is the workload that a WorkloadEntry stands for, without what services say of its ports.
func OfEntry(e *networking.WorkloadEntry) *model.Workload {
	w := &model.Workload{Namespace: e.Namespace, Name: e.Name, Owner: e.Name, Labels: Labels(e), Locality: e.Spec.Locality,
		ServiceAccount: e.Spec.ServiceAccount, Ready: true}
	w.Gateway = IsGateway(w.Labels, e.Annotations)
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	if a, err := netip.ParseAddr(e.Spec.Address); err == nil {
		w.Addresses = []netip.Addr{a.Unmap()}
	}
	for _, name := range parts.SortedKeys(e.Spec.Ports) {
		AddPort(w, model.WorkloadPort{Number: uint16(e.Spec.Ports[name]), Protocol: model.Auto})
	}
	return w
}

// EntryEndpoint is a WorkloadEntry as an endpoint of a service, without its ports.
func EntryEndpoint(e *networking.WorkloadEntry) *model.Endpoint {
	ep := services.EntryEndpoint(&e.Spec, e.Namespace, e.Name, Labels(e))
	ep.Proxyless = isProxyless(e.Annotations)
	return ep
}

// EntryPorts maps ports of a service to those of a WorkloadEntry that it selects.
func EntryPorts(of []model.Port, svc *corev1.Service, e *networking.WorkloadEntry) map[uint16]uint16 {
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

// Labels merges the labels of object and spec; the spec's are the instance's own.
func Labels(e *networking.WorkloadEntry) map[string]string {
	labels := map[string]string{}
	for k, v := range e.Labels {
		labels[k] = v
	}
	for k, v := range e.Spec.Labels {
		labels[k] = v
	}
	return labels
}
