package services

import (
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
)

// entryFields checks all but the address.
func (p converter) entryFields(e *networkingapi.WorkloadEntry, path string) {
	p.Only(e, path, "address", "ports", "labels", "locality", "weight", "serviceAccount")
	p.ValidLabels(e.Labels, path+".labels")
	for _, name := range parts.SortedKeys(e.Ports) {
		p.PortName(name, parts.Key(path+".ports", name))
		p.ValidPort(e.Ports[name], parts.Key(path+".ports", name))
	}
}

// workloadEntry checks a WorkloadEntry, or an endpoint of a ServiceEntry, at a path.
func (p converter) workloadEntry(e *networkingapi.WorkloadEntry, path string) {
	p.entryFields(e, path)
	switch {
	case e.Address == "":
		p.Err("MissingField", path+".address", "", "an address is missing")
	case strings.HasPrefix(e.Address, "unix:"):
		p.UnixSocket(e.Address, path+".address")
		if len(e.Ports) > 0 {
			p.Err("ConflictingFields", path+".ports", "", "a unix socket has no ports")
		}
	default:
		p.ValidHost(e.Address, path+".address", true)
	}
}
