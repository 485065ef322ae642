// Package transport makes transport sockets: TLS towards clients and upstreams, and the PROXY protocol.
package transport

import (
	"crypto/tls"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	socketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Names of sockets, Envoy's well-known ones.
const (
	TLSSocket = "envoy.transport_sockets.tls"
	RawSocket = "envoy.transport_sockets.raw_buffer"
	// The instances of certificate providers that every client of the mesh has: its own certificate, and the mesh's roots.
	ownCertificate = wire.OwnCertificate
	meshRoots      = wire.MeshRoots
)

// Socket is a transport socket.
func Socket(name string, config proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: message.Pack(config)}}
}

// Workload uses the certificate and the roots that the client holds itself; they are never sent to it this way. The roots are
// named in a plain validation context: a combined one would need a secret from a server besides.
func Workload(validation *tlsv3.CertificateValidationContext, alpn []string) *tlsv3.CommonTlsContext {
	validation.CaCertificateProviderInstance = &tlsv3.CertificateProviderPluginInstance{InstanceName: meshRoots}
	return &tlsv3.CommonTlsContext{
		AlpnProtocols:                  alpn,
		TlsCertificateProviderInstance: &tlsv3.CertificateProviderPluginInstance{InstanceName: ownCertificate},
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}
}

// UpstreamALPN tells the server's proxy that the connection comes from the mesh, and whether requests are on it. Where that is
// known only from the first bytes there are all, and the proxy offers the one that is true.
func UpstreamALPN(p model.Protocol) []string {
	switch {
	case p.IsHTTP():
		return []string{wire.ALPNHTTP2, wire.ALPNHTTP1}
	case p == model.TCP || p == model.TLS || p == model.HTTPS:
		return []string{wire.ALPNTCP}
	}
	return []string{wire.ALPNHTTP2, wire.ALPNHTTP1, wire.ALPNTCP}
}

// SANType tells a URI from a DNS name.
func SANType(name string) tlsv3.SubjectAltNameMatcher_SanType {
	if len(name) > 9 && name[:9] == "spiffe://" {
		return tlsv3.SubjectAltNameMatcher_URI
	}
	return tlsv3.SubjectAltNameMatcher_DNS
}

// KeyPair holds a certificate and its key in the message itself.
func KeyPair(certificate, key []byte) *tlsv3.TlsCertificate {
	return &tlsv3.TlsCertificate{CertificateChain: message.Inline(certificate), PrivateKey: message.Inline(key)}
}

// Inbound terminates the mesh's mutual TLS at a sidecar.
func Inbound(alpn []string) *corev3.TransportSocket { return meshServerTLS(alpn, 0) }

func meshServerTLS(alpn []string, minVersion uint16) *corev3.TransportSocket {
	common := Workload(&tlsv3.CertificateValidationContext{}, alpn)
	if minVersion != 0 {
		common.TlsParams = &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsVersion(minVersion)}
	}
	return Socket(TLSSocket, &tlsv3.DownstreamTlsContext{RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: common})
}

// Server terminates TLS at a gateway's server; nil where it is passed through, or what it needs is not to be had.
func Server(s *model.Server, alpn []string) *corev3.TransportSocket {
	t := s.TLS
	if t == nil || t.Mode == model.TLSPassthrough || t.Mode == model.TLSAutoPassthrough {
		return nil
	}
	if t.Mode == model.TLSIstioMutual {
		return meshServerTLS(append([]string{wire.ALPNHTTP2, wire.ALPNHTTP1, wire.ALPNTCP}, alpn...), t.MinVersion)
	}
	verifies := t.Mode == model.TLSMutual || t.Mode == model.TLSOptionalMutual
	if len(t.Certificate) == 0 || len(t.Key) == 0 || verifies && len(t.CA) == 0 {
		return nil
	}
	common := &tlsv3.CommonTlsContext{AlpnProtocols: alpn, TlsCertificates: []*tlsv3.TlsCertificate{KeyPair(t.Certificate, t.Key)},
		TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsVersion(t.MinVersion), TlsMaximumProtocolVersion: tlsVersion(t.MaxVersion)}}
	common.TlsParams.CipherSuites = t.CipherSuites
	for _, pair := range t.More {
		common.TlsCertificates = append(common.TlsCertificates, KeyPair(pair.Certificate, pair.Key))
	}
	if t.AnyClient {
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED}}
	}
	if verifies {
		v := &tlsv3.CertificateValidationContext{TrustedCa: message.Inline(t.CA),
			VerifyCertificateHash: t.CertificateHashes, VerifyCertificateSpki: t.KeyHashes}
		if len(t.CRL) > 0 {
			v.Crl = message.Inline(t.CRL)
		}
		for _, n := range t.SANs {
			v.MatchTypedSubjectAltNames = append(v.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
				SanType: SANType(n), Matcher: message.Exactly(n, false)})
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return Socket(TLSSocket, &tlsv3.DownstreamTlsContext{CommonTlsContext: common,
		RequireClientCertificate: wrapperspb.Bool(t.Mode == model.TLSMutual)})
}

// tlsVersion translates crypto/tls's version numbers; 0 and unknown ones leave the choice to the client.
func tlsVersion(v uint16) tlsv3.TlsParameters_TlsProtocol {
	switch v {
	case tls.VersionTLS10:
		return tlsv3.TlsParameters_TLSv1_0
	case tls.VersionTLS11:
		return tlsv3.TlsParameters_TLSv1_1
	case tls.VersionTLS12:
		return tlsv3.TlsParameters_TLSv1_2
	case tls.VersionTLS13:
		return tlsv3.TlsParameters_TLSv1_3
	}
	return tlsv3.TlsParameters_TLS_AUTO
}

// Names of the filter and the socket, Envoy's well-known ones.
const (
	ProxyProtocolFilter = "envoy.filters.listener.proxy_protocol"
	proxyProtocolSocket = "envoy.transport_sockets.upstream_proxy_protocol"
)

// Announce has connections begin with a PROXY protocol header, before TLS.
func Announce(c *clusterv3.Cluster, version uint8) {
	if version == 0 {
		return
	}
	wrap := func(inner *corev3.TransportSocket) *corev3.TransportSocket {
		if inner == nil {
			inner = Socket(RawSocket, &rawv3.RawBuffer{})
		}
		return Socket(proxyProtocolSocket, &socketv3.ProxyProtocolUpstreamTransport{TransportSocket: inner,
			Config: &corev3.ProxyProtocolConfig{Version: corev3.ProxyProtocolConfig_Version(version - 1)}})
	}
	for _, m := range c.TransportSocketMatches {
		m.TransportSocket = wrap(m.TransportSocket)
	}
	if len(c.TransportSocketMatches) == 0 {
		c.TransportSocket = wrap(c.TransportSocket)
	}
}
