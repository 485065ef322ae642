package generate

import (
	"cmp"
	"crypto/tls"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

const quicSocket = "envoy.transport_sockets.quic"

// quicListener is the listener for HTTP/3 at a port's UDP side, with the servers of gateways that ask for it; nil for none. The
// route tables are those of HTTPS.
func (g *Generator) quicListener(set *view.ServerSet) *listenerv3.Listener {
	var chains []*listenerv3.FilterChain
	for _, s := range set.Servers {
		if !s.Gateway.HTTP3 || !s.Server.TerminatesHTTPS() {
			continue
		}
		for _, c := range g.gatewayTLS(s) {
			if overQUIC(c, g.gatewayManager(tlsRouteName(s), s.Port, s.Server.Protocol), s.Server) {
				chains = append(chains, c)
			}
		}
	}
	if len(chains) == 0 {
		return nil
	}
	address := message.SocketAddress(cmp.Or(set.Servers[0].Server.Bind, "0.0.0.0"), set.Port)
	address.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	return &listenerv3.Listener{
		Name:              wire.GatewayQUICListenerName(set.Port),
		Address:           address,
		TrafficDirection:  corev3.TrafficDirection_OUTBOUND,
		UdpListenerConfig: &listenerv3.UdpListenerConfig{QuicOptions: &listenerv3.QuicProtocolOptions{}, DownstreamSocketConfig: &corev3.UdpSocketConfig{}},
		FilterChains:      uniqueMatches(chains),
	}
}

// overQUIC makes a chain for TLS one for QUIC.
func overQUIC(c *listenerv3.FilterChain, h *hcmv3.HttpConnectionManager, s *model.Server) bool {
	t := &tlsv3.DownstreamTlsContext{}
	if err := c.GetTransportSocket().GetTypedConfig().UnmarshalTo(t); err != nil {
		return false // the server has no certificate
	}
	t.CommonTlsContext.AlpnProtocols = []string{"h3"}
	t.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
	c.TransportSocket = transport.Socket(quicSocket, &quicv3.QuicDownstreamTransport{DownstreamTlsContext: t})
	h.CodecType = hcmv3.HttpConnectionManager_HTTP3
	h.Http3ProtocolOptions = &corev3.Http3ProtocolOptions{}
	c.Filters = []*listenerv3.Filter{message.NetworkFilter(message.HTTPManagerFilter, h)}
	return s.TLS.MaxVersion == 0 || s.TLS.MaxVersion >= tls.VersionTLS13
}
