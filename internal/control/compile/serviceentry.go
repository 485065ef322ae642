package compile

import (
	"net/netip"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// serviceEntry converts a ServiceEntry: one service for each host.
func (p *part) serviceEntry(se *networking.ServiceEntry) {
	spec := &se.Spec
	p.only(spec, "spec", "hosts", "addresses", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo")
	if len(spec.Hosts) == 0 {
		p.err("MissingField", "spec.hosts", "", "at least one host is needed")
	}
	ports := p.entryPorts(spec.Ports)
	addresses := p.entryAddresses(spec.Addresses)
	resolution, ok := resolutions[spec.Resolution]
	if !ok {
		p.unsupported("spec.resolution", "use one of NONE, STATIC, DNS, DNS_ROUND_ROBIN")
	}
	p.entryEndpoints(spec)
	visible := p.exportTo(spec.ExportTo, "spec.exportTo")
	for i, host := range spec.Hosts {
		field := at("spec.hosts", i)
		if !p.validHost(host, field, false) {
			continue
		}
		if host == "*" {
			p.err("InvalidHost", field, "", `"*" alone is not allowed here`)
			continue
		}
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		p.entryResolution(spec, host, field)
		s := &model.Service{Ref: p.Ref(), Host: host, Namespace: se.Namespace, Name: host, Addresses: addresses,
			External:   spec.Location == networkingapi.ServiceEntry_MESH_EXTERNAL,
			Resolution: resolution, Ports: ports, Labels: se.Labels, ExportTo: visible, Created: p.Born}
		s.Endpoints = p.namedEndpoints(spec, s)
		p.services = append(p.services, s)
	}
}

var resolutions = map[networkingapi.ServiceEntry_Resolution]model.Resolution{
	networkingapi.ServiceEntry_NONE: model.None, networkingapi.ServiceEntry_STATIC: model.Static,
	networkingapi.ServiceEntry_DNS: model.DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN: model.DNSRoundRobin,
}

func (p *part) entryPorts(list []*networkingapi.ServicePort) []model.Port {
	if len(list) == 0 {
		p.err("MissingField", "spec.ports", "", "at least one port is needed")
	}
	numbers, names := map[uint32]bool{}, map[string]bool{}
	var ports []model.Port
	for i, port := range list {
		field := at("spec.ports", i)
		protocol := p.istioProtocol(port.Protocol, port.Name, field+".protocol")
		number := p.validPort(port.Number, field+".number")
		switch {
		case port.Name == "":
			p.err("MissingField", field+".name", "", "a name is missing")
		case names[port.Name]:
			p.err("DuplicatePort", field+".name", "", "name %q is used twice", port.Name)
		case numbers[port.Number]:
			p.err("DuplicatePort", field+".number", "", "port %d is given twice", port.Number)
		}
		if port.TargetPort != 0 {
			p.validPort(port.TargetPort, field+".targetPort")
		}
		names[port.Name], numbers[port.Number] = true, true
		ports = append(ports, model.Port{Number: number, Name: port.Name, Protocol: protocol})
	}
	return ports
}

// istioProtocol reads the protocol of a port of Istio's own kinds; when none is given, the name's prefix decides.
func (p *part) istioProtocol(protocol, name, field string) model.Protocol {
	if protocol == "" {
		prefix, _, _ := strings.Cut(strings.ToLower(name), "-")
		if known, ok := protocols[prefix]; ok {
			return known
		}
		return model.Auto
	}
	known, ok := protocols[strings.ToLower(protocol)]
	if !ok || strings.Contains(protocol, "/") {
		p.err("InvalidProtocol", field, "use one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, MYSQL, REDIS",
			"%q is not a protocol that the mesh carries", protocol)
		return model.Auto
	}
	return known
}

func (p *part) entryAddresses(list []string) []netip.Addr {
	var addresses []netip.Addr
	for i, s := range list {
		field := at("spec.addresses", i)
		if a, err := netip.ParseAddr(s); err == nil {
			addresses = append(addresses, a.Unmap())
			continue
		}
		prefix, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			p.err("InvalidAddress", field, "", "%q is neither an IP address nor a range", s)
		case prefix.IsSingleIP():
			addresses = append(addresses, prefix.Addr().Unmap())
		default:
			p.unsupported(field, "give single addresses rather than a range")
		}
	}
	return addresses
}

func (p *part) entryEndpoints(spec *networkingapi.ServiceEntry) {
	for i, e := range spec.Endpoints {
		field := at("spec.endpoints", i)
		p.workloadEntry(e, field)
		for _, name := range sortedKeys(e.Ports) {
			if !hasPort(spec.Ports, name) {
				p.err("PortNotFound", key(field+".ports", name), "", "the ServiceEntry has no port named %q", name)
			}
		}
		if _, err := netip.ParseAddr(e.Address); err != nil && spec.Resolution == networkingapi.ServiceEntry_STATIC {
			p.err("InvalidAddress", field+".address", "use resolution DNS for names", "%q is not an IP address, as resolution STATIC needs", e.Address)
		}
	}
	if spec.WorkloadSelector != nil {
		p.validLabels(spec.WorkloadSelector.Labels, "spec.workloadSelector.labels")
		if len(spec.Endpoints) > 0 {
			p.err("ConflictingFields", "spec.workloadSelector", "", "only one of endpoints and workloadSelector can be set")
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
func (p *part) entryResolution(spec *networkingapi.ServiceEntry, host, field string) {
	wildcard := strings.HasPrefix(host, "*")
	switch spec.Resolution {
	case networkingapi.ServiceEntry_NONE:
		if len(spec.Endpoints) > 0 {
			p.err("ConflictingFields", "spec.endpoints", "use resolution STATIC or DNS", "endpoints have no effect with resolution NONE")
		}
	case networkingapi.ServiceEntry_STATIC:
		if len(spec.Endpoints) == 0 && spec.WorkloadSelector == nil {
			p.err("MissingField", "spec.endpoints", "", "resolution STATIC needs endpoints or a workloadSelector")
		}
	case networkingapi.ServiceEntry_DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		if wildcard && len(spec.Endpoints) == 0 {
			p.err("InvalidHost", field, "use resolution NONE, or give endpoints", "a wildcard cannot be looked up in DNS")
		}
		if spec.Resolution == networkingapi.ServiceEntry_DNS_ROUND_ROBIN && len(spec.Endpoints) > 1 {
			p.err("InvalidValue", "spec.endpoints", "", "resolution DNS_ROUND_ROBIN takes one endpoint at most")
		}
	}
}

// namedEndpoints gives the endpoints that the object itself names: with DNS and none, the host stands for itself.
func (p *part) namedEndpoints(spec *networkingapi.ServiceEntry, s *model.Service) []*model.Endpoint {
	var list []*model.Endpoint
	for _, e := range spec.Endpoints {
		ep := entryEndpoint(e, s.Namespace, "", e.Labels)
		ep.Ports = targetPorts(spec.Ports, e.Ports)
		list = append(list, ep)
	}
	dns := s.Resolution == model.DNS || s.Resolution == model.DNSRoundRobin
	if len(list) == 0 && dns && spec.WorkloadSelector == nil {
		list = append(list, &model.Endpoint{Address: s.Host, Ports: targetPorts(spec.Ports, nil), Namespace: s.Namespace, Ready: true})
	}
	return list
}

// targetPorts maps service ports to an endpoint's: its own by name, else the target port, else the same.
func targetPorts(ports []*networkingapi.ServicePort, own map[string]uint32) map[uint16]uint16 {
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

// addServiceEntries puts the services of ServiceEntries into the mesh. A host belongs to the Kubernetes service of that name,
// else to the oldest entry.
func (c *compiler) addServiceEntries() {
	for _, p := range c.byKind["ServiceEntry"] {
		for i, s := range p.services {
			if other := c.mesh.Services[s.Host]; other != nil {
				first := c.owner[other]
				p.warn("DuplicateHost", at("spec.hosts", i), "keep one of them",
					"host %s already belongs to %s, which is older or a Kubernetes service: this one has no effect", s.Host, first.Ref())
				first.warn("DuplicateHost", "", "keep one of them", "host %s is also claimed by %s, which has no effect", s.Host, p.Ref())
				continue
			}
			c.addService(s, p)
		}
		c.selectForEntry(p)
	}
}

// selectForEntry gives the services of an entry with a workloadSelector the pods and WorkloadEntries it selects.
func (c *compiler) selectForEntry(p *part) {
	se, ok := p.Kube.(*networking.ServiceEntry)
	if !ok || se.Spec.WorkloadSelector == nil {
		return
	}
	for _, s := range p.services {
		for _, e := range c.entriesOf(se.Namespace, se.Spec.WorkloadSelector.Labels) {
			ep := entryEndpoint(&e.Spec, e.Namespace, e.Name, entryLabels(e))
			c.addEndpoint(s, ep, targetPorts(se.Spec.Ports, e.Spec.Ports))
		}
		for _, pod := range c.byKind["Pod"] {
			k, ok := pod.Kube.(*corev1.Pod)
			if !ok || k.Namespace != se.Namespace || k.Status.PodIP == "" || !selects(se.Spec.WorkloadSelector.Labels, k.Labels) {
				continue
			}
			ep := &model.Endpoint{Address: k.Status.PodIP, Ready: isReady(k)}
			describePod(ep, k)
			c.addEndpoint(s, ep, targetPorts(se.Spec.Ports, nil))
		}
	}
}
