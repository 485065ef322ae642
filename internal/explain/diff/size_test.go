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

// ruled is a mesh with a route of n rules, each as change makes it.
func ruled(t *testing.T, n int, change func(i int) (path, to string)) *model.Mesh {
	t.Helper()
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: n1}\nspec:\n  hosts: [s1]\n  http:\n")
	for i := range n {
		path, to := change(i)
		fmt.Fprintf(&b, "  - {match: [{uri: {exact: %s}, headers: {x: {exact: '%d'}}}], route: [{destination: {host: %s.svc.cluster.local}}]}\n", path, i%50, to)
	}
	return large(t, 3, b.String())
}

// TestOneOfManyRules: among more rules than can be tried, the one that differs is.
func TestOneOfManyRules(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, x := range map[string]struct {
		rules, one int
		path, to   string
	}{
		"another path":        {60_000, 55_555, "/p55556", "s2.n2"},
		"another destination": {5_000, 4_455, "/p4455", "s0.n0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := ruled(t, x.rules, func(i int) (string, string) { return fmt.Sprint("/p", i), "s2.n2" })
			after := ruled(t, x.rules, func(i int) (string, string) {
				if i == x.one {
					return x.path, x.to
				}
				return fmt.Sprint("/p", i), "s2.n2"
			})
			began := processorTime(t)
			r := diff.Compare(before, after)
			t.Logf("%d requests, %s", r.Requests, processorTime(t)-began)
			var b strings.Builder
			if err := r.WriteText(&b, false); err != nil || len(r.Groups) == 0 || !strings.Contains(b.String(), fmt.Sprintf("/p%d  with x: 5\n", x.one)) {
				t.Errorf("%v, %s", err, b.String())
			}
		})
	}
}

// TestUndecided: where something differs and only a part was tried, nobody says that all is alike.
func TestUndecided(t *testing.T) {
	as := func(i int) (string, string) { return fmt.Sprint("/p", i), "s2.n2" }
	before := ruled(t, 2_500, as)
	after := ruled(t, 2_500, func(i int) (string, string) {
		switch i {
		case 1_200:
			i = 1_250
		case 1_250:
			i = 1_200
		}
		return as(i)
	})
	for name, x := range map[string]struct {
		after *model.Mesh
		want  bool
	}{"alike": {before, false}, "in another order": {after, true}} {
		r := diff.Compare(before, x.after)
		var b strings.Builder
		_ = r.WriteText(&b, false)
		if r.Different() != x.want || len(r.Undecided) > 0 != x.want || strings.Contains(b.String(), "no request behaves") == x.want {
			t.Errorf("%s: different %v, undecided %v, %s", name, r.Different(), r.Undecided, b.String())
		}
	}
}
