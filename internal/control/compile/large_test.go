package compile

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// What an object may cost that somebody wrote to hurt, in processor time, since others share the machine. What grows with the square of
// the size is far beyond.
const (
	largeTime   = 60 * time.Second
	largeMemory = 8 << 30 // allocated, most of it only for a moment
	maxSaid     = 210     // findings
)

// bounded runs f and holds it against the bounds.
func bounded(t *testing.T, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := processorTime(t)
	f()
	took := processorTime(t) - start
	runtime.ReadMemStats(&after)
	t.Logf("%s, %d MiB allocated", took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20)
	if took > largeTime || after.TotalAlloc-before.TotalAlloc > largeMemory {
		t.Errorf("took %s and %d MiB", took, (after.TotalAlloc-before.TotalAlloc)>>20)
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestManyRoutes compiles an object of 100,000 rules, and makes the routes of a proxy of it.
func TestManyRoutes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const rules = 100_000
	var b strings.Builder
	b.WriteString(rulesHeadOf("VirtualService") + "spec:\n  hosts: [reviews]\n  http:\n")
	for i := range rules {
		fmt.Fprintf(&b, "  - {match: [{uri: {exact: /p%d}}], route: [{destination: {host: reviews}}]}\n", i)
	}
	if b.Len() > document.MaxFileSize {
		t.Fatalf("%d bytes", b.Len())
	}
	bounded(t, func() {
		objects, findings := source.Decode(source.LayerFile, "many.yaml", []byte(ruleCompany+"---\n"+b.String()))
		mesh, more := Compile(Input{Objects: objects})
		if len(findings)+len(more) > 10 || routesOf(mesh, "reviews") == nil || len(routesOf(mesh, "reviews")) != rules {
			t.Fatalf("%d findings, %d route sets", len(findings)+len(more), len(mesh.RouteSets))
		}
		m, ok := generate.New(mesh, generate.Node{Role: "sidecar", Namespace: "default"}).Resource(generate.RouteType, "reviews.default.svc.cluster.local:9080")
		if !ok || m == nil {
			t.Fatal("no routes")
		}
	})
}

// TestManyOfOne compiles objects that have one thing many times: what is made of each does not depend on how many there are.
func TestManyOfOne(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	entry := func(rest string) string {
		return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: many, namespace: default}\nspec:\n" + rest
	}
	const ports = "  ports: [{number: 80, name: http, protocol: HTTP}]\n"
	for _, c := range []struct {
		name, head, each string
		n                int
	}{
		{"hosts", entry("  resolution: NONE\n" + ports + "  hosts:\n"), "  - h%d.example.com\n", 100_000},
		{"hosts of one address", entry("  resolution: NONE\n  addresses: [240.1.1.1]\n" + ports + "  hosts:\n"), "  - h%d.example.com\n", 100_000},
		{"hosts of one range", entry("  resolution: NONE\n  addresses: [240.1.0.0/16]\n" + ports + "  hosts:\n"), "  - h%d.example.com\n", 100_000},
		{"ports", entry("  resolution: NONE\n  addresses: [240.1.1.1]\n  hosts: [a.example.com]\n  ports:\n"), "  - {number: %[1]d, name: http-%[1]d, protocol: HTTP}\n", 65_000},
		{"hosts of rules", rulesHeadOf("VirtualService") + "spec:\n  http: [{route: [{destination: {host: reviews}}]}]\n  hosts:\n", "  - h%d.example.com\n", 100_000},
		{"rules of a policy", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: many, namespace: default}\nspec:\n  rules:\n", "  - from: [{source: {namespaces: [n%d]}}]\n", 100_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(c.head)
			for i := range c.n {
				fmt.Fprintf(&b, c.each, i+1)
			}
			bounded(t, func() {
				objects, findings := source.Decode(source.LayerFile, "many.yaml", []byte(b.String()))
				mesh, more := Compile(Input{Objects: objects})
				if len(objects) != 1 || len(findings)+len(more) > maxSaid || source.HasErrors(more) {
					t.Fatalf("%d objects, %d findings: %v", len(objects), len(findings)+len(more), more[:min(len(more), 3)])
				}
				if mesh.Services.Len()+len(mesh.RouteSets)+len(mesh.AuthorizationPolicies) == 0 {
					t.Fatal("nothing came of it")
				}
			})
		})
	}
}

// TestProduct: an entry that is small to write, whose hosts have all of its endpoints each, is refused before it is made.
func TestProduct(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: many, namespace: default}\nspec:\n" +
		"  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  hosts:\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "  - h%d.example.com\n", i)
	}
	b.WriteString("  endpoints:\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "  - address: 10.0.%d.%d\n", i>>8, i&255)
	}
	bounded(t, func() {
		objects, _ := source.Decode(source.LayerFile, "many.yaml", []byte(b.String()))
		_, findings := Compile(Input{Objects: objects})
		if len(findings) != 1 || findings[0].Severity != model.Error || findings[0].Field != "spec.hosts" || findings[0].Line != 7 ||
			!strings.Contains(findings[0].Message, "20000 hosts with 20000 endpoints each are 400000000 together") {
			t.Errorf("%v", findings)
		}
	})
}

