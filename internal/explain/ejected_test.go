package explain_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
)

// TestEjected: endpoints that the client's proxy has ejected get no requests, and say why; what is not known is said to be.
func TestEjected(t *testing.T) {
	base, err := os.ReadFile("testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := append(decode(t, "bookinfo.yaml", base), decode(t, "pods", pods(
		"productpage-v1-a productpage 10.1.0.1 sidecar\nratings-v1-a ratings 10.1.0.5 sidecar\nratings-v1-b ratings 10.1.0.6 sidecar\nratings-v1-c ratings 10.1.0.7 sidecar\n"))...)
	objects = append(objects, decode(t, "rule", []byte(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec: {host: ratings, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, minHealthPercent: 0}}}
`))...)
	const cluster = "outbound|9080||ratings.default.svc.cluster.local"
	out := func(last ...int) map[explain.Ejected]string {
		m := map[explain.Ejected]string{{Cluster: "outbound|1||other", Address: "10.1.0.5:9080"}: "another cluster's"}
		for _, l := range last {
			m[explain.Ejected{Cluster: cluster, Address: fmt.Sprintf("10.1.0.%d:9080", l)}] = "errors in a row"
		}
		return m
	}
	for _, test := range []struct {
		name    string
		ejected map[explain.Ejected]string
		want    []string
	}{
		{"not known", nil, []string{"ejected    not known: each proxy", "3 of 3 endpoints ready"}},
		{"none", out(), []string{"3 of 3 endpoints ready"}},
		{"one", out(6), []string{"ratings-v1-b  ejected: errors in a row", "2 of 3 endpoints ready"}},
		{"all", out(5, 6, 7), []string{"none of the 3 endpoints of ratings", "503"}},
	} {
		asker := explain.Over(mesh(t, objects))
		asker.Ejected = func(w *model.Workload) map[explain.Ejected]string {
			if w.Name != "productpage-v1-a" {
				t.Errorf("%s was asked", w.Name)
			}
			return test.ejected
		}
		r, err := asker.Ask(explain.Request{From: "productpage", URL: "http://ratings:9080/"})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := r.WriteText(&b, false); err != nil {
			t.Fatal(err)
		}
		for _, w := range test.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: no %q in\n%s", test.name, w, b.String())
			}
		}
		if test.ejected != nil && strings.Contains(b.String(), "not known") {
			t.Errorf("%s: %s", test.name, b.String())
		}
		for _, e := range r.Destinations[0].Endpoints {
			if _, is := test.ejected[explain.Ejected{Cluster: cluster, Address: e.Address}]; is != (e.State == "ejected") || is && e.Share > 0 {
				t.Errorf("%s: got %+v", test.name, e)
			}
		}
	}
}
