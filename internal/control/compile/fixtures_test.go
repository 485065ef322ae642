package compile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// fixtures holds the configuration of Istio's Bookinfo sample, where it is at hand.
const fixtures = "../../../../shared/fixtures/istio-bookinfo"

// load decodes files into objects of ages that follow their order.
func load(t *testing.T, files ...string) []*source.Object {
	t.Helper()
	var all []*source.Object
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objects, findings := source.Decode(source.LayerFile, filepath.Base(f), data)
		for _, f := range findings {
			t.Errorf("decode: %s", f)
		}
		all = append(all, objects...)
	}
	return all
}

func sample(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(fixtures, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no files %s in %s: Istio's sample is not at hand", pattern, fixtures)
	}
	return files
}

// routesOf finds the routes that sidecars use for a host.
func routesOf(m *model.Mesh, host string) []model.HTTPRoute {
	for _, rs := range m.RouteSets {
		if rs.Mesh && len(rs.Hosts) == 1 && rs.Hosts[0] == host+".default.svc.cluster.local" {
			return rs.HTTP
		}
	}
	return nil
}

// destinations renders weights and subsets in one line for each rule.
func destinations(routes []model.HTTPRoute) string {
	var rules []string
	for _, r := range routes {
		var list []string
		for _, m := range r.Matches {
			for _, h := range m.Headers {
				list = append(list, h.Name+"="+h.Match.Exact)
			}
		}
		for _, d := range r.Destinations {
			name, _, _ := strings.Cut(d.Host, ".")
			list = append(list, name+"/"+d.Subset+":"+string(rune('0'+d.Weight/10)))
		}
		rules = append(rules, strings.Join(list, " "))
	}
	return strings.Join(rules, "; ")
}

// TestSampleNetworking compiles each file of the sample on top of the services and destination rules, as its users apply it.
func TestSampleNetworking(t *testing.T) {
	base := sample(t, "platform/kube/bookinfo.yaml")
	rules := filepath.Join(fixtures, "networking/destination-rule-all.yaml")
	for _, c := range []struct{ file, host, want string }{
		{"virtual-service-all-v1.yaml", "reviews", "reviews/v1:0"},
		{"virtual-service-all-v1.yaml", "productpage", "productpage/v1:0"},
		{"virtual-service-reviews-v3.yaml", "reviews", "reviews/v3:0"},
		{"virtual-service-reviews-50-v3.yaml", "reviews", "reviews/v1:5 reviews/v3:5"},
		{"virtual-service-reviews-80-20.yaml", "reviews", "reviews/v1:8 reviews/v2:2"},
		{"virtual-service-reviews-90-10.yaml", "reviews", "reviews/v1:9 reviews/v2:1"},
		{"virtual-service-reviews-v2-v3.yaml", "reviews", "reviews/v2:5 reviews/v3:5"},
		{"virtual-service-reviews-test-v2.yaml", "reviews", "end-user=jason reviews/v2:0; reviews/v1:0"},
		{"virtual-service-reviews-jason-v2-v3.yaml", "reviews", "end-user=jason reviews/v2:0; reviews/v3:0"},
		{"virtual-service-details-v2.yaml", "details", "details/v2:0"},
		{"virtual-service-ratings-db.yaml", "ratings", "ratings/v2:0"},
		{"virtual-service-ratings-mysql.yaml", "ratings", "ratings/v2-mysql:0"},
		{"virtual-service-ratings-mysql-vm.yaml", "ratings", "ratings/v2-mysql-vm:0"},
		{"virtual-service-ratings-test-delay.yaml", "ratings", "end-user=jason ratings/v1:0; ratings/v1:0"},
		{"virtual-service-ratings-test-abort.yaml", "ratings", "end-user=jason ratings/v1:0; ratings/v1:0"},
	} {
		mesh, findings := Compile(Input{Objects: load(t, base[0], rules, filepath.Join(fixtures, "networking", c.file))})
		for _, f := range findings {
			t.Errorf("%s: %s", c.file, f)
		}
		if got := destinations(routesOf(mesh, c.host)); got != c.want {
			t.Errorf("%s: %s goes to %q, want %q", c.file, c.host, got, c.want)
		}
	}
}

// TestSampleAlone takes every file of the sample by itself: never an error.
func TestSampleAlone(t *testing.T) {
	for _, dir := range []string{"networking", "gateway-api", "platform/kube"} {
		for _, file := range sample(t, dir+"/*.yaml") {
			objects := load(t, file)
			_, findings := Compile(Input{Objects: objects})
			if source.HasErrors(findings) {
				t.Errorf("%s: %v", file, findings)
			}
			for _, f := range findings {
				if f.File == "" || f.Line == 0 || f.Message == "" || f.Code == "" {
					t.Errorf("%s: finding without its place: %+v", file, f)
				}
			}
		}
	}
}

func TestSampleGatewayAPI(t *testing.T) {
	base := []string{sample(t, "platform/kube/bookinfo.yaml")[0], filepath.Join(fixtures, "platform/kube/bookinfo-versions.yaml")}
	for _, c := range []struct{ file, want string }{
		{"route-all-v1.yaml", "reviews-v1/:0"},
		{"route-reviews-v1.yaml", "reviews-v1/:0"},
		{"route-reviews-v3.yaml", "reviews-v3/:0"},
		{"route-reviews-50-v3.yaml", "reviews-v1/:5 reviews-v3/:5"},
		{"route-reviews-90-10.yaml", "reviews-v1/:9 reviews-v2/:1"},
	} {
		mesh, findings := Compile(Input{Objects: load(t, append(base, filepath.Join(fixtures, "gateway-api", c.file))...)})
		for _, f := range findings {
			t.Errorf("%s: %s", c.file, f)
		}
		routes := routesOf(mesh, "reviews")
		if got := destinations(routes); got != c.want {
			t.Errorf("%s: reviews goes to %q, want %q", c.file, got, c.want)
		}
		if len(routes) > 0 && routes[0].Matches[0].Port != 9080 {
			t.Errorf("%s: not narrowed to the parent's port", c.file)
		}
	}
}

// TestExamples compiles our own examples as a user meets them: none needs a word of warning.
func TestExamples(t *testing.T) {
	const dir = "../../../examples/bookinfo/"
	base, err := filepath.Glob(dir + "*.yaml")
	if err != nil || len(base) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	try, err := filepath.Glob(dir + "try/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append([]string{""}, try...) {
		files := base
		if file != "" {
			files = append(append([]string{}, base...), file)
		}
		_, findings := Compile(Input{Objects: load(t, files...)})
		for _, f := range findings {
			t.Errorf("%s: %s", file, f)
		}
	}
	api, err := filepath.Glob(dir + "try/gateway-api/*.yaml")
	if err != nil || len(api) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	versions := dir + "try/gateway-api/versions.yaml"
	for _, file := range api {
		files := append(append([]string{}, base...), versions)
		if file != versions {
			files = append(files, file)
		}
		_, findings := Compile(Input{Objects: load(t, files...)})
		for _, f := range findings {
			t.Errorf("%s: %s", file, f)
		}
	}
}
