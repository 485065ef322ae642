package decode

import (
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

const downstreamQUIC = "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport"

// quicListener makes l one for HTTP/3, which one for datagrams is not.
func (d *decoder) quicListener(m *listenerv3.UdpListenerConfig, l *conf.Listener) {
	// Without effect: the sizes of datagrams and buffers, which are the library's.
	d.only(m, "downstream_socket_config", "quic_options")
	if m.GetQuicOptions() == nil {
		return
	}
	d.at("quic_options", func() { d.only(m.GetQuicOptions()) })
	l.QUIC, d.quic = true, true
}

// overQUIC checks that all of a listener for HTTP/3 is for it.
func (d *decoder) overQUIC(l *conf.Listener) {
	if l.Direction != "gateway" {
		d.fail("udp_listener_config: is for gateways only")
	}
	for i, c := range append(l.Chains, l.Default) {
		if c != nil && (c.TLS == nil || c.HTTP == nil) {
			d.at("filter_chains["+strconv.Itoa(i)+"]", func() { d.fail("HTTP/3 needs a QUIC transport socket and an HTTP connection manager") })
		}
	}
}

func (d *decoder) quicSocket(m *quicv3.QuicDownstreamTransport) (t *conf.DownstreamTLS) {
	d.only(m, "downstream_tls_context", "enable_early_data")
	if m.GetEnableEarlyData().GetValue() {
		d.at("enable_early_data", func() { d.fail("is not supported: early data can be replayed") })
	}
	d.at("downstream_tls_context", func() {
		if m.GetDownstreamTlsContext() == nil {
			d.failed(errRequired)
			return
		}
		t = d.downstream(m.GetDownstreamTlsContext())
	})
	return t
}
