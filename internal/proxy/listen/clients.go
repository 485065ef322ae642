package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

// clients judges the certificates of clients beyond what their chain proves.
type clients struct {
	sans []conf.StringMatch
	// SHA-256 of certificates and of public keys.
	certificates, keys [][sha256.Size]byte
	revoked            identity.Revocations
}

// judge makes what tls.Config.VerifyConnection calls after the chain was verified; nil when there is nothing to judge by.
func judge(d *conf.DownstreamTLS, clock func() time.Time) (func(tls.ConnectionState) error, error) {
	if len(d.SANs)+len(d.CRL)+len(d.CertificateHashes)+len(d.KeyHashes) == 0 {
		return nil, nil
	}
	c := &clients{sans: d.SANs, certificates: d.CertificateHashes, keys: d.KeyHashes}
	var err error
	if c.revoked, err = identity.ParseRevocations(d.CRL, "client", clock); err != nil {
		return nil, err
	}
	return c.verify, nil
}

func (c *clients) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil // whether that may be is said by ClientAuth
	}
	if len(c.sans) > 0 && !named(s.PeerCertificates[0], c.sans) {
		return errors.New("tls: the client's certificate has none of the names that are let in")
	}
	if len(c.certificates)+len(c.keys) > 0 && !c.pinned(s.PeerCertificates[0]) {
		return errors.New("tls: the client's certificate is none of those that are let in")
	}
	return c.revoked.Check(s.VerifiedChains)
}

// pinned tells whether a certificate or its key is listed. Either does, as in Envoy.
func (c *clients) pinned(cert *x509.Certificate) bool {
	return slices.Contains(c.certificates, sha256.Sum256(cert.Raw)) || slices.Contains(c.keys, sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

func named(c *x509.Certificate, sans []conf.StringMatch) bool {
	accepted := func(name string) bool {
		return slices.ContainsFunc(sans, func(m conf.StringMatch) bool { return m.Match(name) })
	}
	for _, u := range c.URIs {
		if accepted(u.String()) {
			return true
		}
	}
	return slices.ContainsFunc(c.DNSNames, accepted)
}
