// Package envoy makes of messages for our own proxies what a stock Envoy takes. Ours know the mesh's certificates as instances of
// providers and say by ALPN, connection by connection, what follows; an Envoy gets certificates as secrets, and one ALPN for each
// cluster.
package envoy

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/wire"
)

const (
	protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	// LoopSource is the address from which an Envoy connects to its own workload; rules that capture connections leave it alone, as
	// Istio's do.
	LoopSource = "127.0.0.6"
)

// Secrets says where an Envoy finds its certificates: as files in a folder, or at a cluster of its bootstrap where it is empty.
type Secrets struct{ Dir string }

func (s Secrets) config(secret string) *tlsv3.SdsSecretConfig {
	source := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3}
	if s.Dir != "" {
		source.ConfigSourceSpecifier = &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path: s.Dir + "/" + wire.SDSFile(secret)}}
	} else {
		source.ConfigSourceSpecifier = &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: wire.SDSCluster}}}}}}
	}
	return &tlsv3.SdsSecretConfig{Name: secret, SdsConfig: source}
}

// Listener gives an Envoy's form of a listener.
func (s Secrets) Listener(l *listenerv3.Listener) *listenerv3.Listener {
	for _, c := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
		if c != nil && c.TransportSocket != nil {
			c.TransportSocket = s.socket(c.TransportSocket, nil)
		}
	}
	return l
}

// Cluster gives an Envoy's form of a cluster. Towards the mesh it speaks the version of HTTP that the port is declared for, 1.1 unless
// that says 2, because an Envoy that spoke what its client does would offer the wrong ALPN.
func (s Secrets) Cluster(c *clusterv3.Cluster) *clusterv3.Cluster {
	if c.GetType() == clusterv3.Cluster_ORIGINAL_DST && (strings.HasPrefix(c.Name, "inbound|") || c.Name == wire.InboundPassthroughCluster) {
		c.UpstreamBindConfig = &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{Address: LoopSource,
			PortSpecifier: &corev3.SocketAddress_PortValue{}}}
		return c
	}
	alpn := []string{wire.ALPNTCP}
	if options := c.TypedExtensionProtocolOptions[protocolOptions]; options != nil && toMesh(c) {
		var o upstreamsv3.HttpProtocolOptions
		if options.UnmarshalTo(&o) == nil {
			alpn = []string{declare(&o)}
			c.TypedExtensionProtocolOptions[protocolOptions] = pack(&o)
		}
	}
	if c.TransportSocket != nil {
		c.TransportSocket = s.socket(c.TransportSocket, alpn)
	}
	for _, m := range c.TransportSocketMatches {
		m.TransportSocket = s.socket(m.TransportSocket, alpn)
	}
	return c
}

// toMesh reports whether a cluster's endpoints may be spoken to in the mesh's TLS.
func toMesh(c *clusterv3.Cluster) bool {
	if len(c.TransportSocketMatches) > 0 {
		return true
	}
	_, t := upstream(c.TransportSocket)
	return t.GetCommonTlsContext().GetTlsCertificateProviderInstance() != nil
}

// declare makes options that follow the client say HTTP/1.1, and gives the ALPN.
func declare(o *upstreamsv3.HttpProtocolOptions) string {
	if o.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil {
		return wire.ALPNHTTP2
	}
	o.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}}}
	return wire.ALPNHTTP1
}

// upstream finds the TLS of a socket, and the socket around it that sends a PROXY protocol header, if any.
func upstream(t *corev3.TransportSocket) (outer *headerv3.ProxyProtocolUpstreamTransport, inner *tlsv3.UpstreamTlsContext) {
	h := &headerv3.ProxyProtocolUpstreamTransport{}
	if t.GetTypedConfig().UnmarshalTo(h) == nil {
		outer, t = h, h.TransportSocket
	}
	u := &tlsv3.UpstreamTlsContext{}
	if t.GetTypedConfig().UnmarshalTo(u) != nil {
		return outer, nil
	}
	return outer, u
}

// socket gives an Envoy's form of a socket; one that it does not know stays as it is. ALPN is for the mesh's TLS towards servers.
func (s Secrets) socket(t *corev3.TransportSocket, alpn []string) *corev3.TransportSocket {
	replace := func(m proto.Message) *corev3.TransportSocket {
		return &corev3.TransportSocket{Name: t.Name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(m)}}
	}
	down, quic := &tlsv3.DownstreamTlsContext{}, &quicv3.QuicDownstreamTransport{}
	switch {
	case t.GetTypedConfig().UnmarshalTo(down) == nil:
		s.common(down.GetCommonTlsContext(), served(down.GetCommonTlsContext().GetAlpnProtocols()))
		return replace(down)
	case t.GetTypedConfig().UnmarshalTo(quic) == nil:
		s.common(quic.GetDownstreamTlsContext().GetCommonTlsContext(), quic.GetDownstreamTlsContext().GetCommonTlsContext().GetAlpnProtocols())
		return replace(quic)
	}
	outer, up := upstream(t)
	if up == nil {
		return t
	}
	s.common(up.GetCommonTlsContext(), alpn)
	if outer == nil {
		return replace(up)
	}
	outer.TransportSocket = &corev3.TransportSocket{Name: outer.TransportSocket.Name,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(up)}}
	return replace(outer)
}

// served leaves out the mesh's own protocols: an Envoy takes an ALPN for HTTP/2 only where it is called "h2", and looks at the first
// bytes where nothing was agreed.
func served(alpn []string) []string {
	return slices.DeleteFunc(slices.Clone(alpn), func(p string) bool {
		return p == wire.ALPNHTTP1 || p == wire.ALPNHTTP2 || p == wire.ALPNTCP
	})
}

// common replaces instances of certificate providers, and the system's roots, which an Envoy does not look for, by secrets.
func (s Secrets) common(c *tlsv3.CommonTlsContext, alpn []string) {
	v, roots := c.GetValidationContext(), ""
	switch {
	case c.GetTlsCertificateProviderInstance() != nil:
		roots = wire.MeshRoots
		c.AlpnProtocols, c.TlsCertificateProviderInstance = alpn, nil
		c.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{s.config(wire.OwnCertificate)}
	case v.GetSystemRootCerts() != nil:
		roots = wire.SystemRoots
	default:
		return
	}
	v.CaCertificateProviderInstance, v.SystemRootCerts = nil, nil
	c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: v, ValidationContextSdsSecretConfig: s.config(roots)}}
}

// Routes gives an Envoy's form of a route table. The authority of one choice of a split is a field of the choice, which may not change
// headers of that name.
func Routes(t *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	for _, v := range t.VirtualHosts {
		for _, r := range v.Routes {
			for _, c := range r.GetRoute().GetWeightedClusters().GetClusters() {
				c.RequestHeadersToAdd = slices.DeleteFunc(c.RequestHeadersToAdd, func(h *corev3.HeaderValueOption) bool {
					if !strings.EqualFold(h.GetHeader().GetKey(), "host") {
						return false
					}
					c.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: h.GetHeader().GetValue()}
					return true
				})
			}
		}
	}
	return t
}

func pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// It was unmarshalled before. Clients refuse a type that nobody knows, where an empty message would drop, say, a certificate.
		return &anypb.Any{TypeUrl: "type.googleapis.com/weft.invalid." + string(m.ProtoReflect().Descriptor().Name())}
	}
	return a
}
