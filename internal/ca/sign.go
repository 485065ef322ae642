package ca

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/weftmesh/weft/internal/identity"
)

// Proof is the kind of evidence on which a certificate was issued.
type Proof string

// The proofs.
const (
	ProofJoinToken   Proof = "join-token"
	ProofCertificate Proof = "certificate" // renewal with one that is still valid
	ProofOwn         Proof = "own"         // the authority's own process asked, such as the control plane for its serving certificate
)

// maxCSR bounds a request in bytes; one with an 8192-bit RSA key is about 3 KB.
const maxCSR = 16 << 10

// ErrRequest marks errors of Sign that are the request's fault.
var ErrRequest = errors.New("certificate request refused")

// Issued is a signed certificate.
type Issued struct {
	Leaf *x509.Certificate
	// Chain has the leaf first, then the intermediates; not the root.
	Chain []*x509.Certificate
	// Bundle is what the holder is to trust.
	Bundle *identity.Bundle
}

// Sign issues a certificate for a peer whose identity the caller has proven. Of the request (PEM, PKCS #10) it takes the public
// key and nothing else; the signature in it shows that the asker has the key. ttl is cut to the longest allowed and to the
// issuer's own end; 0 takes the default. The errors that are the asker's fault wrap ErrRequest.
func (a *Authority) Sign(csrPEM []byte, peer identity.Peer, ttl time.Duration, proof Proof) (*Issued, error) {
	if err := refuseReserved(peer.ID); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	key, err := parseRequest(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return a.issue(key, peer, ttl, nil, proof)
}

// refuseReserved keeps workloads from becoming the control plane, whose certificate only ServingCertificate makes.
func refuseReserved(id identity.ID) error {
	if id == identity.ControlID(id.TrustDomain) {
		return fmt.Errorf("%s is the control plane's own identity; give the workload another service account", id)
	}
	return nil
}

// issue signs a certificate for a public key, with DNS names besides the identity if there are any.
func (a *Authority) issue(key crypto.PublicKey, peer identity.Peer, ttl time.Duration, dnsNames []string, proof Proof) (*Issued, error) {
	if err := identity.ValidatePeer(peer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if peer.TrustDomain != a.options.TrustDomain {
		return nil, fmt.Errorf("%w: %s is not of trust domain %q", ErrRequest, peer.ID, a.options.TrustDomain)
	}
	i := a.issuer.Load()
	template, err := a.template(i, peer, ttl)
	if err != nil {
		return nil, err
	}
	template.DNSNames = dnsNames
	raw, err := x509.CreateCertificate(rand.Reader, template, i.certificate, key, i.key)
	if err != nil {
		return nil, fmt.Errorf("ca: sign for %s: %w", peer.ID, err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("ca: sign for %s: %w", peer.ID, err)
	}
	// Nothing leaves that the journal does not have: a full disk stops the authority, and the certificates in use bridge the gap.
	if err := a.journal.record(a.options.Clock(), leaf, peer, proof); err != nil {
		return nil, err
	}
	a.warnOfExpiry()
	return &Issued{Leaf: leaf, Chain: append([]*x509.Certificate{leaf}, i.chain...), Bundle: i.bundle}, nil
}

func (a *Authority) template(i *issuer, peer identity.Peer, ttl time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(peer.ID.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	extension, err := identity.EncodePeerExtension(peer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	begin, end, err := a.validity(i, ttl)
	if err != nil {
		return nil, err
	}
	// The subject stays empty, which makes the subject alternative name critical (RFC 5280, section 4.2.1.6; X.509-SVID, section 2).
	return &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             begin,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
		ExtraExtensions:       []pkix.Extension{extension},
	}, nil
}

func (a *Authority) validity(i *issuer, ttl time.Duration) (begin, end time.Time, err error) {
	now := a.options.Clock()
	if !now.Before(i.notAfter) {
		return begin, end, fmt.Errorf("%w on %s: put a new authority into %s", ErrIssuerExpired, i.notAfter.UTC().Format(time.RFC3339), a.dir)
	}
	if ttl <= 0 {
		ttl = a.options.LeafTTL
	}
	// Certificates count in whole seconds; rounding up keeps a lifetime of a second or less from being none.
	begin, end = now.Add(-clockSkew), now.Add(min(ttl, a.options.MaxLeafTTL)+time.Second-1).Truncate(time.Second)
	if begin.Before(i.certificate.NotBefore) {
		begin = i.certificate.NotBefore
	}
	if end.After(i.notAfter) {
		end = i.notAfter
	}
	return begin, end, nil
}

// parseRequest gives the public key of a certificate request, having checked that the asker holds the private one.
func parseRequest(csrPEM []byte) (crypto.PublicKey, error) {
	csr, err := decodeRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("its signature is not by its key: %w", err)
	}
	return csr.PublicKey, nil
}

func decodeRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	if len(csrPEM) > maxCSR {
		return nil, fmt.Errorf("%d bytes, more than %d", len(csrPEM), maxCSR)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, errors.New("no PEM block CERTIFICATE REQUEST in it")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return csr, nil
}

func isEd25519(key crypto.PublicKey) bool {
	_, ok := key.(ed25519.PublicKey)
	return ok
}
