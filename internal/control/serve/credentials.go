package serve

import (
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// Credentials are TLS's for the gRPC server that Register is called with. A connection ends soon after the certificate that the client
// showed on it: its streams are refused from then on, and a client that keeps its connection would show the old certificate for ever.
func Credentials(c *tls.Config) credentials.TransportCredentials {
	return expiring{credentials.NewTLS(c)}
}

type expiring struct {
	credentials.TransportCredentials
}

// grace is for the streams to end by themselves, with a reason.
const grace = 2 * time.Second

// ServerHandshake implements credentials.TransportCredentials.
func (e expiring) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	t, ok := info.(credentials.TLSInfo)
	if !ok || len(t.State.PeerCertificates) == 0 {
		return c, info, nil
	}
	left := time.Until(t.State.PeerCertificates[0].NotAfter) + grace
	return &mortal{c, time.AfterFunc(left, func() { _ = c.Close() })}, info, nil // gRPC finds it closed
}

// Clone implements credentials.TransportCredentials.
func (e expiring) Clone() credentials.TransportCredentials {
	return expiring{e.TransportCredentials.Clone()}
}

// mortal is a connection with a last hour.
type mortal struct {
	net.Conn
	end *time.Timer
}

// Close implements net.Conn.
func (m *mortal) Close() error {
	m.end.Stop()
	return m.Conn.Close()
}
