package steady

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/test/mesh"
)

func account(name string) identity.ID {
	return identity.ID{TrustDomain: mesh.TrustDomain, Namespace: "default", ServiceAccount: name}
}

// TestNobodyGetsAnothersCertificate asks the signing service, with the credentials of ratings and with none, for the certificate of
// others.
func TestNobodyGetsAnothersCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bookinfo(t)
		ratings := account("bookinfo-ratings")
		roots, token, err := m.Credentials(ratings)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name, token string
			want        identity.ID
			code        codes.Code
		}{
			{"its own", token, ratings, codes.OK},
			{"another account's", token, account("bookinfo-productpage"), codes.PermissionDenied},
			{"another namespace's", token, identity.ID{TrustDomain: mesh.TrustDomain, Namespace: "kube-system", ServiceAccount: "bookinfo-ratings"}, codes.PermissionDenied},
			{"the control plane's", token, identity.ControlID(mesh.TrustDomain), codes.PermissionDenied},
			{"its own, without a proof", "", ratings, codes.Unauthenticated},
			{"its own, with a token that was tampered with", tampered(token), ratings, codes.Unauthenticated},
		} {
			err := sign(t, m, roots, c.token, c.want)
			if got := status.Code(err); got != c.code {
				t.Errorf("%s: %v (%v), want %v", c.name, got, err, c.code)
			}
		}
	})
}

// tampered is a token with another signature: the first letter of that is another one, which counts in full, unlike the last.
func tampered(token string) string {
	b := []byte(token)
	at := strings.LastIndexByte(token, '.') + 1
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return string(b)
}

// sign asks for a certificate of an identity.
func sign(t *testing.T, m *mesh.Mesh, roots []byte, token string, id identity.ID) error {
	t.Helper()
	uri, err := url.Parse(id.String())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		t.Fatal("no roots")
	}
	conn, err := grpc.NewClient("passthrough:///control",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "istiod.istio-system.svc"})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.DialControl(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	_, err = security.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &security.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})),
	})
	return err
}
