package cluster

import (
	"cmp"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
)

// secure decides how connections to a cluster are protected: as the DestinationRule says, or else with mutual TLS to the endpoints
// that have a sidecar and without to the others.
func (g *Generator) secure(c *clusterv3.Cluster, b *view.Backend) {
	t := b.Policy.TLS
	if t != nil && t.Mode != model.TLSUnset {
		if ctx := g.clientTLS(t, b); ctx != nil {
			c.TransportSocket = transport.Socket(transport.TLSSocket, ctx)
		}
		return
	}
	if b.Service.External || b.Service.Resolution != model.Static || b.Passthrough() || g.mesh.Settings().ManualMTLS {
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
			TransportSocket: transport.Socket(transport.TLSSocket, g.meshTLS(b, meshSNI(b), g.servers(b))),
		},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: transport.Socket(transport.RawSocket, &rawv3.RawBuffer{})},
	}
}

// clientTLS translates the TLS settings of a DestinationRule; nil for plaintext.
func (g *Generator) clientTLS(t *model.ClientTLS, b *view.Backend) *tlsv3.UpstreamTlsContext {
	switch t.Mode {
	case model.TLSIstioMutual:
		names := t.SANs
		if len(names) == 0 {
			names = g.servers(b)
		}
		return g.meshTLS(b, cmp.Or(t.SNI, meshSNI(b)), names)
	case model.TLSSimple, model.TLSMutual:
		return g.outsideTLS(t, b)
	}
	return nil
}

// meshTLS is mutual TLS with the workload's own certificate, towards servers of the given SPIFFE names.
func (g *Generator) meshTLS(b *view.Backend, sni string, servers []string) *tlsv3.UpstreamTlsContext {
	validation := &tlsv3.CertificateValidationContext{}
	for _, n := range servers {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: message.Exactly(n, false)})
	}
	return &tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: transport.Workload(validation, transport.UpstreamALPN(b.Port.Protocol))}
}

// meshSNI is Istio's form of a cluster's name that is also a DNS name.
func meshSNI(b *view.Backend) string {
	name := ""
	if b.Subset != nil {
		name = b.Subset.Name
	}
	return SNIName(b.Port.Number, name, b.Service.Host)
}

// servers gives the SPIFFE names that a service's endpoints may have, sorted. All of its endpoints count, whatever the subset and
// ready or not, so that the list changes rarely.
func (g *Generator) servers(b *view.Backend) []string {
	s := b.Service
	names := slices.Clone(s.SANs)
	for _, a := range g.mesh.Accounts(s) {
		id := identity.ID{TrustDomain: g.mesh.Settings().TrustDomain, Namespace: a.Namespace, ServiceAccount: a.Name}
		names = append(names, id.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outsideTLS is TLS towards servers that are not the mesh's. Their names are checked unless the user turned that off.
func (g *Generator) outsideTLS(t *model.ClientTLS, b *view.Backend) *tlsv3.UpstreamTlsContext {
	sni := t.SNI
	if sni == "" && !index.IsWildcard(b.Service.Host) {
		sni = b.Service.Host
	}
	validation := &tlsv3.CertificateValidationContext{}
	switch {
	case t.SkipVerify:
		validation.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	case len(t.CA) > 0:
		if validation.TrustedCa = message.Inline(t.CA); len(t.CRL) > 0 {
			validation.Crl = message.Inline(t.CRL)
		}
	default:
		validation.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	}
	names := t.SANs
	if len(names) == 0 {
		names = b.Service.SANs
	}
	if len(names) == 0 && sni != "" {
		names = []string{sni}
	}
	for _, n := range names {
		if t.SkipVerify {
			break
		}
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: transport.SANType(n), Matcher: message.Exactly(n, false)})
	}
	common := &tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}}
	if t.Mode == model.TLSMutual && len(t.Certificate) > 0 {
		common.TlsCertificates = []*tlsv3.TlsCertificate{transport.KeyPair(t.Certificate, t.Key)}
	}
	if t == b.Service.ClientTLS(b.Port.Number) {
		if client := g.view.GatewayClient(); client != nil {
			common.TlsCertificates = []*tlsv3.TlsCertificate{transport.KeyPair(client.Certificate, client.Key)}
		}
	}
	return &tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: common}
}
