// Package transport decodes transport sockets: TLS, QUIC, and what goes before them.
package transport

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxysocketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

// The certificate provider instances that stand for the workload's own certificate and the mesh's roots.
const (
	workloadCertificate = "default"
	meshRoots           = "ROOTCA"
)

const (
	downstreamTLS  = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
	upstreamTLS    = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	downstreamQUIC = "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport"
	rawBuffer      = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"

	proxyProtocolSocket = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
)

// decoder decodes one transport socket.
type decoder struct{ *walk.Walk }

// Downstream decodes the transport socket of a filter chain: nil for plaintext.
func Downstream(w *walk.Walk, m *corev3.TransportSocket) *conf.DownstreamTLS {
	d := &decoder{w}
	return d.downstreamSocket(m)
}

// Upstream decodes what an upstream connection begins with: a header of the PROXY protocol, TLS, or both.
func Upstream(w *walk.Walk, m *corev3.TransportSocket, t *conf.TransportMatch) {
	d := &decoder{w}
	d.transportSocket(m, t)
}

// downstreamSocket gives nil for plaintext.
func (d *decoder) downstreamSocket(m *corev3.TransportSocket) (t *conf.DownstreamTLS) {
	d.Only(m, "name", "typed_config")
	a := m.GetTypedConfig()
	d.TypedConfig(a, func() {
		switch string(a.MessageName()) {
		case rawBuffer:
		case downstreamTLS:
			if v := (&tlsv3.DownstreamTlsContext{}); d.Typed(a, v) {
				t = d.downstream(v)
			}
		case downstreamQUIC:
			if v := (&quicv3.QuicDownstreamTransport{}); d.Typed(a, v) {
				t = d.quicSocket(v)
			}
		default:
			d.Fail("transport socket of type %q is not supported", a.GetTypeUrl())
		}
	})
	return t
}

func (d *decoder) quicSocket(m *quicv3.QuicDownstreamTransport) (t *conf.DownstreamTLS) {
	d.Only(m, "downstream_tls_context", "enable_early_data")
	if m.GetEnableEarlyData().GetValue() {
		d.At("enable_early_data", func() { d.Fail("is not supported: early data can be replayed") })
	}
	d.At("downstream_tls_context", func() {
		if m.GetDownstreamTlsContext() == nil {
			d.Failed(walk.ErrRequired)
			return
		}
		t = d.downstream(m.GetDownstreamTlsContext())
	})
	return t
}

// common is what both directions say of certificates and whom they trust.
type common struct {
	workload                 bool // the workload's certificate
	certificates             []conf.KeyPair
	verifies                 bool // says anything about the peer's certificate
	meshRoots                bool
	systemRoots              bool
	ca, crl                  []byte
	sans                     []conf.StringMatch
	certificates256, keys256 [][sha256.Size]byte
	anyPeer                  bool // does not verify the chain
	alpn                     []string
	params                   *tlsv3.TlsParameters
}

func (d *decoder) downstream(m *tlsv3.DownstreamTlsContext) *conf.DownstreamTLS {
	d.Only(m, "common_tls_context", "require_client_certificate",
		"disable_stateless_session_resumption", "disable_stateful_session_resumption") // sessions are not resumed in any case
	c := d.common(m.GetCommonTlsContext())
	t := &conf.DownstreamTLS{
		Workload: c.workload, Certificates: c.certificates, ALPN: c.alpn, ClientCA: c.ca,
		RequireClient: m.GetRequireClientCertificate().GetValue(), CRL: c.crl, SANs: c.sans,
		CertificateHashes: c.certificates256, KeyHashes: c.keys256,
		AnyClient: c.anyPeer && !c.workload && len(c.sans) == 0,
	}
	switch {
	case c.workload == (len(c.certificates) > 0):
		d.Fail("common_tls_context: needs either the workload's certificate or certificates of its own")
	case c.workload && t.RequireClient && !c.meshRoots:
		d.Fail("common_tls_context: clients of the mesh are verified by %s", meshRoots)
	case !c.workload && t.RequireClient && len(c.ca) == 0:
		d.Fail("common_tls_context: trusted_ca is required to verify clients")
	case c.pins() && (c.workload || len(c.ca) == 0):
		d.Fail("common_tls_context: verify_certificate_hash and verify_certificate_spki need trusted_ca beside them")
	case c.workload && len(c.sans) > 0 || c.anyPeer && !t.AnyClient || c.systemRoots:
		d.Fail("common_tls_context: this way of verifying clients is not supported")
	}
	t.MinVersion, t.MaxVersion, t.CipherSuites = d.params(c.params)
	return t
}

