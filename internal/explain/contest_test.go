package explain_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
)

// contestBase has a gateway workload, with a Gateway of each kind at its port 80, and a backend.
const contestBase = `
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: default, labels: {istio: ingressgateway, app: edge}}
spec: {serviceAccountName: edge, containers: [{name: istio-proxy}]}
status: {podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: t, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: k, namespace: default}
spec: {gatewayClassName: weft, listeners: [{name: h, port: 80, protocol: HTTP}]}
`

// TestContests makes small random sets of VirtualServices, HTTPRoutes and Ingresses at a gateway. A rule of which a finding says that it
// gets no requests is never the one that explain shows for any of a grid of requests; and where one rule of another object gets all those
// of the grid that a rule matches, and asks for no more, a finding says so.
func TestContests(t *testing.T) {
	sets := 200
	if testing.Short() {
		sets = 15
	}
	lost := 0
	for seed := range sets {
		w := &contestWorld{Rand: rand.New(rand.NewPCG(uint64(seed), 11))}
		text := w.objects()
		mesh, findings := compile.Compile(compile.Input{Objects: decode(t, "contest.yaml", []byte(contestBase+text))})
		for _, f := range findings {
			if f.Severity == model.Error {
				t.Fatal(f, text)
			}
			if strings.Contains(f.Message, "its rule gets the requests") || strings.Contains(f.Message, "never reached") {
				lost++
				w.lose(f)
			}
		}
		w.ask(t, explain.Over(mesh))
		w.check(t)
		if t.Failed() {
			t.Fatalf("seed %d:%s\n%v", seed, text, findings)
		}
	}
	t.Logf("%d rules of %d sets get no requests", lost, sets)
}

// contestRule is one match of a rule of an object.
type contestRule struct {
	object, field, host string
	path                func(string) bool
	pattern             bool // an expression, which is compared by its text alone
	method, header      string
	lost                map[string]bool // by host, "" for every one
	met                 []string        // the rules that got the requests of the grid that it matches
}

func (r *contestRule) key() string { return r.object + " " + r.field }

func (r *contestRule) fits(path, method, header string) bool {
	return r.path(path) && (r.method == "" || r.method == method) && (r.header == "" || r.header == header)
}

type contestWorld struct {
	*rand.Rand
	rules []*contestRule
}

func (w *contestWorld) pick(list ...string) string { return list[w.IntN(len(list))] }

var contestPaths = []string{"/", "/a", "/a/b", "/a/bc", "/a/b/c", "/ab", "/q"}

func (w *contestWorld) objects() string {
	var b strings.Builder
	for i := range 2 + w.IntN(4) {
		host := w.pick("a.b", "a.b", "a.b", "*.b")
		meta := fmt.Sprintf("metadata: {name: o%d, namespace: default, creationTimestamp: 2026-01-0%dT00:00:00Z}", i, 1+w.IntN(3))
		switch w.IntN(5) {
		default:
			w.virtualService(&b, fmt.Sprintf("VirtualService/default/o%d", i), meta, host)
		case 0:
			w.httpRoute(&b, fmt.Sprintf("HTTPRoute/default/o%d", i), meta, host)
		case 1:
			w.ingress(&b, fmt.Sprintf("Ingress/default/o%d", i), meta, host)
		}
	}
	return b.String()
}

func (w *contestWorld) virtualService(b *strings.Builder, object, meta, host string) {
	fmt.Fprintf(b, "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n%s\nspec:\n  hosts: ['%s']\n  gateways: [g]\n  http:\n", meta, host)
	for i := range 1 + w.IntN(3) {
		field := fmt.Sprintf("spec.http[%d]", i)
		var matches []string
		for j := range w.IntN(3) {
			r := &contestRule{object: object, field: fmt.Sprintf("%s.match[%d]", field, j), host: host}
			matches = append(matches, "{"+w.conditions(r, true)+"}")
		}
		text := "match: [" + strings.Join(matches, ", ") + "], "
		if len(matches) == 0 {
			w.rules = append(w.rules, &contestRule{object: object, field: field, host: host, path: prefixed("")})
			text = ""
		}
		fmt.Fprintf(b, "  - {%sroute: [{destination: {host: web}}]}\n", text)
	}
}

// conditions writes what a match asks for, as a VirtualService or an HTTPRoute has it.
func (w *contestWorld) conditions(r *contestRule, istio bool) string {
	path, form := w.pick(contestPaths[:3]...), w.IntN(8)
	r.method, r.header = w.pick("", "", "GET"), w.pick("", "", "1")
	words := [3]string{"uri: {exact: %s}", "uri: {regex: '%s'}", "uri: {prefix: %s}"}
	tail := map[string]string{"method: {exact: GET}": r.method, "headers: {x: {exact: '1'}}": r.header}
	r.path = prefixed(path)
	if !istio {
		words = [3]string{"path: {type: Exact, value: %s}", "path: {type: RegularExpression, value: '%s'}", "path: {type: PathPrefix, value: %s}"}
		tail = map[string]string{"method: GET": r.method, "headers: [{name: x, value: '1'}]": r.header}
		r.path = below(path)
	}
	var out []string
	switch form {
	case 0, 1:
		r.path = func(p string) bool { return p == path }
		out = append(out, fmt.Sprintf(words[0], path))
	case 2:
		r.path, r.pattern = prefixed(path), true
		out = append(out, fmt.Sprintf(words[1], path+".*"))
	default:
		out = append(out, fmt.Sprintf(words[2], path))
	}
	for text, given := range tail {
		if given != "" {
			out = append(out, text)
		}
	}
	w.rules = append(w.rules, r)
	return strings.Join(out, ", ")
}

