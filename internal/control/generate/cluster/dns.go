package cluster

import (
	"net/netip"
	"slices"
	"strings"

	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/control/model"
)

// dnsTTL is how long an answer may be kept; Envoy's messages allow no less. Virtual addresses are stable, and the proxy keeps the
// table current whatever the time to live.
const dnsTTL = 30

// DNS gives the addresses of a name as the node's applications look it up: the virtual addresses of its service, or the addresses
// of the ready endpoints of a headless one. For a Service of type ExternalName that leads out of the mesh it is the name of the cluster
// that stands for that name: the node's own resolver knows its addresses. Other services without addresses, external ones as a rule,
// have no table: the node's own resolver knows them.
func (g *Generator) DNS(name string) (proto.Message, bool) {
	for _, host := range g.view.FullNames(strings.TrimSuffix(strings.ToLower(name), ".")) {
		s := g.view.Named(host)
		if s == nil {
			continue
		}
		endpoint := &dnsv3.DnsTable_DnsEndpoint{}
		if addresses := g.addresses(s); len(addresses) > 0 {
			endpoint.EndpointConfig = &dnsv3.DnsTable_DnsEndpoint_AddressList{AddressList: &dnsv3.DnsTable_AddressList{Address: addresses}}
		} else if s.ExternalName != "" {
			endpoint.EndpointConfig = &dnsv3.DnsTable_DnsEndpoint_ClusterName{ClusterName: s.ExternalName}
		} else {
			return nil, false
		}
		return &dnsv3.DnsTable{VirtualDomains: []*dnsv3.DnsTable_DnsVirtualDomain{{
			Name: name, AnswerTtl: &durationpb.Duration{Seconds: dnsTTL}, Endpoint: endpoint}}}, true
	}
	return nil, false
}

func (g *Generator) addresses(s *model.Service) (list []string) {
	for _, a := range s.VirtualAddresses() {
		list = append(list, a.String())
	}
	if s.Headless {
		for _, e := range g.mesh.Endpoints(s) {
			if _, err := netip.ParseAddr(e.Address); err == nil && e.Ready {
				list = append(list, e.Address)
			}
		}
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return list
}
