package explain_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/explain"
)

var further = flag.String("files", "", "folder of further files for TestProxyTakesWhatIsGenerated, each applied by itself")

const examplePods = `productpage-v1-a productpage 10.1.0.1 sidecar
details-v1-a details 10.1.0.2 sidecar
reviews-v1-a reviews 10.1.0.3 sidecar
reviews-v2-a reviews 10.1.0.4 sidecar
reviews-v3-a reviews 10.1.0.5 sidecar
ratings-v1-a ratings 10.1.0.6 sidecar
gateway-v1-a ingress 10.1.0.9 sidecar gateway
`

// TestProxyTakesWhatIsGenerated applies each of the example's files on top of the services, generates everything that each workload
// may ask for, and has the proxy's decoder read it.
func TestProxyTakesWhatIsGenerated(t *testing.T) {
	const root = "../../examples/bookinfo"
	tries, err := filepath.Glob(filepath.Join(root, "try", "*.yaml"))
	if err != nil || len(tries) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	more, err := filepath.Glob(filepath.Join(root, "try", "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if *further != "" {
		extra, err := filepath.Glob(filepath.Join(*further, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, extra...)
	}
	for _, file := range append(tries, more...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var objects []*source.Object
			for _, f := range []string{filepath.Join(root, "bookinfo.yaml"), filepath.Join(root, "destination-rules.yaml"), filepath.Join(root, "gateway.yaml"), file} {
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				objects = append(objects, decode(t, f, data)...)
			}
			everything(t, append(objects, decode(t, "pods", pods(examplePods))...))
		})
	}
}

func everything(t *testing.T, objects []*source.Object) {
	m := mesh(t, objects)
	if taken(t, m) == 0 {
		t.Error("nothing was generated")
	}
	for _, url := range []string{"http://reviews:9080/reviews/0", "http://ratings:9080/", "http://details:9080/", "http://productpage:9080/productpage"} {
		r, err := explain.Mesh(m, explain.Request{From: "productpage", URL: url, Headers: []explain.Field{{Name: "end-user", Value: "jason"}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) > 0 || r.Route == nil {
			t.Errorf("%s: %+v", url, r)
		}
	}
}
