package generate

import (
	"crypto/tls"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

const (
	tlsSocket = "envoy.transport_sockets.tls"
	rawSocket = "envoy.transport_sockets.raw_buffer"
	// The instances of certificate providers that every client of the mesh has: its own certificate, and the mesh's roots.
	ownCertificate = wire.OwnCertificate
	meshRoots      = wire.MeshRoots
)

// secure decides how connections to a cluster are protected: as the DestinationRule says, or else with mutual TLS to the endpoints
// that have a sidecar and without to the others.
func (g *Generator) secure(c *clusterv3.Cluster, b *backend) {
	t := b.policy.TLS
	if t != nil && t.Mode != model.TLSUnset {
		if ctx := g.clientTLS(t, b); ctx != nil {
			c.TransportSocket = socket(tlsSocket, ctx)
		}
		return
	}
	if b.service.External || b.service.Resolution != model.Static || b.passthrough() || g.mesh.Settings().ManualMTLS {
		return
	}
	if g.node.Proxyless {
		g.secureProxyless(c, b)
		return
	}
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
		{
			Name:            "tlsMode-istio",
			Match:           &structpb.Struct{Fields: map[string]*structpb.Value{"tlsMode": structpb.NewStringValue("istio")}},
			TransportSocket: socket(tlsSocket, g.meshTLS(b, meshSNI(b), g.servers(b))),
		},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: socket(rawSocket, &rawv3.RawBuffer{})},
	}
}

func socket(name string, config proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(config)}}
}

// clientTLS translates the TLS settings of a DestinationRule; nil for plaintext.
func (g *Generator) clientTLS(t *model.ClientTLS, b *backend) *tlsv3.UpstreamTlsContext {
	switch t.Mode {
	case model.TLSIstioMutual:
		names := t.SANs
		if len(names) == 0 {
			names = g.servers(b)
		}
		return g.meshTLS(b, firstOf(t.SNI, meshSNI(b)), names)
	case model.TLSSimple, model.TLSMutual:
		return g.outsideTLS(t, b)
	}
	return nil
}

// meshTLS is mutual TLS with the workload's own certificate, towards servers of the given SPIFFE names.
func (g *Generator) meshTLS(b *backend, sni string, servers []string) *tlsv3.UpstreamTlsContext {
	validation := &tlsv3.CertificateValidationContext{}
	for _, n := range servers {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(n, false)})
	}
	return &tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: workloadTLS(validation, upstreamALPN(b.port.Protocol))}
}

// workloadTLS uses the certificate and the roots that the client holds itself; they are never sent to it this way. The roots are
// named in a plain validation context: a combined one would need a secret from a server besides.
func workloadTLS(validation *tlsv3.CertificateValidationContext, alpn []string) *tlsv3.CommonTlsContext {
	validation.CaCertificateProviderInstance = &tlsv3.CertificateProviderPluginInstance{InstanceName: meshRoots}
	return &tlsv3.CommonTlsContext{
		AlpnProtocols:                  alpn,
		TlsCertificateProviderInstance: &tlsv3.CertificateProviderPluginInstance{InstanceName: ownCertificate},
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}
}

// upstreamALPN tells the server's proxy that the connection comes from the mesh, and whether requests are on it. Where that is
// known only from the first bytes there are all, and the proxy offers the one that is true.
func upstreamALPN(p model.Protocol) []string {
	switch {
	case p.IsHTTP():
		return []string{wire.ALPNHTTP2, wire.ALPNHTTP1}
	case p == model.TCP || p == model.TLS || p == model.HTTPS:
		return []string{wire.ALPNTCP}
	}
	return []string{wire.ALPNHTTP2, wire.ALPNHTTP1, wire.ALPNTCP}
}

// meshSNI is Istio's form of a cluster's name that is also a DNS name.
func meshSNI(b *backend) string {
	name := ""
	if b.subset != nil {
		name = b.subset.Name
	}
	return sniCluster(b.port.Number, name, b.service.Host)
}

