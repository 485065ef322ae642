package services

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// noAllocation is the label with which a ServiceEntry wants no address of the mesh: "false".
const noAllocation = "networking.istio.io/enable-autoallocate-ip"

// allocates reports whether the mesh gives a host of an entry without addresses one of its own, as Istio does: where nobody else may know
// the name, and where the address alone tells connections from others. Requests and TLS name their host: with DNS these keep the
// addresses that the name has elsewhere, at which the entry's other ports are reached too.
func allocates(se *networking.ServiceEntry, s *model.Service) bool {
	if strings.HasPrefix(s.Host, "*") || strings.EqualFold(se.Labels[noAllocation], "false") {
		return false
	}
	switch s.Resolution {
	case model.Static:
		return true
	case model.DNS, model.DNSRoundRobin:
		return slices.ContainsFunc(s.Ports, func(p model.Port) bool { return p.Protocol == model.TCP || p.Protocol == model.Auto })
	}
	return false
}

// unallocated reports whether some host of an entry without addresses gets none.
func (p converter) unallocated(spec *networkingapi.ServiceEntry) bool {
	return strings.EqualFold(p.GetLabels()[noAllocation], "false") ||
		spec.Resolution == networkingapi.ServiceEntry_NONE || spec.Resolution == networkingapi.ServiceEntry_DYNAMIC_DNS ||
		slices.ContainsFunc(spec.Hosts, func(h string) bool { return strings.HasPrefix(h, "*") })
}

// allocationBits are those of an address in 240.0.0.0/5, of the block that nobody may use (RFC 1112, section 4), that tell hosts apart.
const allocationBits = 27

// allocated gives a host its address: the same in every control plane and after every start. Two of ten thousand hosts may well get one;
// then the older has it, and both are told.
func allocated(host string) netip.Addr {
	h := fnv.New64a()
	h.Write([]byte(host))
	sum := h.Sum64()
	n := uint32(sum^sum>>32) & (1<<allocationBits - 1)
	return netip.AddrFrom4([4]byte{240 + byte(n>>24), byte(n >> 16), byte(n >> 8), byte(n)})
}
