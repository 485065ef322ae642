package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	pb "istio.io/api/security/v1alpha1"

	"github.com/weftmesh/weft/internal/identity"
)

// obtain makes a key and has it certified. After a failure, every other attempt leaves our certificate out: an authority that was
// replaced refuses the handshake with it, where the token alone would do.
func (c *Client) obtain(ctx context.Context, failures int) (generation, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return generation{}, err
	}
	csr, err := c.request(key)
	if err != nil {
		return generation{}, err
	}
	ctx, err = c.withToken(ctx)
	if err != nil {
		return generation{}, err
	}
	chain, err := c.call(ctx, csr, failures%2 == 0)
	if err != nil {
		return generation{}, err
	}
	m, err := c.accept(chain, key)
	if err != nil {
		return generation{}, fmt.Errorf("the authority's answer: %w", err)
	}
	return generation{material: m, obtained: time.Now()}, nil
}

// request names our identity in the request, as Istio's agents do; the authority goes by the proof alone.
func (c *Client) request(key *ecdsa.PrivateKey) (string, error) {
	id, err := url.Parse(c.options.ID.String())
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id}}, key)
	if err != nil {
		return "", fmt.Errorf("certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

func (c *Client) withToken(ctx context.Context) (context.Context, error) {
	token, err := c.options.Token()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// call asks the authority over a connection of its own: requests are hours apart, and the handshake reads the newest roots. An error names
// who was asked, which Options.Dial may have chosen.
func (c *Client) call(ctx context.Context, csr string, showCertificate bool) ([]string, error) {
	network, address, err := splitAddress(c.options.Control)
	if err != nil {
		return nil, err
	}
	var asked atomic.Pointer[string]
	connection, err := grpc.NewClient("passthrough:///"+serverName(network, address),
		grpc.WithTransportCredentials(credentials.NewTLS(c.controlTLS(showCertificate, []string{"h2"}))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := c.options.Dial(ctx, network, address)
			if err == nil {
				at := conn.RemoteAddr().String()
				asked.Store(&at)
			}
			return conn, err
		}),
	)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }() // it fails only when closed already
	r, err := pb.NewIstioCertificateServiceClient(connection).CreateCertificate(ctx, &pb.IstioCertificateRequest{
		Csr: csr, ValidityDuration: int64((c.options.TTL + time.Second - 1) / time.Second),
	})
	if at := asked.Load(); err != nil && at != nil {
		return nil, fmt.Errorf("control plane %s: %w", *at, err)
	}
	return r.GetCertChain(), err
}

// accept turns the answer (leaf, intermediates, and last the roots) into material, if it is a valid certificate for our key and
// our identity.
func (c *Client) accept(chain []string, key *ecdsa.PrivateKey) (*identity.Material, error) {
	if len(chain) < 2 {
		return nil, fmt.Errorf("%d certificates, want at least a leaf and a root", len(chain))
	}
	last := len(chain) - 1
	return c.material(strings.Join(chain[:last], "\n"), chain[last], key)
}

func (c *Client) material(chainPEM, rootsPEM string, key *ecdsa.PrivateKey) (*identity.Material, error) {
	bundle, err := identity.ParseBundle(c.options.TrustDomain, []byte(rootsPEM))
	if err != nil {
		return nil, err
	}
	certificates, err := identity.ParseCertificates([]byte(chainPEM))
	if err != nil {
		return nil, err
	}
	m, err := identity.NewMaterial(certificates, key, bundle, time.Now())
	if err != nil {
		return nil, err
	}
	if m.Self.ID != c.options.ID {
		return nil, fmt.Errorf("certificate is for %s, but we are %s", m.Self.ID, c.options.ID)
	}
	return m, nil
}

// splitAddress reads "host:port" or "unix:///path" for a dialer.
func splitAddress(s string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("control address %q: want unix:///absolute/path", s)
		}
		return "unix", path, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "", "", fmt.Errorf("control address %q: want host:port or unix:///path: %w", s, err)
	}
	return "tcp", s, nil
}

// serverName is what we send as SNI and authority. Nothing is verified by it.
func serverName(network, address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil && network == "tcp" {
		return host
	}
	return "localhost"
}
