package decode

import (
	"net/netip"

	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func (d *decoder) names(m *dnsv3.DnsTable) *conf.Names {
	d.only(m, "virtual_domains")
	if len(m.GetVirtualDomains()) != 1 {
		d.at("virtual_domains", func() { d.fail("has %d entries, want one", len(m.GetVirtualDomains())) })
		return nil
	}
	n := &conf.Names{}
	each(d, "virtual_domains", m.GetVirtualDomains(), func(v *dnsv3.DnsTable_DnsVirtualDomain) {
		d.only(v, "name", "endpoint", "answer_ttl")
		n.Name, n.TTL = v.GetName(), d.duration("answer_ttl", v.GetAnswerTtl())
		d.only(v.GetEndpoint(), "address_list")
		each(d, "endpoint.address_list.address", v.GetEndpoint().GetAddressList().GetAddress(), func(s string) {
			a, err := netip.ParseAddr(s)
			if err != nil {
				d.failed(err)
			}
			n.Addresses = append(n.Addresses, a)
		})
	})
	return n
}
