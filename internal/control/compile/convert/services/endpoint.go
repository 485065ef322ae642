package services

import (
	"net/netip"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// EntryEndpoint makes an instance of a WorkloadEntry, or of an endpoint within a ServiceEntry, which has no name. It has a sidecar when
// its label says so, as in Istio.
func EntryEndpoint(e *networkingapi.WorkloadEntry, namespace, name string, labels map[string]string) *model.Endpoint {
	ep := &model.Endpoint{Address: e.Address, Labels: labels, Namespace: namespace, ServiceAccount: e.ServiceAccount, Workload: name,
		Instance: name, Ready: true, Mesh: labels[parts.TLSModeLabel] == "istio", Weight: e.Weight, Locality: e.Locality}
	if a, err := netip.ParseAddr(e.Address); err == nil {
		ep.Address = a.Unmap().String()
	}
	// A workload without an account runs as this one. What an endpoint without one runs as is not known, and no name is told of it.
	if ep.ServiceAccount == "" && name != "" {
		ep.ServiceAccount = "default"
	}
	return ep
}