// TestManyMistakes compiles an object of 20,000 rules that are all wrong: what is said of it is bounded too.
func TestManyMistakes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, rule := range map[string]string{
		"unknown hosts":    "  - {match: [{uri: {exact: /p%[1]d}}], route: [{destination: {host: nowhere%[1]d}}]}\n",
		"bad expressions":  "  - {match: [{uri: {regex: '(%[1]d'}}], route: [{destination: {host: reviews}}]}\n",
		"the same again":   "  - {name: r%[1]d, match: [{uri: {prefix: /same}}], route: [{destination: {host: reviews}}]}\n",
		"unknown fields":   "  - {match: [{url: {prefix: /%[1]d}}], route: [{destination: {host: reviews}}]}\n",
		"prefixes grow":    "  - {match: [{uri: {prefix: /%[1]d}}], route: [{destination: {host: reviews}}]}\n",
		"source namespace": "  - {match: [{sourceNamespace: 'A %[1]d'}], route: [{destination: {host: reviews}}]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(rulesHeadOf("VirtualService") + "spec:\n  hosts: [reviews]\n  http:\n")
			for i := range 20_000 {
				fmt.Fprintf(&b, rule, i)
			}
			bounded(t, func() {
				objects, findings := source.Decode(source.LayerFile, "many.yaml", []byte(ruleCompany+"---\n"+b.String()))
				_, more := Compile(Input{Objects: objects})
				if n := len(findings) + len(more); name != "prefixes grow" && n == 0 || n > maxSaid {
					t.Errorf("%d findings", n)
				}
			})
		})
	}
}

// TestLargeObjects compiles objects of every other kind that lists things, each near the largest file.
func TestLargeObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, o := range map[string][3]string{
		"subsets":   {"DestinationRule", "spec:\n  host: reviews\n  subsets:\n", "  - {name: s%[1]d, labels: {version: v%[1]d}}\n"},
		"servers":   {"Gateway", "spec:\n  servers:\n", "  - {port: {number: 80, name: p%[1]d, protocol: HTTP}, hosts: [h%[1]d.example]}\n"},
		"hosts":     {"ServiceEntry", "spec:\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  hosts:\n", "  - h%[1]d.example\n"},
		"endpoints": {"ServiceEntry", "spec:\n  hosts: [a.example]\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints:\n", "  - {address: 10.0.0.1, labels: {n: v%[1]d}}\n"},
		"egress":    {"Sidecar", "spec:\n  egress:\n  - hosts:\n", "    - ./h%[1]d.example\n"},
		"tls":       {"VirtualService", "spec:\n  hosts: ['*.example']\n  gateways: [edge]\n  tls:\n", "  - {match: [{sniHosts: [h%[1]d.example]}], route: [{destination: {host: reviews}}]}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(rulesHeadOf(o[0]) + o[1])
			for i := range 20_000 {
				fmt.Fprintf(&b, o[2], i)
			}
			bounded(t, func() {
				objects, _ := source.Decode(source.LayerFile, "many.yaml", []byte(ruleCompany+"---\n"+b.String()))
				if len(objects) != 6 {
					t.Fatalf("%d objects", len(objects))
				}
				_, findings := Compile(Input{Objects: objects})
				if len(findings) > maxSaid {
					t.Errorf("%d findings", len(findings))
				}
			})
		})
	}
}

func rulesHeadOf(kind string) string {
	return "apiVersion: networking.istio.io/v1\nkind: " + kind + "\nmetadata: {name: large}\n"
}

// TestConvertAhead: what was converted before a compiler takes an object gives what conversion in time would, and is used again for
// another copy of the object.
func TestConvertAhead(t *testing.T) {
	const text = "  hosts: [reviews]\n  http:\n  - route: [{destination: {host: reviews}}]\n  - route: [{destination: {host: nowhere}}]\n"
	objects, findings := source.Decode(source.LayerApplied, "a.yaml", []byte(ruleCompany+"---\n"+rulesHeadOf("VirtualService")+"spec:\n"+text))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	ahead := ConvertAhead(objects, model.Settings{})
	kept := make([]*source.Object, len(objects))
	for i, o := range objects {
		c := *o
		c.Born = time.Unix(int64(i), 0)
		kept[i] = &c
	}
	want, said := Compile(Input{Objects: kept})
	k := New(model.Settings{})
	done := k.Expect(ahead)
	for range 2 {
		k.Try(kept)
	}
	got, _ := k.Apply(kept, nil)
	done()
	if d := cmp.Diff(dump(want), dump(got)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(said, k.Findings()); d != "" || len(said) == 0 {
		t.Error(len(said), d)
	}
	if n := testing.AllocsPerRun(1, func() { ahead.part(kept[len(kept)-1], &k.settings) }); n > 4 {
		t.Errorf("%v allocations for what was converted", n)
	}
}
