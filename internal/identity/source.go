package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Material is one generation of what a workload shows and trusts. It is immutable once published.
type Material struct {
	// Certificate is the leaf with its intermediates and key; its Leaf is set. Nil for a client that has none yet and only
	// verifies servers.
	Certificate *tls.Certificate
	// Self is who the certificate says we are.
	Self Peer
	// Bundle is whom we trust.
	Bundle *Bundle
}

// NewMaterial joins a chain (leaf first, without the root), the leaf's key, and a bundle. The key must be the leaf's; whether the
// chain leads to the bundle's roots is checked too, at the given time.
func NewMaterial(chain []*x509.Certificate, key crypto.Signer, bundle *Bundle, now time.Time) (*Material, error) {
	self, err := bundle.Verify(chain, x509.ExtKeyUsageClientAuth, now)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, fmt.Errorf("certificate of %s: the key is not the certificate's", self.ID)
	}
	c := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, link := range chain {
		c.Certificate = append(c.Certificate, link.Raw)
	}
	return &Material{Certificate: c, Self: self, Bundle: bundle}, nil
}

// NotAfter is when the certificate expires; zero without one.
func (m *Material) NotAfter() time.Time {
	if m == nil || m.Certificate == nil {
		return time.Time{}
	}
	return m.Certificate.Leaf.NotAfter
}

// Source publishes the current Material. The certificate's keeper calls Publish; everybody else reads. Configurations made from a
// Source read it at each handshake, so a new generation needs no new configuration, and connections that are open live on. The
// zero Source has no material: its handshakes fail.
type Source struct{ current atomic.Pointer[Material] }

// Current gives the newest material, nil before the first. It is safe for concurrent use.
func (s *Source) Current() *Material { return s.current.Load() }

// Publish makes m the material of all handshakes that begin from now on.
func (s *Source) Publish(m *Material) { s.current.Store(m) }

// TLSOptions are what the ends of a connection choose. The zero value is TLS 1.3 with a required peer certificate.
type TLSOptions struct {
	// NextProtos is the ALPN list, in order of preference; the caller may not change it afterwards.
	NextProtos []string
	// MinVersion is tls.VersionTLS13 when zero. tls.VersionTLS12 is for peers that are not ours.
	MinVersion uint16
	// ServerName is the SNI that a client sends; it is not compared with the certificate.
	ServerName string
	// Verify says, on a server, whom to let in; nil lets in every identity that the bundle vouches for. A client passes its
	// verification to ClientTLS.
	Verify func(ID) error
	// OptionalPeer lets a client without certificate into a server. What it shows is verified all the same.
	OptionalPeer bool
	// Time is the clock; nil is time.Now.
	Time func() time.Time
}

var errNoMaterial = errors.New("tls: no certificate yet: the authority has not answered")

// ServerTLS gives the configuration of a listener. It may be shared by any number of connections, and lives across rotations.
func (s *Source) ServerTLS(o TLSOptions) *tls.Config {
	c := s.baseTLS(o)
	c.ClientAuth = tls.RequireAnyClientCert
	if o.OptionalPeer {
		c.ClientAuth = tls.RequestClientCert
	}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if m := s.Current(); m != nil && m.Certificate != nil {
			return m.Certificate, nil
		}
		return nil, errNoMaterial
	}
	verify := o.Verify
	if verify == nil {
		verify = AnyID
	}
	check := s.verifyConnection(x509.ExtKeyUsageClientAuth, verify, c.Time)
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if o.OptionalPeer && len(state.PeerCertificates) == 0 {
			return nil
		}
		return check(state)
	}
	return c
}

// ClientTLS gives the configuration for connecting to servers whose identity verify accepts (see ExactIDs); a nil verify accepts
// none. A source with a bundle and no certificate connects without one. It may be shared, and lives across rotations.
func (s *Source) ClientTLS(verify func(ID) error, o TLSOptions) *tls.Config {
	c := s.baseTLS(o)
	c.ServerName = o.ServerName
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if m := s.Current(); m != nil && m.Certificate != nil {
			return m.Certificate, nil
		}
		return new(tls.Certificate), nil // crypto/tls: an empty certificate means that none is sent
	}
	if verify == nil {
		verify = ExactIDs()
	}
	c.VerifyConnection = s.verifyConnection(x509.ExtKeyUsageServerAuth, verify, c.Time)
	// crypto/tls would compare host names. VerifyConnection, which it never skips, verifies the SPIFFE way instead.
	c.InsecureSkipVerify = true
	return c
}

// baseTLS sets what both ends share.
//
// Sessions are not resumed: no tickets are issued and no client cache is set. A ticket carries the identity of the handshake that
// made it, so it would let a peer live past the removal of its root and keep facts that have changed; and the proxies keep their
// connections in pools, so there is little to win. If somebody sets a cache on a clone all the same, it stays safe: the whole
// verification (chain to the current bundle, expiry, identity) is in VerifyConnection, which crypto/tls calls for resumed
// handshakes too, where VerifyPeerCertificate would be skipped.
func (s *Source) baseTLS(o TLSOptions) *tls.Config {
	c := &tls.Config{
		MinVersion:             o.MinVersion,
		NextProtos:             o.NextProtos,
		SessionTicketsDisabled: true,
		Time:                   o.Time,
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS13
	}
	return c
}

func (s *Source) verifyConnection(usage x509.ExtKeyUsage, accept func(ID) error, clock func() time.Time) func(tls.ConnectionState) error {
	if clock == nil {
		clock = time.Now
	}
	return func(state tls.ConnectionState) error {
		m := s.Current()
		if m == nil || m.Bundle == nil {
			return errNoMaterial
		}
		peer, err := m.Bundle.Verify(state.PeerCertificates, usage, clock())
		if err != nil {
			return err
		}
		return accept(peer.ID)
	}
}

// AnyID accepts every identity; what the bundle vouches for is then enough.
func AnyID(ID) error { return nil }

// ExactIDs accepts the listed identities; none when the list is empty.
func ExactIDs(ids ...ID) func(ID) error {
	allowed := make(map[ID]bool, len(ids))
	for _, id := range ids {
		allowed[id] = true
	}
	return func(id ID) error {
		if allowed[id] {
			return nil
		}
		return fmt.Errorf("peer %s: is not one of the %d identities expected here", id, len(ids))
	}
}

// PeerOf says who is at the other end of a connection made with a Source's configuration; the zero Peer when the client showed no
// certificate. It parses: call it once per connection, after the handshake.
func PeerOf(state tls.ConnectionState) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	return PeerFromCertificate(state.PeerCertificates[0])
}
