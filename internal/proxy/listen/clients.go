package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// clients judges the certificates of clients beyond what their chain proves.
type clients struct {
	sans []conf.StringMatch
	// SHA-256 of certificates and of public keys.
	certificates, keys [][sha256.Size]byte
	lists              []*x509.RevocationList
	clock              func() time.Time
}

// judge makes what tls.Config.VerifyConnection calls after the chain was verified; nil when there is nothing to judge by.
func judge(d *conf.DownstreamTLS, clock func() time.Time) (func(tls.ConnectionState) error, error) {
	if len(d.SANs)+len(d.CRL)+len(d.CertificateHashes)+len(d.KeyHashes) == 0 {
		return nil, nil
	}
	c := &clients{sans: d.SANs, certificates: d.CertificateHashes, keys: d.KeyHashes, clock: clock}
	if c.clock == nil {
		c.clock = time.Now
	}
	for rest := d.CRL; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls revocation list: %w", err)
		}
		c.lists = append(c.lists, l)
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
	if len(c.lists) == 0 {
		return nil
	}
	err := errors.New("tls: the client's certificate has no verified chain")
	for _, chain := range s.VerifiedChains {
		if err = c.unrevoked(chain); err == nil {
			return nil
		}
	}
	return err
}

// pinned tells whether a certificate or its key is listed. Either does, as in Envoy.
func (c *clients) pinned(cert *x509.Certificate) bool {
	return slices.Contains(c.certificates, sha256.Sum256(cert.Raw)) || slices.Contains(c.keys, sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

// unrevoked checks each certificate of a chain but the root against the list of who issued it. An issuer without a list, or with one
// that has expired, vouches for nobody (RFC 5280 section 6.3.3).
func (c *clients) unrevoked(chain []*x509.Certificate) error {
	for i := range len(chain) - 1 {
		cert, issuer := chain[i], chain[i+1]
		at := slices.IndexFunc(c.lists, func(l *x509.RevocationList) bool { return l.CheckSignatureFrom(issuer) == nil })
		if at < 0 {
			return fmt.Errorf("tls: there is no revocation list of %q, which issued the client's certificate", issuer.Subject)
		}
		l := c.lists[at]
		if !l.NextUpdate.IsZero() && c.clock().After(l.NextUpdate) {
			return fmt.Errorf("tls: the revocation list of %q has expired", issuer.Subject)
		}
		if slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 }) {
			return fmt.Errorf("tls: the certificate %s of the client's chain is revoked", cert.SerialNumber.Text(16))
		}
	}
	return nil
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
