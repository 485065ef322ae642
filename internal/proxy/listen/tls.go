package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Secured is a connection whose TLS ends here.
type Secured struct {
	Conn conn.Conn
	// Peer is who the client proved to be; zero without a certificate of the mesh.
	Peer identity.Peer
	// ALPN is what was agreed on, ServerName what was asked for.
	ALPN, ServerName string
	// Client is the certificate that the client showed; nil for none.
	Client *x509.Certificate
}

// Terminate makes the server's side of a handshake over c, within the context's deadline. It owns c; on failure c is closed.
func Terminate(ctx context.Context, c conn.Conn, config *tls.Config) (Secured, error) {
	t := tls.Server(conn.ToNet(c), config)
	if err := t.HandshakeContext(ctx); err != nil {
		t.Close()
		return Secured{}, fmt.Errorf("tls handshake: %w", err)
	}
	state := t.ConnectionState()
	peer, err := identity.PeerOf(state)
	if err != nil || config.ClientAuth == tls.RequestClientCert && config.VerifyConnection == nil {
		// A gateway's client may show a certificate that is not the mesh's, or one that nobody verifies; then it is nobody of the mesh.
		peer = identity.Peer{}
	}
	s := Secured{Conn: conn.FromNet(t), Peer: peer, ALPN: state.NegotiatedProtocol, ServerName: state.ServerName}
	if len(state.PeerCertificates) > 0 {
		s.Client = state.PeerCertificates[0]
	}
	return s, nil
}

// Config makes the TLS configuration of a chain. It may be kept and shared for as long as the chain lives: the workload's
// certificate is looked up at each handshake.
func Config(d *conf.DownstreamTLS, source *identity.Source, clock func() time.Time) (*tls.Config, error) {
	if d.Workload {
		c := source.ServerTLS(identity.TLSOptions{NextProtos: d.ALPN, MinVersion: max(d.MinVersion, tls.VersionTLS12),
			OptionalPeer: !d.RequireClient, Time: clock})
		return c, nil
	}
	c := &tls.Config{NextProtos: d.ALPN, MinVersion: max(d.MinVersion, tls.VersionTLS12), MaxVersion: d.MaxVersion,
		CipherSuites: d.CipherSuites, Time: clock}
	for i, pair := range d.Certificates {
		cert, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			return nil, fmt.Errorf("tls certificate %d: %w", i, err)
		}
		c.Certificates = append(c.Certificates, cert)
	}
	if len(c.Certificates) == 0 {
		return nil, errors.New("tls: a listener without certificate")
	}
	if d.AnyClient {
		c.ClientAuth = tls.RequestClientCert
	}
	if len(d.ClientCA) > 0 {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(d.ClientCA) {
			return nil, errors.New("tls client CA: no PEM certificate in it")
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if d.RequireClient {
		if c.ClientCAs == nil {
			return nil, errors.New("tls: a client certificate is required, but no CA is given to verify it with")
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	var err error
	c.VerifyConnection, err = judge(d, clock)
	return c, err
}
