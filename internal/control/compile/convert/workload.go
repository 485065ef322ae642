package convert

import (
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

// entryFields checks all but the address.
func (p *Part) entryFields(e *networkingapi.WorkloadEntry, path string) {
	p.only(e, path, "address", "ports", "labels", "locality", "weight", "serviceAccount")
	p.validLabels(e.Labels, path+".labels")
	for _, name := range sortedKeys(e.Ports) {
		p.ValidPort(e.Ports[name], Key(path+".ports", name))
	}
}

// workloadEntry checks a WorkloadEntry, or an endpoint of a ServiceEntry, at a path.
func (p *Part) workloadEntry(e *networkingapi.WorkloadEntry, path string) {
	p.entryFields(e, path)
	switch {
	case e.Address == "":
		p.Err("MissingField", path+".address", "", "an address is missing")
	case strings.HasPrefix(e.Address, "unix:"):
		p.Unsupported(path+".address", "unix sockets cannot be endpoints: let the workload listen on a port, and give its address")
	default:
		p.ValidHost(e.Address, path+".address", true)
	}
}
