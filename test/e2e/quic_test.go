package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// secureGateway has HTTPS and HTTP/3 in front of Bookinfo.
const secureGateway = `apiVersion: v1
kind: Secret
metadata: {name: edge}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bookinfo-gateway, annotations: {weft.dev/http3: "true"}}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 8443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: edge}}
---
`

// TestHTTP3ThroughUpgrades: the port, which another process opened for the gateway, goes from process to process without a gap.
func TestHTTP3ThroughUpgrades(t *testing.T) {
	for _, isolation := range []string{"auto", "ports"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			cert, key, roots := edgeCertificate(t)
			m := prepare(t, settings{account: self(), isolation: isolation, flags: []string{"--publish", "8443=0"}})
			_, routes, _ := strings.Cut(m.example("gateway.yaml"), "---\n")
			m.write("gateway.yaml", fmt.Sprintf(secureGateway, cert, key)+routes)
			m.needNamespaces()
			m.run()
			m.awaitUp()
			at := "https://" + m.gateway(8443) + "/api/v1/products"
			client := func() *http.Client {
				tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "edge.example"},
					QUICConfig: &quic.Config{MaxIncomingStreams: -1, KeepAlivePeriod: 10 * time.Second, HandshakeIdleTimeout: busy, MaxIdleTimeout: busy}}
				t.Cleanup(func() { tr.Close() })
				return &http.Client{Transport: tr, Timeout: busy}
			}
			get := func(c *http.Client) error {
				res, err := c.Get(at)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || len(body) == 0 {
					return fmt.Errorf("%d %q, %w", res.StatusCode, body, err)
				}
				return nil
			}
			m.eventually(20*time.Second, "HTTP/3 answers", func() error {
				c := client()
				c.Timeout = 10 * time.Second
				return get(c)
			})
			load := &traffic{m: m, stop: make(chan struct{})}
			m.Cleanup(load.halt)
			for range 2 {
				c := client()
				load.workers.Go(func() { // ends with stop
					for {
						select {
						case <-load.stop:
							return
						default:
							began := time.Now()
							load.count(began, get(c))
						}
					}
				})
			}
			for range 2 {
				m.must("proxy", "upgrade")
				if err := get(client()); err != nil {
					t.Errorf("a new client after an upgrade: %v", err)
				}
			}
			load.end("two upgrades over HTTP/3")
		})
	}
}

// edgeCertificate makes one for edge.example, as a Secret has it.
func edgeCertificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"edge.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return base64.StdEncoding.EncodeToString(text), base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), roots
}
