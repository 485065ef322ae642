package services

import (
	"net/netip"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// serviceEntry converts a ServiceEntry: one service for each host.
func (p converter) serviceEntry(se *networking.ServiceEntry) {
	spec := &se.Spec
	p.Only(spec, "spec", "hosts", "addresses", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo", "subjectAltNames")
	if len(spec.Hosts) == 0 {
		p.Err("MissingField", "spec.hosts", "", "at least one host is needed")
	}
	ports := p.entryPorts(spec.Ports)
	addresses, networks := p.entryAddresses(spec.Addresses, spec.Resolution)
	resolution, ok := resolutions[spec.Resolution]
	if !ok {
		p.Unsupported("spec.resolution", "use one of NONE, STATIC, DNS, DNS_ROUND_ROBIN, DYNAMIC_DNS")
	}
	if p.tooLarge(spec) {
		return
	}
	p.entryEndpoints(spec)
	p.entryResolution(spec)
	p.indistinct(spec)
	p.byHost(spec)
	for i, name := range spec.SubjectAltNames {
		if name == "" {
			p.Err("MissingField", parts.At("spec.subjectAltNames", i), "", "the name is empty")
		}
	}
	visible := p.ExportTo(parts.DefaultExport(spec.ExportTo, p.Mesh.ServiceExport), "spec.exportTo")
	for i, host := range spec.Hosts {
		field := parts.At("spec.hosts", i)
		if !p.ValidHost(host, field, false) {
			continue
		}
		if host == "*" {
			p.Err("InvalidHost", field, "", `"*" alone is not allowed here`)
			continue
		}
		host = parts.HostName(host)
		s := &model.Service{Ref: p.Ref(), Host: host, Namespace: se.Namespace, Name: host, Addresses: addresses, Networks: networks,
			External:   spec.Location == networkingapi.ServiceEntry_MESH_EXTERNAL,
			Resolution: resolution, Ports: ports, Labels: se.Labels, ExportTo: visible, Created: p.Born, SANs: spec.SubjectAltNames}
		if len(spec.Addresses) == 0 && allocates(se, s) {
			s.Allocated = allocated(host)
		}
		s.Endpoints = p.namedEndpoints(spec, s)
		p.Services = append(p.Services, s)
	}
}

var resolutions = map[networkingapi.ServiceEntry_Resolution]model.Resolution{
	networkingapi.ServiceEntry_NONE: model.None, networkingapi.ServiceEntry_STATIC: model.Static,
	networkingapi.ServiceEntry_DNS: model.DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN: model.DNSRoundRobin,
	networkingapi.ServiceEntry_DYNAMIC_DNS: model.ByHost,
}

// indistinct reports ports whose connections do not say which host they are for.
func (p converter) indistinct(spec *networkingapi.ServiceEntry) {
	for i, port := range spec.Ports {
		protocol, known := parts.Protocols[strings.ToLower(port.Protocol)]
		opaque := port.Protocol == "" || known && protocol == model.TCP
		switch field := parts.At("spec.ports", i) + ".protocol"; {
		case !opaque:
		case len(spec.Hosts) > 1 && spec.Resolution != networkingapi.ServiceEntry_NONE:
			p.Err("ConflictingFields", field, "write an entry for each host", "connections to port %d do not tell which of the hosts they are for", port.Number)
		case len(spec.Addresses) == 0 && port.Protocol != "" && !selectsInMesh(spec) && p.unallocated(spec):
			p.Warn("MissingField", "spec.addresses", "give the addresses that clients connect to", "port %d is %s: without addresses connections are not told from others", port.Number, port.Protocol)
		}
	}
}

// maxProduct bounds what one ServiceEntry can make, as each of its hosts has each of its addresses, ports and endpoints.
const maxProduct = 1_000_000

// tooLarge refuses an entry that is small to write and large to follow.
func (p converter) tooLarge(spec *networkingapi.ServiceEntry) (is bool) {
	for _, x := range []struct {
		what string
		n    int
	}{{"addresses", len(spec.Addresses)}, {"ports", len(spec.Ports)}, {"endpoints", len(spec.Endpoints)}} {
		if n := len(spec.Hosts) * x.n; n > maxProduct {
			p.Err("InvalidValue", "spec.hosts", "write several entries", "%d hosts with %d %s each are %d together, and at most %d are allowed",
				len(spec.Hosts), x.n, x.what, n, maxProduct)
			is = true
		}
	}
	return is
}

// selectsInMesh reports whether the entry's endpoints are known by their own addresses.
func selectsInMesh(spec *networkingapi.ServiceEntry) bool {
	return spec.WorkloadSelector != nil || spec.Resolution == networkingapi.ServiceEntry_STATIC && len(spec.Endpoints) > 0
}

func (p converter) entryPorts(list []*networkingapi.ServicePort) []model.Port {
	if len(list) == 0 {
		p.Warn("MissingField", "spec.ports", "write the ports that clients connect to", "without ports nothing leads to the hosts")
	}
	numbers, names := map[uint32]bool{}, map[string]bool{}
	var ports []model.Port
	for i, port := range list {
		field := parts.At("spec.ports", i)
		protocol := p.Protocol(port.Protocol, port.Name, field+".protocol")
		number := p.ValidPort(port.Number, field+".number")
		switch {
		case port.Name == "":
			p.Err("MissingField", field+".name", "", "a name is missing")
		case names[port.Name]:
			p.Err("DuplicatePort", field+".name", "", "name %q is used twice", port.Name)
		case numbers[port.Number]:
			p.Err("DuplicatePort", field+".number", "", "port %d is given twice", port.Number)
		default:
			p.PortName(port.Name, field+".name")
		}
		if port.TargetPort != 0 || p.Written(field+".targetPort") {
			p.ValidPort(port.TargetPort, field+".targetPort")
		}
		names[port.Name], numbers[port.Number] = true, true
		ports = append(ports, model.Port{Number: number, Name: port.Name, Protocol: protocol})
	}
	return ports
}

// entryAddresses reads addresses, and ranges of them in CIDR form.
func (p converter) entryAddresses(list []string, resolution networkingapi.ServiceEntry_Resolution) (addresses []netip.Addr, networks []netip.Prefix) {
	known := map[netip.Prefix]bool{}
	for i, s := range list {
		field := parts.At("spec.addresses", i)
		if a, err := netip.ParseAddr(s); err == nil {
			addresses = append(addresses, a.Unmap())
			continue
		}
		prefix, err := netip.ParsePrefix(s)
		ranged := resolution == networkingapi.ServiceEntry_NONE || resolution == networkingapi.ServiceEntry_STATIC
		switch {
		case err != nil || prefix.Addr().Is4In6():
			p.Err("InvalidAddress", field, "", "%q is neither an IP address nor a range", s)
		case prefix.IsSingleIP():
			addresses = append(addresses, prefix.Addr())
		case !ranged:
			p.Err("ConflictingFields", field, "use resolution NONE or STATIC, or single addresses", "a range of addresses does not go with resolution %s", resolution)
		case known[prefix.Masked()]:
			p.Warn("DuplicateValue", field, "", "range %s is there already", prefix.Masked())
		default:
			networks = append(networks, prefix.Masked())
			known[prefix.Masked()] = true
		}
	}
	return addresses, networks
}

func (p converter) entryEndpoints(spec *networkingapi.ServiceEntry) {
	for i, e := range spec.Endpoints {
		field := parts.At("spec.endpoints", i)
		p.workloadEntry(e, field)
		for _, name := range parts.SortedKeys(e.Ports) {
			if !hasPort(spec.Ports, name) {
				p.Err("PortNotFound", parts.Key(field+".ports", name), "", "the ServiceEntry has no port named %q", name)
			}
		}
		_, err := netip.ParseAddr(e.Address)
		switch unix := strings.HasPrefix(e.Address, "unix:"); {
		case unix && spec.Resolution != networkingapi.ServiceEntry_STATIC && spec.Resolution != networkingapi.ServiceEntry_NONE:
			p.Err("ConflictingFields", field+".address", "use resolution STATIC", "a unix socket does not go with resolution %s", spec.Resolution)
		case unix && len(spec.Ports) != 1:
			p.Err("ConflictingFields", field+".address", "write an entry for each port", "a unix socket cannot tell the entry's %d ports apart", len(spec.Ports))
		case err != nil && spec.Resolution == networkingapi.ServiceEntry_STATIC && !unix:
			p.Err("InvalidAddress", field+".address", "use resolution DNS for names", "%q is not an IP address, as resolution STATIC needs", e.Address)
		}
	}
	if spec.WorkloadSelector != nil {
		p.ValidLabels(spec.WorkloadSelector.Labels, "spec.workloadSelector.labels")
		if len(spec.WorkloadSelector.Labels) == 0 {
			p.Warn("MissingField", "spec.workloadSelector.labels", "write labels", "without labels all pods and WorkloadEntries of the namespace are endpoints")
		}
		if spec.Resolution == networkingapi.ServiceEntry_NONE {
			p.Warn("NoEffect", "spec.workloadSelector", "use resolution STATIC", "with resolution NONE connections go where their clients send them")
		}
		if len(spec.Endpoints) > 0 {
			p.Err("ConflictingFields", "spec.workloadSelector", "", "only one of endpoints and workloadSelector can be set")
		}
	}
}

func hasPort(ports []*networkingapi.ServicePort, name string) bool {
	for _, p := range ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

// entryResolution checks what Istio asks of each resolution.
func (p converter) entryResolution(spec *networkingapi.ServiceEntry) {
	switch spec.Resolution {
	case networkingapi.ServiceEntry_NONE:
		if len(spec.Endpoints) > 0 {
			p.Err("ConflictingFields", "spec.endpoints", "use resolution STATIC or DNS", "endpoints have no effect with resolution NONE")
		}
	case networkingapi.ServiceEntry_STATIC:
		if len(spec.Endpoints) == 0 && spec.WorkloadSelector == nil {
			p.Warn("MissingField", "spec.endpoints", "write endpoints or a workloadSelector", "unless another entry for the host gives endpoints, there is nothing to connect to")
		}
	case networkingapi.ServiceEntry_DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		for i, host := range spec.Hosts {
			if strings.HasPrefix(host, "*.") && len(spec.Endpoints) == 0 {
				p.Err("InvalidHost", parts.At("spec.hosts", i), "use resolution DYNAMIC_DNS, which looks up the host that each request or TLS connection names, or NONE, or give endpoints", "a wildcard cannot be looked up in DNS")
			}
		}
		if spec.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN && len(spec.Endpoints) > 1 {
			p.Err("InvalidValue", "spec.endpoints", "", "resolution DNS_ROUND_ROBIN takes one endpoint at most")
		}
	}
}

// byHost checks what resolution DYNAMIC_DNS asks for: connections that name a host under a wildcard.
func (p converter) byHost(spec *networkingapi.ServiceEntry) {
	if spec.Resolution != networkingapi.ServiceEntry_DYNAMIC_DNS {
		return
	}
	for i, host := range spec.Hosts {
		if !strings.HasPrefix(host, "*.") {
			p.Err("InvalidHost", parts.At("spec.hosts", i), "use resolution DNS", "resolution DYNAMIC_DNS is for hosts with a wildcard, and %q is none", host)
		}
	}
	for i, port := range spec.Ports {
		switch protocol, known := parts.Protocols[strings.ToLower(port.Protocol)]; {
		case port.Protocol == "" || known && !protocol.IsHTTP() && protocol != model.TLS && protocol != model.HTTPS:
			p.Err("InvalidProtocol", parts.At("spec.ports", i)+".protocol", "declare HTTP, HTTP2, GRPC, TLS or HTTPS", "connections to port %d do not name the host that is to be looked up", port.Number)
		case known && !protocol.IsHTTP() && len(spec.Addresses) == 0:
			p.Warn("MissingField", "spec.addresses", "give an address, which the hosts then have in DNS", "port %d is %s: without addresses sidecars pass its connections through", port.Number, port.Protocol)
		}
	}
	if len(spec.Endpoints) > 0 {
		p.Warn("NoEffect", "spec.endpoints", "use resolution STATIC or DNS", "with resolution DYNAMIC_DNS the host that is named is looked up")
	}
	if spec.WorkloadSelector != nil {
		p.Warn("NoEffect", "spec.workloadSelector", "use resolution STATIC", "with resolution DYNAMIC_DNS the host that is named is looked up")
	}
}

// namedEndpoints gives the endpoints that the object itself names: with DNS and none, the host stands for itself.
func (p converter) namedEndpoints(spec *networkingapi.ServiceEntry, s *model.Service) []*model.Endpoint {
	var list []*model.Endpoint
	for _, e := range spec.Endpoints {
		ep := EntryEndpoint(e, s.Namespace, "", e.Labels)
		ep.Ports = TargetPorts(spec.Ports, e.Ports)
		list = append(list, ep)
	}
	dns := s.Resolution == model.DNS || s.Resolution == model.DNSRoundRobin
	if len(list) == 0 && dns && spec.WorkloadSelector == nil {
		list = append(list, &model.Endpoint{Address: s.Host, Ports: TargetPorts(spec.Ports, nil), Namespace: s.Namespace, Ready: true})
	}
	return list
}

// TargetPorts maps service ports to an endpoint's: its own by name, else the target port, else the same.
func TargetPorts(ports []*networkingapi.ServicePort, own map[string]uint32) map[uint16]uint16 {
	m := map[uint16]uint16{}
	for _, port := range ports {
		target := port.Number
		if port.TargetPort > 0 {
			target = port.TargetPort
		}
		if n := own[port.Name]; n > 0 {
			target = n
		}
		m[uint16(port.Number)] = uint16(target)
	}
	return m
}
