package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Protocol is what a connection will carry; the mesh's ALPN tells the peer.
type Protocol uint8

// The protocols.
const (
	HTTP1 Protocol = iota
	TCP
	HTTP2
	// AnyHTTP lets the peer choose.
	AnyHTTP
)

// Names of the mesh's ALPN (package wire has them for the other half; step packages import neither).
const (
	meshHTTP1 = "istio-http/1.1"
	meshHTTP2 = "istio-h2"
	meshTCP   = "istio"
)

// alpn gives what to offer: of a list made for several protocols, the one in use. Bytes that are relayed are "istio" to a peer
// in the mesh, whatever the cluster says.
func alpn(list []string, workload bool, p Protocol) []string {
	switch {
	case p == HTTP2 && workload:
		// As Istio's proxies say it: to one that knows none of the mesh's names this is HTTP/2 still.
		return []string{meshHTTP2, meshTCP, "h2"}
	case p == HTTP2:
		return []string{"h2"}
	case p == AnyHTTP && !workload:
		return []string{"h2", "http/1.1"}
	case p == TCP && workload:
		return []string{meshTCP}
	case workload:
		return []string{meshHTTP1}
	case p == HTTP1:
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "h2" })
	}
	return list
}

// Config makes the TLS configuration towards the endpoints of a cluster. It may be shared and kept: the workload's certificate
// and roots are looked up at each handshake.
func Config(u *conf.UpstreamTLS, p Protocol, source *identity.Source, clock func() time.Time) (*tls.Config, error) {
	protos := alpn(u.ALPN, u.Workload, p)
	if u.Workload {
		return source.ClientTLS(acceptID(u.SANs), identity.TLSOptions{NextProtos: protos, ServerName: u.SNI, Time: clock}), nil
	}
	c := &tls.Config{ServerName: u.SNI, NextProtos: protos, MinVersion: tls.VersionTLS12, Time: clock}
	if u.Certificate != nil {
		pair, err := tls.X509KeyPair(u.Certificate.Certificate, u.Certificate.Key)
		if err != nil {
			return nil, fmt.Errorf("upstream tls: client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if len(u.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(u.CA) {
			return nil, errors.New("upstream tls: CA: no PEM certificate in it")
		}
	}
	revoked, err := identity.ParseRevocations(u.CRL, "server", clock)
	if err != nil {
		return nil, err
	}
	switch {
	case u.SkipVerify:
		c.InsecureSkipVerify = true
	case len(u.SANs) > 0 || u.SNI == "":
		// crypto/tls compares the name with the SNI only; here it is the list that decides.
		c.InsecureSkipVerify = true
		c.VerifyConnection = verifySANs(c.RootCAs, u.SANs, revoked, clock)
	case revoked.Any():
		c.VerifyConnection = func(s tls.ConnectionState) error { return revoked.Check(s.VerifiedChains) }
	}
	return c, nil
}

// acceptID lets in the identities that one of the conditions accepts; any of the mesh's when there are none.
func acceptID(sans []conf.StringMatch) func(identity.ID) error {
	if len(sans) == 0 {
		return identity.AnyID
	}
	return func(id identity.ID) error {
		if matchesAny(sans, id.String()) {
			return nil
		}
		return fmt.Errorf("peer %s: is none of the identities expected of this service (%s)", id, describe(sans))
	}
}

func describe(sans []conf.StringMatch) string {
	s := sans[0].String()
	if n := len(sans) - 1; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

func matchesAny(sans []conf.StringMatch, name string) bool {
	for i := range sans {
		if sans[i].Match(name) {
			return true
		}
	}
	return false
}

// verifySANs verifies the chain, that nothing in it is revoked, and that one of the leaf's names is accepted.
func verifySANs(roots *x509.CertPool, sans []conf.StringMatch, revoked identity.Revocations, clock func() time.Time) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("tls: the server showed no certificate")
		}
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		if clock != nil {
			o.CurrentTime = clock()
		}
		for _, c := range state.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		leaf := state.PeerCertificates[0]
		chains, err := leaf.Verify(o)
		if err == nil {
			err = revoked.Check(chains)
		}
		if err != nil {
			return err
		}
		if len(sans) == 0 || slices.ContainsFunc(names(leaf), func(n string) bool { return matchesAny(sans, n) }) {
			return nil
		}
		return fmt.Errorf("tls: the server's certificate has none of the names expected (%s)", describe(sans))
	}
}

func names(c *x509.Certificate) []string {
	list := slices.Clone(c.DNSNames)
	for _, u := range c.URIs {
		list = append(list, u.String())
	}
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}