func (d *decoder) transportSocket(m *corev3.TransportSocket, t *conf.TransportMatch) {
	a := m.GetTypedConfig()
	if string(a.MessageName()) != proxyProtocolSocket {
		t.TLS = d.upstreamSocket(m)
		return
	}
	d.Only(m, "name", "typed_config")
	d.TypedConfig(a, func() {
		v := &proxysocketv3.ProxyProtocolUpstreamTransport{}
		if !d.Typed(a, v) {
			return
		}
		d.Only(v, "config", "transport_socket",
			"allow_unspecified_address", "tlv_as_pool_key") // without effect: unknown addresses are told as such, connections are not shared
		d.At("config", func() {
			d.Only(v.GetConfig(), "version")
			t.ProxyProtocol = 1
			if v.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2 {
				t.ProxyProtocol = 2
			}
		})
		d.At("transport_socket", func() {
			if v.GetTransportSocket() == nil {
				d.Failed(walk.ErrRequired)
				return
			}
			t.TLS = d.upstreamSocket(v.GetTransportSocket())
		})
	})
}

// upstreamSocket gives nil for plaintext.
func (d *decoder) upstreamSocket(m *corev3.TransportSocket) (t *conf.UpstreamTLS) {
	d.Only(m, "name", "typed_config")
	a := m.GetTypedConfig()
	d.TypedConfig(a, func() {
		switch string(a.MessageName()) {
		case rawBuffer:
		case upstreamTLS:
			if v := (&tlsv3.UpstreamTlsContext{}); d.Typed(a, v) {
				t = d.upstream(v)
			}
		default:
			d.Fail("transport socket of type %q is not supported", a.GetTypeUrl())
		}
	})
	return t
}

func (d *decoder) upstream(m *tlsv3.UpstreamTlsContext) *conf.UpstreamTLS {
	d.Only(m, "common_tls_context", "sni")
	c := d.common(m.GetCommonTlsContext())
	t := &conf.UpstreamTLS{Workload: c.workload, SNI: m.GetSni(), ALPN: c.alpn, SANs: c.sans, CA: c.ca, CRL: c.crl, SkipVerify: c.anyPeer}
	if len(c.certificates) > 0 {
		t.Certificate = &c.certificates[0]
	}
	switch {
	case len(c.certificates) > 1:
		d.Fail("common_tls_context: more than one certificate is not supported")
	case c.workload != c.meshRoots:
		d.Fail("common_tls_context: the workload's certificate goes with %s", meshRoots)
	case !c.workload && !c.verifies:
		d.Fail("common_tls_context: says nothing about the server's certificate")
	case c.workload && c.anyPeer:
		d.Fail("common_tls_context: peers of the mesh are always verified")
	case c.pins():
		d.Fail("common_tls_context: verify_certificate_hash and verify_certificate_spki are not supported towards upstreams")
	}
	if p := c.params; p != nil {
		d.At("common_tls_context.tls_params", func() { d.Fail("is not supported towards upstreams") })
	}
	return t
}

func (d *decoder) common(m *tlsv3.CommonTlsContext) (c common) {
	d.At("common_tls_context", func() {
		d.Only(m, "tls_params", "tls_certificates", "tls_certificate_provider_instance", "validation_context",
			"combined_validation_context", "alpn_protocols")
		c.alpn, c.params = m.GetAlpnProtocols(), m.GetTlsParams()
		if p := m.GetTlsCertificateProviderInstance(); p != nil {
			c.workload = d.provider("tls_certificate_provider_instance", p, workloadCertificate)
		}
		walk.Each(d.Walk, "tls_certificates", m.GetTlsCertificates(), func(t *tlsv3.TlsCertificate) {
			c.certificates = append(c.certificates, d.keyPair(t))
		})
		switch v := m.GetValidationContextType().(type) {
		case *tlsv3.CommonTlsContext_ValidationContext:
			d.At("validation_context", func() { d.validation(v.ValidationContext, &c) })
		case *tlsv3.CommonTlsContext_CombinedValidationContext:
			d.At("combined_validation_context", func() { d.combined(v.CombinedValidationContext, &c) })
		}
		walk.Each(d.Walk, "alpn_protocols", c.alpn, func(p string) {
			if p == "" || len(p) > 255 {
				d.Fail("%q is not a protocol", p)
			}
		})
	})
	return c
}

func (d *decoder) provider(field string, m *tlsv3.CertificateProviderPluginInstance, want string) bool {
	d.At(field, func() {
		d.Only(m, "instance_name", "certificate_name") // the name within the instance is for instances that hold several
		if m.GetInstanceName() != want {
			d.At("instance_name", func() { d.Fail("%q is not known here, only %q is", m.GetInstanceName(), want) })
		}
	})
	return true
}

// combined reads a default validation context with the roots beside it.
func (d *decoder) combined(m *tlsv3.CommonTlsContext_CombinedCertificateValidationContext, c *common) {
	d.Only(m, "default_validation_context", "validation_context_certificate_provider_instance")
	d.At("default_validation_context", func() { d.validation(m.GetDefaultValidationContext(), c) })
	if p := m.GetValidationContextCertificateProviderInstance(); p != nil {
		d.Only(p, "instance_name", "certificate_name")
		if p.GetInstanceName() != meshRoots {
			d.Fail("validation_context_certificate_provider_instance: %q is not known here", p.GetInstanceName())
		}
		c.meshRoots = true
	}
}

