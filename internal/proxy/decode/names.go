package decode

import (
	"net/netip"

	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) names(m *dnsv3.DnsTable) *conf.Names {
	d.Only(m, "virtual_domains")
	if len(m.GetVirtualDomains()) != 1 {
		d.At("virtual_domains", func() { d.Fail("has %d entries, want one", len(m.GetVirtualDomains())) })
		return nil
	}
	n := &conf.Names{}
	walk.Each(d.Walk, "virtual_domains", m.GetVirtualDomains(), func(v *dnsv3.DnsTable_DnsVirtualDomain) {
		d.Only(v, "name", "endpoint", "answer_ttl")
		n.Name, n.TTL = v.GetName(), d.Duration("answer_ttl", v.GetAnswerTtl())
		d.Only(v.GetEndpoint(), "address_list", "cluster_name")
		n.Alias = v.GetEndpoint().GetClusterName()
		walk.Each(d.Walk, "endpoint.address_list.address", v.GetEndpoint().GetAddressList().GetAddress(), func(s string) {
			a, err := netip.ParseAddr(s)
			if err != nil {
				d.Failed(err)
			}
			n.Addresses = append(n.Addresses, a)
		})
	})
	return n
}
