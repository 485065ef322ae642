package scenario

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weftmesh/weft/test/mesh"
)

// TestTLSRoutes connects by server names to listeners that pass TLS through and end it, and from a sidecar.
func TestTLSRoutes(t *testing.T) {
	manifests, err := os.ReadFile("testdata/tlsroutes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := os.ReadFile("testdata/tlsroutes-config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		m := mesh.Start(t, mesh.Options{Manifests: []mesh.File{{Name: "tlsroutes.yaml", Text: string(manifests)}}})
		pass(settle)
		certificate, key, err := mesh.SelfSignedPEM("edge.example")
		if err != nil {
			t.Fatal(err)
		}
		secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: edge}\ndata: {tls.crt: %s, tls.key: %s}\n---\n",
			base64.StdEncoding.EncodeToString(certificate), base64.StdEncoding.EncodeToString(key))
		if findings, err := m.Apply(ctx, "routes.yaml", secret+string(routes)); err != nil {
			t.Fatal(err, findings)
		}
		pass(settle)
		for _, c := range []struct{ from, address, name, shown, reaches string }{
			{mesh.Outside, "gateway:9443", "a.example", "a-v1", "a-v1"},
			{mesh.Outside, "gateway:9443", "x.b.example", "b-v1", "b-v1"},
			{mesh.Outside, "gateway:9443", "other.example", "", ""},
			{mesh.Outside, "gateway:9444", "p.example", "edge.example", "plain-v1"},
			{mesh.Outside, "gateway:9444", "anything.example", "edge.example", "rest-v1"},
			{"caller", "a:443", "a.example", "b-v1", "b-v1"},
			{"caller", "a:443", "other.example", "", ""},
			{"caller", "b:443", "other.example", "b-v1", "b-v1"},
		} {
			shown, err := talkTLS(ctx, m, c.from, c.address, c.name)
			if c.shown == "" && err == nil {
				t.Errorf("%s as %s: somebody answered, as %s", c.address, c.name, shown)
			}
			if c.shown == "" {
				continue
			}
			if err != nil || !strings.HasPrefix(shown, c.shown) {
				t.Errorf("%s as %s: certificate %q, want %s; %v", c.address, c.name, shown, c.shown, err)
			}
			if !reached(t, m, c.reaches, c.address+" "+c.name) {
				t.Errorf("%s as %s: %s has seen nothing of it", c.address, c.name, c.reaches)
			}
		}
	})
}

// talkTLS sends a line that says whom it was for, waits for its answer, and gives the name in the certificate that was shown.
func talkTLS(ctx context.Context, m *mesh.Mesh, from, address, name string) (string, error) {
	raw, err := m.Dial(ctx, from, address)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // the test compares the certificate
	if err := c.HandshakeContext(ctx); err != nil {
		return "", err
	}
	line := address + " " + name
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && answer != strings.ToUpper(line)+"\n" {
		err = fmt.Errorf("answer %q", answer)
	}
	return c.ConnectionState().PeerCertificates[0].DNSNames[0], err
}

func reached(t *testing.T, m *mesh.Mesh, workload, line string) bool {
	seen, err := m.Seen(workload)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range seen {
		for _, s := range list {
			if s.Path == line {
				return true
			}
		}
	}
	return false
}
