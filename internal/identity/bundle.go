package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bundle holds the root certificates by trust domain. It is immutable, but for what it remembers of chains: With gives a new one.
type Bundle struct {
	domains map[string]roots
	known   known
}

type roots struct {
	certificates []*x509.Certificate
	pool         *x509.CertPool
}

// ParseBundle reads one trust domain's roots from PEM.
func ParseBundle(trustDomain string, rootsPEM []byte) (*Bundle, error) {
	return (&Bundle{}).With(trustDomain, rootsPEM)
}

// With gives a bundle in which the trust domain's roots are those in rootsPEM, and all else is as in b.
func (b *Bundle) With(trustDomain string, rootsPEM []byte) (*Bundle, error) {
	if !validTrustDomain(trustDomain) {
		return nil, fmt.Errorf("bundle: trust domain %q: want lower-case letters, digits, '.', '-' and '_'", trustDomain)
	}
	certificates, err := ParseCertificates(rootsPEM)
	if err != nil {
		return nil, fmt.Errorf("bundle of %s: %w", trustDomain, err)
	}
	r := roots{certificates: certificates, pool: x509.NewCertPool()}
	for _, c := range certificates {
		if !c.IsCA {
			return nil, fmt.Errorf("bundle of %s: certificate %q is not an authority's", trustDomain, c.Subject)
		}
		r.pool.AddCert(c)
	}
	next := &Bundle{domains: make(map[string]roots, len(b.domains)+1)}
	for d, old := range b.domains {
		next.domains[d] = old
	}
	next.domains[trustDomain] = r
	return next, nil
}

// TrustDomains lists the trust domains, sorted.
func (b *Bundle) TrustDomains() []string {
	names := make([]string, 0, len(b.domains))
	for d := range b.domains {
		names = append(names, d)
	}
	slices.Sort(names)
	return names
}

// Pool gives the trust domain's roots, nil when it is unknown. The caller must not add to it.
func (b *Bundle) Pool(trustDomain string) *x509.CertPool { return b.domains[trustDomain].pool }

// Roots gives the trust domain's root certificates; the caller must not change the slice.
func (b *Bundle) Roots(trustDomain string) []*x509.Certificate {
	return b.domains[trustDomain].certificates
}

// PEM gives the trust domain's roots in PEM, empty when it is unknown.
func (b *Bundle) PEM(trustDomain string) []byte {
	return EncodeCertificates(b.domains[trustDomain].certificates...)
}

// Verify checks a chain as presented (leaf first) against the roots of the trust domain that the leaf names, and no other: one
// domain's authority cannot vouch for another's workloads. usage is what the holder does with it (client or server
// authentication). There is no host name to compare; the caller decides on the identity it gets back.
func (b *Bundle) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, errors.New("certificate: none was presented")
	}
	key := chainKey(chain, usage)
	if peer, ok := b.known.get(key, now); ok {
		return peer, nil
	}
	leaf := chain[0]
	peer, err := PeerFromCertificate(leaf)
	if err != nil {
		return Peer{}, err
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		return Peer{}, fmt.Errorf("certificate of %s: is an authority's, not a workload's", peer.ID)
	}
	pool := b.Pool(peer.TrustDomain)
	if pool == nil {
		return Peer{}, fmt.Errorf("certificate of %s: trust domain %q is not trusted here", peer.ID, peer.TrustDomain)
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	ways, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return Peer{}, fmt.Errorf("certificate of %s: %w", peer.ID, err)
	}
	b.known.add(key, peer, ways)
	return peer, nil
}

// maxCertificates bounds what ParseCertificates reads from one text.
const maxCertificates = 100

// ParseCertificates reads one or more PEM certificates. Text between the blocks is skipped (RFC 7468, section 2); a block of
// another kind, such as a key, is refused.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is %q, want CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list), err)
		}
		if list = append(list, c); len(list) > maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, errors.New("a PEM block in it is cut off or garbled")
	}
	return list, nil
}

// EncodeCertificates gives certificates in PEM.
func EncodeCertificates(list ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		// Writing to a bytes.Buffer cannot fail.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}
