package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/identity"
)

// Serving keeps the certificate of a server in the authority's own process. It renews it by itself: a handshake that comes after
// half of its lifetime signs a new one first, so there is no goroutine to run and none to forget.
type Serving struct {
	authority *Authority // these are set once
	peer      identity.Peer
	dnsNames  []string
	source    identity.Source

	mu    sync.Mutex
	renew time.Time
}

// ServingCertificate makes a certificate for a server in this process: the identity for the mesh, and DNS names for clients that
// compare host names, such as webhooks' callers and Istio's own agents.
func (a *Authority) ServingCertificate(id identity.ID, dnsNames []string) (*Serving, error) {
	s := &Serving{authority: a, peer: identity.Peer{ID: id, Workload: id.ServiceAccount}, dnsNames: dnsNames}
	return s, s.refresh()
}

// Source publishes the certificate; for connections that the control plane makes itself. Call Refresh before one, or use ServerTLS,
// which does.
func (s *Serving) Source() *identity.Source { return &s.source }

// Refresh renews the certificate when it is due. When that fails and the old one is still good, it stays.
func (s *Serving) Refresh() error {
	err := s.refresh()
	if err != nil && s.authority.options.Clock().Before(s.source.Current().NotAfter()) {
		s.authority.options.Log.Warn("the control plane's certificate could not be renewed yet", "error", err)
		return nil
	}
	return err
}

// ServerTLS gives the configuration of a listener with this certificate. Clients are verified against the authority's bundle.
func (s *Serving) ServerTLS(o identity.TLSOptions) *tls.Config {
	if o.Time == nil {
		o.Time = s.authority.options.Clock
	}
	c := s.source.ServerTLS(o)
	current := c.GetCertificate
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if err := s.Refresh(); err != nil {
			return nil, err
		}
		return current(hello)
	}
	return c
}

func (s *Serving) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.options.Clock()
	if m := s.source.Current(); m != nil && m.Bundle == s.authority.Bundle() && now.Before(s.renew) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("ca: serving certificate: %w", err)
	}
	issued, err := s.authority.issue(&key.PublicKey, s.peer, 0, s.dnsNames, ProofOwn)
	if err != nil {
		return err
	}
	m, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, now)
	if err != nil {
		return fmt.Errorf("ca: serving certificate: %w", err)
	}
	s.source.Publish(m)
	s.renew = now.Add(issued.Leaf.NotAfter.Sub(now) / 2)
	return nil
}
