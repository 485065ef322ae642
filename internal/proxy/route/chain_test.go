package route_test

import (
	"net/netip"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/wire"
)

// inbound is a workload's listener in permissive mode with one declared HTTP port.
func inbound() *conf.Listener {
	mesh := []string{wire.ALPNHTTP1, wire.ALPNHTTP2, wire.ALPNTCP}
	return &conf.Listener{Chains: []*conf.Chain{
		{Name: "9080-mtls", Match: conf.ChainMatch{DestinationPort: 9080, Transport: conf.TLSTransport, ALPN: mesh}},
		{Name: "9080-tls", Match: conf.ChainMatch{DestinationPort: 9080, Transport: conf.TLSTransport}},
		{Name: "9080-raw", Match: conf.ChainMatch{DestinationPort: 9080, Transport: conf.RawTransport}},
		{Name: "strict", Match: conf.ChainMatch{DestinationPort: 9090, Transport: conf.TLSTransport, ALPN: mesh}},
		{Name: "any-mtls", Match: conf.ChainMatch{Transport: conf.TLSTransport, ALPN: mesh}},
		{Name: "any-raw-http", Match: conf.ChainMatch{Transport: conf.RawTransport, ALPN: []string{"http/1.1", "h2c"}}},
		{Name: "any-raw", Match: conf.ChainMatch{Transport: conf.RawTransport}},
		{Name: "local", Match: conf.ChainMatch{Transport: conf.RawTransport, SourcePrefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		{Name: "subnet", Match: conf.ChainMatch{Destination: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}},
		{Name: "closer", Match: conf.ChainMatch{Destination: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}}},
	}}
}

func TestChain(t *testing.T) {
	conn := func(port uint16, tr conf.Transport, alpn ...string) route.ConnInfo {
		return route.ConnInfo{Destination: netip.AddrPortFrom(netip.MustParseAddr("172.16.0.1"), port),
			Source: netip.MustParseAddr("172.16.0.2"), Transport: tr, ALPN: alpn}
	}
	from := func(c route.ConnInfo, src string) route.ConnInfo { c.Source = netip.MustParseAddr(src); return c }
	to := func(c route.ConnInfo, dst string) route.ConnInfo {
		c.Destination = netip.MustParseAddrPort(dst)
		return c
	}
	tests := []struct {
		name string
		conn route.ConnInfo
		want string
		step route.ChainStep
	}{
		{"mesh", conn(9080, conf.TLSTransport, wire.ALPNHTTP1), "9080-mtls", route.ChainFound},
		{"own TLS", conn(9080, conf.TLSTransport, "http/1.1"), "9080-tls", route.ChainFound},
		{"plaintext", conn(9080, conf.RawTransport), "9080-raw", route.ChainFound},
		{"plaintext under strict", conn(9090, conf.RawTransport), "", route.ByTransport},
		{"own TLS under strict", conn(9090, conf.TLSTransport, "h2"), "", route.ByALPN},
		{"another port", conn(1234, conf.TLSTransport, "x", wire.ALPNTCP), "any-mtls", route.ChainFound},
		{"sniffed HTTP", conn(1234, conf.RawTransport, "http/1.1"), "any-raw-http", route.ChainFound},
		{"sniffed nothing", conn(1234, conf.RawTransport), "any-raw", route.ChainFound},
		{"source", from(conn(1234, conf.RawTransport), "10.1.1.1"), "local", route.ChainFound},
		{"mapped source", from(conn(1234, conf.RawTransport), "::ffff:10.1.1.1"), "local", route.ChainFound},
		{"destination", to(conn(1, conf.RawTransport), "192.168.2.1:5"), "subnet", route.ChainFound},
		{"closer destination", to(conn(1, conf.RawTransport), "192.168.1.1:5"), "closer", route.ChainFound},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			ch, step := route.Chain(inbound(), &c.conn)
			name := ""
			if ch != nil {
				name = ch.Name
			}
			if name != c.want || step != c.step {
				t.Errorf("chain %q by %s, want %q by %s", name, step, c.want, c.step)
			}
		})
	}
}

func TestChainByServerName(t *testing.T) {
	l := &conf.Listener{Default: &conf.Chain{Name: "default"}, Chains: []*conf.Chain{
		{Name: "exact", Match: conf.ChainMatch{ServerNames: []string{"a.example.com"}}},
		{Name: "wild", Match: conf.ChainMatch{ServerNames: []string{"*.example.com"}}},
		{Name: "wider", Match: conf.ChainMatch{ServerNames: []string{"*.com"}}},
	}}
	for sni, want := range map[string]string{"A.example.com": "exact", "b.example.com": "wild", "x.com": "wider", "x.org": "default", "": "default"} {
		if ch, _ := route.Chain(l, &route.ConnInfo{ServerName: sni}); ch.Name != want {
			t.Errorf("%q: %s, want %s", sni, ch.Name, want)
		}
	}
}

func TestChainAllocatesNothing(t *testing.T) {
	l := inbound()
	c := &route.ConnInfo{Destination: netip.MustParseAddrPort("10.0.0.1:9080"), Transport: conf.TLSTransport, ALPN: []string{wire.ALPNHTTP1}}
	if n := testing.AllocsPerRun(100, func() { route.Chain(l, c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
