package scenario

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/weftmesh/weft/test/mesh"
)

// apart is a Gateway whose listeners have a wildcard for everybody and hosts beneath it, some without routes.
const apart = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: apart}
spec:
  gatewayClassName: weft
  listeners:
  - {name: wide, port: 9443, protocol: HTTPS, hostname: "*.example.com", tls: {certificateRefs: [{name: edge}]}}
  - {name: own, port: 9443, protocol: HTTPS, hostname: own.example.com, tls: {certificateRefs: [{name: edge}]}}
  - {name: empty, port: 9443, protocol: HTTPS, hostname: empty.example.com, tls: {certificateRefs: [{name: edge}]}}
  - {name: opaque, port: 9443, protocol: TLS, hostname: opaque.example.com, tls: {mode: Passthrough}}
  - {name: org, port: 9443, protocol: HTTPS, hostname: x.example.org, tls: {certificateRefs: [{name: edge}]}}
  - {name: http, port: 8080, protocol: HTTP, hostname: "*.example.com"}
  - {name: alone, port: 8080, protocol: HTTP, hostname: empty.example.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wide}
spec:
  parentRefs: [{name: apart, sectionName: wide}, {name: apart, sectionName: http}]
  rules: [{matches: [{path: {value: /}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: wide, statusCode: 302}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: own}
spec:
  parentRefs: [{name: apart, sectionName: own}]
  rules: [{matches: [{path: {value: /}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: own, statusCode: 301}}]}]
`

// TestListenersAreApart asks a Gateway, by server name and host, for what another of its listeners has.
func TestListenersAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		m := mesh.Start(t, mesh.Options{})
		certificate, key, err := mesh.SelfSignedPEM("edge.example")
		if err != nil {
			t.Fatal(err)
		}
		secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: edge}\ndata: {tls.crt: %s, tls.key: %s}\n---\n",
			base64.StdEncoding.EncodeToString(certificate), base64.StdEncoding.EncodeToString(key))
		if findings, err := m.Apply(ctx, "apart.yaml", secret+apart); err != nil {
			t.Fatal(err, findings)
		}
		pass(settle)
		for _, c := range []struct {
			address, name, host string
			status              int // 0: the connection is closed
		}{
			{"gateway:9443", "a.example.com", "a.example.com", 302},
			{"gateway:9443", "own.example.com", "own.example.com", 301},
			{"gateway:9443", "own.example.com", "a.example.com", 421},
			{"gateway:9443", "a.example.com", "own.example.com", 421},
			{"gateway:9443", "a.example.com", "empty.example.com", 421},
			{"gateway:9443", "a.example.com", "opaque.example.com", 421},
			{"gateway:9443", "a.example.com", "x.example.org", 421},
			{"gateway:9443", "a.example.com", "other.org", 404},
			{"gateway:9443", "empty.example.com", "empty.example.com", 404},
			{"gateway:9443", "empty.example.com", "a.example.com", 421},
			{"gateway:9443", "opaque.example.com", "opaque.example.com", 0},
			{"gateway:8080", "", "a.example.com", 302},
			{"gateway:8080", "", "empty.example.com", 404},
		} {
			status, err := ask(ctx, m, c.address, c.name, c.host)
			if status != c.status || (err == nil) != (c.status != 0) {
				t.Errorf("%s as %q for %s: %d, want %d; %v", c.address, c.name, c.host, status, c.status, err)
			}
		}
	})
}

// ask sends a request for a host, over TLS where a server name is given.
func ask(ctx context.Context, m *mesh.Mesh, address, name, host string) (int, error) {
	conn, err := m.Dial(ctx, mesh.Outside, address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if name != "" {
		c := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // it is about the host alone
		if err := c.HandshakeContext(ctx); err != nil {
			return 0, err
		}
		conn = c
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	return answer.StatusCode, nil
}