func (d *decoder) validation(m *tlsv3.CertificateValidationContext, c *common) {
	d.Only(m, "trusted_ca", "ca_certificate_provider_instance", "system_root_certs", "match_typed_subject_alt_names",
		"match_subject_alt_names", "trust_chain_verification", "crl",
		"verify_certificate_hash", "verify_certificate_spki")
	c.verifies = true
	if p := m.GetCaCertificateProviderInstance(); p != nil {
		c.meshRoots = d.provider("ca_certificate_provider_instance", p, meshRoots)
	}
	c.systemRoots = m.GetSystemRootCerts() != nil
	if m.GetTrustedCa() != nil {
		if c.ca = d.Bytes("trusted_ca", m.GetTrustedCa()); !x509.NewCertPool().AppendCertsFromPEM(c.ca) {
			d.At("trusted_ca", func() { d.Fail("holds no certificate in PEM") })
		}
	}
	if m.GetCrl() != nil {
		d.At("crl", func() { c.crl = d.revocations(m.GetCrl(), c.ca) })
	}
	c.anyPeer = m.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	kinds := 0
	for _, set := range []bool{c.anyPeer, c.meshRoots, c.systemRoots, c.ca != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		d.Fail("wants one kind of roots, has %d", kinds)
	}
	walk.Each(d.Walk, "match_typed_subject_alt_names", m.GetMatchTypedSubjectAltNames(), func(s *tlsv3.SubjectAltNameMatcher) {
		d.Only(s, "san_type", "matcher")
		if t := s.GetSanType(); t != tlsv3.SubjectAltNameMatcher_URI && t != tlsv3.SubjectAltNameMatcher_DNS {
			d.At("san_type", func() { d.Fail("%s is not supported", t) })
		}
		c.sans = append(c.sans, d.StringMatch("matcher", s.GetMatcher()))
	})
	d.hashes(m, c)
	walk.Each(d.Walk, "match_subject_alt_names", m.GetMatchSubjectAltNames(), func(s *matcherv3.StringMatcher) {
		d.At("", func() { c.sans = append(c.sans, d.StringMatch("matcher", s)) })
	})
}

func (c *common) pins() bool { return len(c.certificates256)+len(c.keys256) > 0 }

// hashes reads what certificates are pinned by: in hexadecimal, with colons or without, for certificates, and in base64 for keys.
func (d *decoder) hashes(m *tlsv3.CertificateValidationContext, c *common) {
	pin := func(to *[][sha256.Size]byte, b []byte, err error) {
		if err != nil || len(b) != sha256.Size {
			d.Fail("is no SHA-256")
			return
		}
		*to = append(*to, [sha256.Size]byte(b))
	}
	walk.Each(d.Walk, "verify_certificate_hash", m.GetVerifyCertificateHash(), func(h string) {
		b, err := hex.DecodeString(strings.ReplaceAll(h, ":", ""))
		pin(&c.certificates256, b, err)
	})
	walk.Each(d.Walk, "verify_certificate_spki", m.GetVerifyCertificateSpki(), func(h string) {
		b, err := base64.StdEncoding.DecodeString(h)
		pin(&c.keys256, b, err)
	})
}

// revocations checks revocation lists, which go with the authorities that signed them.
func (d *decoder) revocations(m *corev3.DataSource, authorities []byte) []byte {
	lists, n := d.Bytes("", m), 0
	for rest := lists; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			d.Failed(err)
		}
	}
	if n == 0 || authorities == nil {
		d.Fail("wants revocation lists in PEM, and trusted_ca beside them")
	}
	return lists
}

func (d *decoder) keyPair(m *tlsv3.TlsCertificate) conf.KeyPair {
	d.Only(m, "certificate_chain", "private_key")
	p := conf.KeyPair{Certificate: d.Bytes("certificate_chain", m.GetCertificateChain()), Key: d.Bytes("private_key", m.GetPrivateKey())}
	if _, err := tls.X509KeyPair(p.Certificate, p.Key); err != nil {
		d.Failed(err)
	}
	return p
}

// versions translates TlsParameters; older ones than 1.2 are not spoken.
var versions = map[tlsv3.TlsParameters_TlsProtocol]uint16{
	tlsv3.TlsParameters_TLS_AUTO: 0, tlsv3.TlsParameters_TLSv1_2: tls.VersionTLS12, tlsv3.TlsParameters_TLSv1_3: tls.VersionTLS13,
}

func (d *decoder) params(m *tlsv3.TlsParameters) (lowest, highest uint16, suites []uint16) {
	d.At("common_tls_context.tls_params", func() {
		d.Only(m, "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites")
		var ok [2]bool
		lowest, ok[0] = versions[m.GetTlsMinimumProtocolVersion()]
		highest, ok[1] = versions[m.GetTlsMaximumProtocolVersion()]
		if !ok[0] || !ok[1] {
			d.Fail("TLS older than 1.2 is not supported")
		}
		if highest != 0 && highest < lowest {
			d.Fail("the highest version is below the lowest")
		}
		walk.Each(d.Walk, "cipher_suites", m.GetCipherSuites(), func(name string) {
			id := wire.CipherSuite(name)
			if id == 0 {
				d.Fail("%q is not supported", name)
			}
			suites = append(suites, id)
		})
	})
	return lowest, highest, suites
}
