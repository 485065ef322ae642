package workloads

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

func addAddress(w *model.Workload, ip string) {
	if a, err := netip.ParseAddr(ip); err == nil {
		w.Addresses = append(w.Addresses, a.Unmap())
	}
}

// AddPort adds a port, or tells which service leads to a port that is there already.
func AddPort(w *model.Workload, port model.WorkloadPort) {
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

// SlicePorts maps service ports to the slice's, which bear the same names.
func SlicePorts(of []model.Port, slice *discoveryv1.EndpointSlice) map[uint16]uint16 {
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