// servers gives the SPIFFE names that a service's endpoints may have, sorted. All of its endpoints count, whatever the subset and
// ready or not, so that the list changes rarely.
func (g *Generator) servers(b *backend) []string {
	s := b.service
	if a := g.alias(s); a != nil {
		s = a
	}
	names := slices.Clone(s.SANs)
	for _, e := range g.mesh.Endpoints(s) {
		if e.ServiceAccount == "" {
			continue
		}
		id := identity.ID{TrustDomain: g.mesh.Settings().TrustDomain, Namespace: e.Namespace, ServiceAccount: e.ServiceAccount}
		names = append(names, id.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outsideTLS is TLS towards servers that are not the mesh's. Their names are checked unless the user turned that off.
func (g *Generator) outsideTLS(t *model.ClientTLS, b *backend) *tlsv3.UpstreamTlsContext {
	sni := t.SNI
	if sni == "" && !isWildcard(b.service.Host) {
		sni = b.service.Host
	}
	validation := &tlsv3.CertificateValidationContext{}
	switch {
	case t.SkipVerify:
		validation.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	case len(t.CA) > 0:
		if validation.TrustedCa = inline(t.CA); len(t.CRL) > 0 {
			validation.Crl = inline(t.CRL)
		}
	default:
		validation.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	}
	names := t.SANs
	if len(names) == 0 {
		names = b.service.SANs
	}
	if len(names) == 0 && sni != "" {
		names = []string{sni}
	}
	for _, n := range names {
		if t.SkipVerify {
			break
		}
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: sanType(n), Matcher: exactly(n, false)})
	}
	common := &tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}}
	if t.Mode == model.TLSMutual && len(t.Certificate) > 0 {
		common.TlsCertificates = []*tlsv3.TlsCertificate{keyPair(t.Certificate, t.Key)}
	}
	if t == b.service.ClientTLS(b.port.Number) {
		if client := g.gatewayClient(); client != nil {
			common.TlsCertificates = []*tlsv3.TlsCertificate{keyPair(client.Certificate, client.Key)}
		}
	}
	return &tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: common}
}

func sanType(name string) tlsv3.SubjectAltNameMatcher_SanType {
	if len(name) > 9 && name[:9] == "spiffe://" {
		return tlsv3.SubjectAltNameMatcher_URI
	}
	return tlsv3.SubjectAltNameMatcher_DNS
}

func keyPair(certificate, key []byte) *tlsv3.TlsCertificate {
	return &tlsv3.TlsCertificate{CertificateChain: inline(certificate), PrivateKey: inline(key)}
}

// inboundTLS terminates the mesh's mutual TLS at a sidecar.
func inboundTLS(alpn []string) *corev3.TransportSocket { return meshServerTLS(alpn, 0) }

func meshServerTLS(alpn []string, minVersion uint16) *corev3.TransportSocket {
	common := workloadTLS(&tlsv3.CertificateValidationContext{}, alpn)
	if minVersion != 0 {
		common.TlsParams = &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsVersion(minVersion)}
	}
	return socket(tlsSocket, &tlsv3.DownstreamTlsContext{RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: common})
}

// serverTLS terminates TLS at a gateway's server; nil where it is passed through, or what it needs is not to be had.
func serverTLS(s *model.Server, alpn []string) *corev3.TransportSocket {
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
	common := &tlsv3.CommonTlsContext{AlpnProtocols: alpn, TlsCertificates: []*tlsv3.TlsCertificate{keyPair(t.Certificate, t.Key)},
		TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsVersion(t.MinVersion), TlsMaximumProtocolVersion: tlsVersion(t.MaxVersion)}}
	common.TlsParams.CipherSuites = t.CipherSuites
	for _, pair := range t.More {
		common.TlsCertificates = append(common.TlsCertificates, keyPair(pair.Certificate, pair.Key))
	}
	if t.AnyClient {
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED}}
	}
	if verifies {
		v := &tlsv3.CertificateValidationContext{TrustedCa: inline(t.CA),
			VerifyCertificateHash: t.CertificateHashes, VerifyCertificateSpki: t.KeyHashes}
		if len(t.CRL) > 0 {
			v.Crl = inline(t.CRL)
		}
		for _, n := range t.SANs {
			v.MatchTypedSubjectAltNames = append(v.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
				SanType: sanType(n), Matcher: exactly(n, false)})
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return socket(tlsSocket, &tlsv3.DownstreamTlsContext{CommonTlsContext: common,
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
