package diff_test

import (
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/planned"
	"github.com/weftmesh/weft/internal/explain/diff"
)

var services = flag.Int("services", 200, "size of the mesh of TestSize")

// large is a mesh of n services in 20 namespaces, each with a workload of its own and routes; more is added to it.
func large(t *testing.T, n int, more string) *model.Mesh {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: n%[2]d}
spec:
  selector: {app: s%[1]d}
  ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s%[1]d, namespace: n%[2]d}
spec:
  replicas: 2
  selector: {matchLabels: {app: s%[1]d}}
  template:
    metadata: {labels: {app: s%[1]d}}
    spec:
      serviceAccountName: s%[1]d
      containers: [{name: s, image: s, ports: [{containerPort: 80}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: n%[2]d}
spec:
  hosts: [s%[1]d]
  http:
  - match: [{uri: {prefix: /api}}]
    timeout: 1s
    route: [{destination: {host: s%[1]d}}]
  - route: [{destination: {host: s%[1]d}}]
---
`, i, i%20)
	}
	objects, findings := source.Decode(source.LayerFile, "large", []byte(b.String()+more))
	for _, f := range findings {
		t.Fatal(f)
	}
	m, _ := compile.Compile(compile.Input{Objects: planned.Complete(objects)})
	return m
}

// processorTime is what a comparison is measured by, since others share the machine.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSize bounds what a comparison takes. With -services 1000 it is the size that the manual speaks of.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	before := large(t, *services, "")
	for name, more := range map[string]string{
		"one route": `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: n0}
spec:
  hosts: [new.example.com, s20]
  http: [{route: [{destination: {host: s40}}]}]
`,
		"everything is locked": `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: istio-system}
spec:
  rules: [{from: [{source: {namespaces: [n1, n2]}}]}]
`} {
		t.Run(name, func(t *testing.T) {
			after := large(t, *services, more)
			began := processorTime(t)
			r := diff.Compare(before, after)
			took := processorTime(t) - began
			t.Logf("%d requests of %d kinds of client to %d destinations, %d groups: %s", r.Requests, r.Clients, r.Destinations, len(r.Groups), took)
			if !r.Different() || took > time.Minute {
				t.Errorf("took %s, different: %v", took, r.Different())
			}
			if name != "one route" {
				return
			}
			if r.Requests > 30 {
				t.Errorf("%d requests: clients that are treated alike were asked one by one", r.Requests)
			}
			var b strings.Builder
			_ = r.WriteText(&b, false)
			t.Log(b.String())
		})
	}
}

// TestManyRules bounds what is tried where one object has very many rules, and says so.
func TestManyRules(t *testing.T) {
	const rules = 50_000
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s1, namespace: n1}\nspec:\n  hosts: [s1]\n  http:\n")
	for i := range rules {
		fmt.Fprintf(&b, "  - {match: [{uri: {exact: /p%d}}], route: [{destination: {host: s2.n2.svc.cluster.local}}]}\n", i)
	}
	r := diff.Compare(large(t, 3, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n"), large(t, 3, strings.Replace(b.String(), "name: s1,", "name: a,", 1)))
	notes := strings.Join(r.Notes, "\n")
	if !r.Different() || r.Requests < 1_000 || r.Requests > 3*2_100 || !strings.Contains(notes, "with many conditions") {
		t.Errorf("different %v, %d requests, %s", r.Different(), r.Requests, notes)
	}
}

// TestOneOfManyRules: among more rules than can be tried, the one that differs is.
func TestOneOfManyRules(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const rules, one = 60_000, 55_555
	many := func(change func(i int, path, to string) (string, string)) *model.Mesh {
		var b strings.Builder
		b.WriteString("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: n1}\nspec:\n  hosts: [s1]\n  http:\n")
		for i := range rules {
			path, to := change(i, fmt.Sprint("/p", i), "s2.n2.svc.cluster.local")
			fmt.Fprintf(&b, "  - {match: [{uri: {exact: %s}, headers: {x: {exact: '%d'}}}], route: [{destination: {host: %s}}]}\n", path, i%50, to)
		}
		return large(t, 3, strings.Replace(b.String(), "name: s1,", "name: a,", 1))
	}
	before := many(func(_ int, path, to string) (string, string) { return path, to })
	for name, x := range map[string]struct {
		change func(i int, path, to string) (string, string)
		shown  string // empty where it need not be found
	}{
		"another path": {func(i int, path, to string) (string, string) {
			if i == one {
				path = "/p55556"
			}
			return path, to
		}, "/p55555  with x: 5"},
		"another destination": {func(i int, path, to string) (string, string) {
			if i == one {
				to = "s0.n0.svc.cluster.local"
			}
			return path, to
		}, "/p55555  with x: 5"},
	} {
		t.Run(name, func(t *testing.T) {
			began := processorTime(t)
			r := diff.Compare(before, many(x.change))
			t.Logf("%d requests, %s", r.Requests, processorTime(t)-began)
			var b strings.Builder
			if err := r.WriteText(&b, false); err != nil || !r.Different() || !strings.Contains(b.String(), x.shown) || strings.Contains(b.String(), "no request") {
				t.Errorf("%v, %s", err, b.String())
			}
		})
	}
}
