package ca

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"

	"github.com/weftmesh/weft/internal/identity"
)

// control is a control plane's signing service on a real socket.
type control struct {
	authority *Authority
	tokens    *Tokens
	clock     *clock
	address   string

	mu      sync.Mutex
	results []Result
}

func startControl(t *testing.T) *control {
	t.Helper()
	c := &control{clock: newClock()}
	dir := t.TempDir()
	c.authority = open(t, dir, Options{Clock: c.clock.Now})
	c.tokens = openTokens(t, dir, TokenOptions{Clock: c.clock.Now})
	serving, err := c.authority.ServingCertificate(identity.ControlID(domain), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(serving.ServerTLS(identity.TLSOptions{OptionalPeer: true, NextProtos: []string{"h2"}}))))
	NewService(c.authority, ServiceOptions{
		Verifiers: []Verifier{c.tokens.Verifier()},
		Observe: func(r Result) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.results = append(c.results, r)
		},
	}).Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.address = l.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return c
}

// connect gives a client that shows the certificate, if there is one.
func (c *control) connect(t *testing.T, m *identity.Material) pb.IstioCertificateServiceClient {
	t.Helper()
	source := new(identity.Source)
	if m == nil {
		m = &identity.Material{Bundle: c.authority.Bundle()}
	}
	source.Publish(m)
	config := source.ClientTLS(identity.ExactIDs(identity.ControlID(domain)), identity.TLSOptions{Time: c.clock.Now})
	connection, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return pb.NewIstioCertificateServiceClient(connection)
}

func (c *control) material(t *testing.T, p identity.Peer) *identity.Material {
	t.Helper()
	key := newKey(t)
	issued, err := c.authority.Sign(request(t, key, nil), p, 0, ProofJoinToken)
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, c.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (c *control) call(t *testing.T, client pb.IstioCertificateServiceClient, token, csr string) (*pb.IstioCertificateResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return client.CreateCertificate(ctx, &pb.IstioCertificateRequest{Csr: csr, ValidityDuration: 3600})
}

func TestCreateCertificate(t *testing.T) {
	c := startControl(t)
	a, b := workload("a"), workload("b")
	moved := a
	moved.Instance = "a-v1-7"
	own, other := string(request(t, newKey(t), &x509.CertificateRequest{URIs: []*url.URL{uri(t, a.ID.String())}})),
		string(request(t, newKey(t), &x509.CertificateRequest{URIs: []*url.URL{uri(t, b.ID.String())}}))
	bare := string(request(t, newKey(t), nil))
	tokenA, tokenB := mint(t, c.tokens, a), mint(t, c.tokens, b)
	expired := mint(t, openTokens(t, c.authority.dir, TokenOptions{TTL: time.Second, Clock: func() time.Time { return c.clock.Now().Add(-time.Hour) }}), a)
	certA := c.material(t, a)
	for _, test := range []struct {
		name        string
		certificate *identity.Material
		token, csr  string
		want        identity.Peer
		code        codes.Code
	}{
		{name: "token", token: tokenA, csr: bare, want: a},
		{name: "token, naming itself", token: tokenA, csr: own, want: a},
		{name: "token of a asks for b", token: tokenA, csr: other, code: codes.PermissionDenied},
		{name: "certificate", certificate: certA, csr: own, want: a},
		{name: "certificate of a asks for b", certificate: certA, csr: other, code: codes.PermissionDenied},
		{name: "certificate of a, token of b", certificate: certA, token: tokenB, csr: bare, code: codes.PermissionDenied},
		{name: "certificate with a token of newer facts", certificate: certA, token: mint(t, c.tokens, moved), csr: own, want: moved},
		{name: "certificate with an expired token", certificate: certA, token: expired, csr: own, want: a},
		{name: "expired token", token: expired, csr: own, code: codes.Unauthenticated},
		{name: "garbage for a token", token: "x", csr: own, code: codes.Unauthenticated},
		{name: "nothing", csr: own, code: codes.Unauthenticated},
		{name: "no request", token: tokenA, code: codes.InvalidArgument},
		{name: "garbage for a request", token: tokenA, csr: "x", code: codes.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := c.call(t, c.connect(t, test.certificate), test.token, test.csr)
			if status.Code(err) != test.code {
				t.Fatalf("got %v, want %v", err, test.code)
			}
			if err != nil {
				if test.token != "" && len(test.token) > 10 && strings.Contains(err.Error(), test.token) {
					t.Error("the error shows the token")
				}
				return
			}
			last := len(r.CertChain) - 1
			chain, err := identity.ParseCertificates([]byte(strings.Join(r.CertChain[:last], "")))
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := identity.ParseBundle(domain, []byte(r.CertChain[last]))
			if err != nil {
				t.Fatal(err)
			}
			got, err := bundle.Verify(chain, x509.ExtKeyUsageServerAuth, c.clock.Now())
			if err != nil || got != test.want {
				t.Errorf("certificate for %+v, %v; want %+v", got, err, test.want)
			}
			if life := chain[0].NotAfter.Sub(c.clock.Now()); life != time.Hour {
				t.Errorf("lives %v, want the hour that was asked for", life)
			}
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.results) != 13 || c.results[0].Proof != ProofJoinToken || c.results[3].Proof != ProofCertificate || c.results[8].Code != codes.Unauthenticated {
		t.Errorf("observed %+v", c.results)
	}
}

// A connection that outlives its certificate proves nothing any more.
func TestCertificateExpiresOnOpenConnection(t *testing.T) {
	c := startControl(t)
	client := c.connect(t, c.material(t, workload("a")))
	csr := string(request(t, newKey(t), nil))
	if _, err := c.call(t, client, "", csr); err != nil {
		t.Fatal(err)
	}
	c.clock.add(25 * time.Hour)
	if _, err := c.call(t, client, "", csr); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with an expired certificate: %v", err)
	}
}

func TestForeignCertificate(t *testing.T) {
	c, foreign := startControl(t), startControl(t)
	m := foreign.material(t, workload("a"))
	client := c.connect(t, &identity.Material{Certificate: m.Certificate, Self: m.Self, Bundle: c.authority.Bundle()})
	if _, err := c.call(t, client, "", string(request(t, newKey(t), nil))); status.Code(err) != codes.Unavailable {
		t.Errorf("a certificate of another authority: %v, want a failed handshake", err)
	}
}

func TestExpiredIssuer(t *testing.T) {
	c := startControl(t)
	client := c.connect(t, nil)
	csr := string(request(t, newKey(t), nil))
	if _, err := c.call(t, client, mint(t, c.tokens, workload("a")), csr); err != nil {
		t.Fatal(err)
	}
	c.clock.add(3651 * day)
	if _, err := c.call(t, client, mint(t, c.tokens, workload("a")), csr); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("after the root's end: %v", err)
	}
}
