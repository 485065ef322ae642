package explain_test

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/explain"
)

const servers = `apiVersion: v1
kind: Service
metadata: {name: tls}
spec: {ports: [{name: tls, port: 8443}]}
---
apiVersion: v1
kind: Service
metadata: {name: tls-v1}
spec: {ports: [{name: tls, port: 8443}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template: {metadata: {labels: {app: client}}, spec: {containers: [{name: c, image: c}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: named}
spec:
  parentRefs: [{group: "", kind: Service, name: tls}]
  hostnames: [a.example]
  rules: [{backendRefs: [{name: tls-v1, port: 8443}]}]
`

// TestServerNames: a TLS client may name another server than the one that it connects to.
func TestServerNames(t *testing.T) {
	m := mesh(t, append(decode(t, "servers", []byte(servers)), decode(t, "pods", pods("client-a client 10.1.0.1 sidecar\n"))...))
	for name, want := range map[string]string{"a.example": "tls-v1", "c.example": "", "": ""} {
		r, err := explain.Mesh(m, explain.Request{From: "client", URL: "https://tls:8443/", ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		var to []string
		for _, d := range r.Destinations {
			to = append(to, strings.TrimSuffix(d.Service, ".default.svc.cluster.local"))
		}
		if got := strings.Join(to, " "); got != want {
			t.Errorf("%q: to %q, want %q: %s", name, got, want, r.Summary)
		}
	}
	if _, err := explain.Mesh(m, explain.Request{From: "client", URL: "http://tls:8443/", ServerName: "a.example"}); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("with http: %v", err)
	}
}