func (w *contestWorld) httpRoute(b *strings.Builder, object, meta, host string) {
	fmt.Fprintf(b, "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n%s\nspec:\n  hostnames: ['%s']\n  parentRefs: [{name: k}]\n  rules:\n", meta, host)
	for i := range 1 + w.IntN(2) {
		r := &contestRule{object: object, field: fmt.Sprintf("spec.rules[%d].matches[0]", i), host: host}
		fmt.Fprintf(b, "  - {matches: [{%s}], backendRefs: [{name: web, port: 80}]}\n", w.conditions(r, false))
	}
}

func (w *contestWorld) ingress(b *strings.Builder, object, meta, host string) {
	path, kind := w.pick(contestPaths[:3]...), w.pick("Prefix", "Exact")
	r := &contestRule{object: object, field: "spec.rules[0].http.paths[0]", host: host, path: below(path)}
	if kind == "Exact" {
		r.path = func(p string) bool { return p == path }
	}
	backend, last := "{service: {name: web, port: {number: 80}}}", ""
	w.rules = append(w.rules, r)
	if w.IntN(3) == 0 {
		last = "  defaultBackend: " + backend + "\n"
		w.rules = append(w.rules, &contestRule{object: object, field: "spec.defaultBackend", host: host, path: prefixed("")})
	}
	fmt.Fprintf(b, "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n%s\nspec:\n  ingressClassName: weft\n%s  rules: [{host: '%s', http: {paths: [{path: %s, pathType: %s, backend: %s}]}}]\n",
		meta, last, host, path, kind, backend)
}

func prefixed(prefix string) func(string) bool {
	return func(p string) bool { return strings.HasPrefix(p, prefix) }
}

// below reports whether a path is one, or within it by segments.
func below(path string) func(string) bool {
	return func(p string) bool { return path == "/" || p == path || strings.HasPrefix(p, path+"/") }
}

// lose notes that a finding says that a rule, with all its matches, gets nothing.
func (w *contestWorld) lose(f model.Finding) {
	host := ""
	if _, rest, ok := strings.Cut(f.Message, " for "); ok {
		host, _, _ = strings.Cut(rest, " at port 80")
	}
	for _, r := range w.rules {
		if r.object == f.Object.String() && (r.field == f.Field || strings.HasPrefix(r.field, f.Field+".match")) {
			if r.lost == nil {
				r.lost = map[string]bool{}
			}
			r.lost[host] = true
		}
	}
}

// ask puts the requests of the grid for each host that there is.
func (w *contestWorld) ask(t *testing.T, a *explain.Asker) {
	hosts := map[string]string{}
	for _, r := range w.rules {
		hosts[r.host] = strings.Replace(r.host, "*", "c", 1)
	}
	for host, asked := range hosts {
		for _, path := range contestPaths {
			for _, method := range []string{"GET", "POST"} {
				for _, header := range []string{"1", "2"} {
					w.askOne(t, a, host, asked, path, method, header)
				}
			}
		}
	}
}

func (w *contestWorld) askOne(t *testing.T, a *explain.Asker, host, asked, path, method, header string) {
	report, err := a.Ask(explain.Request{From: "edge-1", Method: method, URL: "http://" + asked + path, Headers: []explain.Field{{Name: "x", Value: header}}, Brief: true})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	if report.Route != nil {
		got = report.Route.Object + " " + report.Route.Field
	}
	for _, r := range w.rules {
		if r.host != host {
			continue
		}
		if r.fits(path, method, header) {
			r.met = append(r.met, got)
		}
		if r.key() == got && (r.lost[host] || r.lost[""]) {
			t.Errorf("%s gets %s %s%s with x: %s", got, method, host, path, header)
		}
	}
}

// check looks for rules all of whose requests one rule of another object gets, and nothing is said of it.
func (w *contestWorld) check(t *testing.T) {
	byKey := map[string]*contestRule{}
	for _, r := range w.rules {
		byKey[r.key()+r.host] = r
	}
	for _, r := range w.rules {
		if r.pattern || len(r.met) == 0 || len(r.lost) > 0 {
			continue
		}
		taker := byKey[r.met[0]+r.host]
		if taker == nil || taker.object == r.object || taker.pattern || taker.method != "" && taker.method != r.method || taker.header != "" && taker.header != r.header {
			continue
		}
		all := true
		for _, by := range r.met {
			all = all && by == r.met[0]
		}
		if all {
			t.Errorf("%s gets none of %d requests, for %s gets them: nothing is said of it", r.key(), len(r.met), taker.key())
		}
	}
}
