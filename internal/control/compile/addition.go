package compile

import (
	"maps"
	"reflect"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
)

// addition is what a younger ServiceEntry adds to the service of its host.
type addition struct {
	by    *record
	of    *model.Service
	ports map[uint16]bool // by their numbers
}

// addsTo reports whether a younger claim to a host adds to the service of it. As in Istio, both are ServiceEntries of one namespace that
// say the same of how endpoints are found, which they are, and who sees them. The age, and with it the precedence, is the older one's.
func addsTo(claimed, s *model.Service, first *record) bool {
	older, ok := first.Kube.(*networking.ServiceEntry)
	return ok && claimed.Ref.Kind == "ServiceEntry" && claimed.Namespace == older.Namespace && claimed.Resolution == s.Resolution &&
		claimed.External == s.External && maps.Equal(claimed.Labels, s.Labels) && reflect.DeepEqual(claimed.ExportTo, s.ExportTo)
}

// addPorts gives a service the ports of a younger entry for its host. A port that both have is the older one's, and what the younger says
// differently of it has no effect; its endpoints are endpoints of that port too.
func (c *compiler) addPorts(s *model.Service, first *record, claimed *model.Service, by *record, nth int) addition {
	a := addition{by, claimed, map[uint16]bool{}}
	s.Ports = slices.Clone(s.Ports)
	p := c.about(by.Object)
	for i, port := range claimed.Ports {
		field := parts.At("spec.ports", i)
		have := slices.IndexFunc(s.Ports, func(h model.Port) bool { return h.Number == port.Number })
		named := slices.IndexFunc(s.Ports, func(h model.Port) bool { return h.Name == port.Name })
		switch {
		case have < 0 && named < 0:
			s.Ports = append(s.Ports, port)
		case have < 0:
			p.Warn("DuplicatePort", field+".name", "give it another name", "%s, which is %s, has a port of that name for host %s: this one has no effect", first.Ref(), age(first.Object, by.Object), s.Host)
			continue
		case s.Ports[have].Protocol != port.Protocol:
			p.Warn("ProtocolConflict", field+".protocol", "declare one protocol for the port", "port %d of host %s is %s here, and %s in %s, which is %s: this one has no effect",
				port.Number, s.Host, port.Protocol, s.Ports[have].Protocol, first.Ref(), age(first.Object, by.Object))
			c.about(first.Object).Warn("ProtocolConflict", "spec.ports", "declare one protocol for the port", "port %d of host %s is %s here, and %s in %s, where it has no effect",
				port.Number, s.Host, s.Ports[have].Protocol, port.Protocol, by.Ref())
			continue
		case s.Resolution == model.DNSRoundRobin:
			p.Warn("DuplicatePort", field+".number", "keep one of them", "%s, which is %s, has port %d of host %s, and resolution DNS_ROUND_ROBIN takes one endpoint: this one has no effect",
				first.Ref(), age(first.Object, by.Object), port.Number, s.Host)
			continue
		}
		a.ports[port.Number] = true
	}
	if !slices.Equal(claimed.Addresses, s.Addresses) || !slices.Equal(claimed.Networks, s.Networks) {
		p.Warn("NoEffect", "spec.addresses", "write the same addresses in both", "the addresses of host %s are those of %s, which is %s", s.Host, first.Ref(), age(first.Object, by.Object))
	}
	if !slices.Equal(claimed.SANs, s.SANs) {
		p.Warn("NoEffect", "spec.subjectAltNames", "write the same names in both", "the names of host %s are those of %s, which is %s", s.Host, first.Ref(), age(first.Object, by.Object))
	}
	return a
}

// addAdded adds the endpoints of younger entries for the host, each for its own ports.
func (c *compiler) addAdded(found *workloads.Endpoints, added []addition) {
	for _, a := range added {
		own := workloads.Gather(a.of.Endpoints)
		if se, ok := a.by.Kube.(*networking.ServiceEntry); ok {
			c.selectForEntry(own, se)
		}
		for _, ep := range own.List {
			one := *ep
			one.Ports = maps.Clone(ep.Ports)
			maps.DeleteFunc(one.Ports, func(port, _ uint16) bool { return !a.ports[port] })
			if len(one.Ports) > 0 {
				found.Join(&one)
			}
		}
	}
}
