package explain_test

import (
	"os"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/explain"
)

const hiding = `apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow}
spec:
  egress: [{hosts: ["./details.default.svc.cluster.local"]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: other, annotations: {networking.istio.io/exportTo: "."}}
spec: {ports: [{name: http, port: 80}]}
`

// TestNamesThatAreHidden: where only the mesh knows the addresses of services, what is hidden from a client has no name. Elsewhere the
// name leads to an address that the proxy then refuses.
func TestNamesThatAreHidden(t *testing.T) {
	base, err := os.ReadFile("testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := append(decode(t, "bookinfo.yaml", base), decode(t, "hiding.yaml", []byte(hiding))...)
	objects = append(objects, decode(t, "pods", pods("productpage-v1-a productpage 10.1.0.1 sidecar\nreviews-v1-a reviews 10.1.0.2 sidecar\n"))...)
	asker := explain.Over(mesh(t, objects))
	for _, c := range []struct {
		virtual bool
		url     string
		status  int
		summary string
	}{
		{true, "http://reviews:9080/", 0, "the name reviews does not resolve for this workload: Sidecar/default/narrow does not import it"},
		{true, "tcp://reviews:9080", 0, "Sidecar/default/narrow does not import it"},
		{true, "http://own.other/", 0, "the name own.other does not resolve for this workload: the service is not exported to namespace default"},
		{true, "http://details:1/", 502, "does not know details:1"},
		{true, "http://example.com/", 502, "does not know example.com:80"},
		{false, "http://reviews:9080/", 502, "does not know reviews:9080"},
	} {
		asker.Virtual = c.virtual
		r, err := asker.Ask(explain.Request{From: "productpage", URL: c.url})
		if err != nil {
			t.Fatal(err)
		}
		if r.Outcome != "refuse" || r.Status != c.status || !strings.Contains(r.Summary, c.summary) {
			t.Errorf("%s, virtual %v: %s %d %s", c.url, c.virtual, r.Outcome, r.Status, r.Summary)
		}
	}
}
