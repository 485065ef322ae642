package decode

import (
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// quicListener makes l one for HTTP/3, which one for datagrams is not.
func (d *decoder) quicListener(m *listenerv3.UdpListenerConfig, l *conf.Listener) {
	// Without effect: the sizes of datagrams and buffers, which are the library's.
	d.Only(m, "downstream_socket_config", "quic_options")
	if m.GetQuicOptions() == nil {
		return
	}
	d.At("quic_options", func() { d.Only(m.GetQuicOptions()) })
	l.QUIC, d.quic = true, true
}

// overQUIC checks that all of a listener for HTTP/3 is for it.
func (d *decoder) overQUIC(l *conf.Listener) {
	if l.Direction != "gateway" {
		d.Fail("udp_listener_config: is for gateways only")
	}
	for i, c := range append(l.Chains, l.Default) {
		if c != nil && (c.TLS == nil || c.HTTP == nil) {
			d.At("filter_chains["+strconv.Itoa(i)+"]", func() { d.Fail("HTTP/3 needs a QUIC transport socket and an HTTP connection manager") })
		}
	}
}
