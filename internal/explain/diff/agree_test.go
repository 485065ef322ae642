package diff_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/planned"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff"
)

var (
	agreeSeed  = flag.Uint64("agree-seed", 1, "of the meshes of TestAgrees")
	agreeTimes = flag.Int("agree-times", 40, "pairs of meshes of TestAgrees")
)

// kinds of ports, by number. Those of wildcard are a ServiceEntry's for *.wild.example.
var (
	kinds    = map[int]string{8000: "http", 8001: "http2", 8002: "grpc", 8003: "grpc-web", 8004: "tcp", 8005: "tls", 8006: "https", 8007: "auto"}
	wildcard = map[int]string{80: "http", 443: "tls", 9000: "grpc", 9001: "tcp"}
)

// agreed are a client and two services of every kind of port, one of them in two versions.
func agreed() string {
	var b strings.Builder
	for _, name := range []string{"a", "b", "e"} {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %[1]s}\nspec:\n  selector: {app: %[1]s}\n  ports:\n", name)
		for number, kind := range kinds {
			fmt.Fprintf(&b, "  - {name: %s, port: %d}\n", strings.Replace(kind, "auto", "x", 1), number)
		}
		versions := []string{"v1"}
		if name == "b" {
			versions = append(versions, "v2")
		}
		for _, v := range versions {
			fmt.Fprintf(&b, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-%[2]s}
spec:
  selector: {matchLabels: {app: %[1]s, version: %[2]s}}
  template:
    metadata: {labels: {app: %[1]s, version: %[2]s}}
    spec: {serviceAccountName: %[1]s, containers: [{name: c, image: c}]}
`, name, v)
		}
		b.WriteString("---\n")
	}
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: wild}\nspec:\n  hosts: ['*.wild.example']\n  location: MESH_EXTERNAL\n  ports:\n")
	for number, kind := range wildcard {
		fmt.Fprintf(&b, "  - {name: %[1]s, number: %[2]d, protocol: %[1]s}\n", kind, number)
	}
	b.WriteString(`---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: b.default.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: b.default.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`)
	return b.String()
}

type chance struct{ *rand.Rand }

type object = map[string]any

func one[T any](c chance, list ...T) T { return list[c.IntN(len(list))] }

// may calls f half of the time.
func (c chance) may(f func()) {
	if c.IntN(2) == 0 {
		f()
	}
}

const serviceB = "b.default.svc.cluster.local"

// objects draws configuration for a mesh.
func (c chance) objects() (out []object) {
	add := func(group, kind, name string, spec object) {
		out = append(out, object{"apiVersion": group, "kind": kind, "metadata": object{"name": name, "namespace": "default"}, "spec": spec})
	}
	c.may(func() { add("security.istio.io/v1", "AuthorizationPolicy", "policy", c.policy()) })
	c.may(func() {
		add("security.istio.io/v1", "PeerAuthentication", "peers", object{"selector": object{"matchLabels": object{"version": "v2"}},
			"mtls": object{"mode": one(c, "STRICT", "DISABLE")}})
	})
	c.may(func() { add("networking.istio.io/v1", "VirtualService", "inside", c.routes(serviceB)) })
	c.may(func() {
		add("networking.istio.io/v1", "VirtualService", "outside", c.routes(one(c, "x.wild.example", "*.wild.example", "stranger.example")))
	})
	return out
}

func (c chance) policy() object {
	operation := object{}
	c.may(func() { operation["methods"] = []string{one(c, "GET", "POST")} })
	c.may(func() { operation["notMethods"] = []string{"POST"} })
	c.may(func() { operation["paths"] = []string{one(c, "/a", "/a*", "/pkg.Service/*")} })
	c.may(func() { operation["ports"] = []string{one(c, "8000", "8002", "8004", "8005")} })
	rule := object{}
	if len(operation) > 0 {
		rule["to"] = []object{{"operation": operation}}
	}
	if c.IntN(4) == 0 {
		rule["when"] = []object{{"key": "request.headers[content-type]", "values": []string{one(c, "application/grpc", "text/plain")}}}
	}
	return object{"selector": object{"matchLabels": object{"app": one(c, "b", "e")}}, "action": one(c, "ALLOW", "DENY"), "rules": []object{rule}}
}

func (c chance) routes(host string) object {
	to := func() []object {
		if c.IntN(2) == 0 {
			return []object{{"destination": object{"host": "e.default.svc.cluster.local", "port": object{"number": one(c, 8000, 8002, 8004)}}}}
		}
		return []object{{"destination": object{"host": serviceB, "subset": one(c, "v1", "v2"), "port": object{"number": one(c, 8000, 8002, 8004)}}}}
	}
	spec := object{"hosts": []string{host}}
	c.may(func() {
		var rules []object
		for range 1 + c.IntN(2) {
			match := object{}
			c.may(func() { match["method"] = object{"exact": one(c, "GET", "POST", "PUT")} })
			c.may(func() { match["uri"] = object{one(c, "exact", "prefix"): one(c, "/a", "/pkg.Service/Method")} })
			if c.IntN(3) == 0 {
				match["headers"] = object{"content-type": object{one(c, "exact", "prefix"): one(c, "application/grpc", "text/plain")}}
			}
			if c.IntN(3) == 0 {
				match[one(c, "headers", "withoutHeaders")] = object{"x-a": object{one(c, "exact", "prefix"): one(c, "1", "12")}}
			}
			if c.IntN(3) == 0 {
				match["queryParams"] = object{"q": object{one(c, "exact", "prefix"): one(c, "1", "12")}}
			}
			if c.IntN(3) == 0 {
				match["port"] = one(c, 8000, 8001, 8002, 8003, 8007, 9000, 80, 1234)
			}
			rule := object{"match": []object{match}, "route": to()}
			if c.IntN(4) == 0 {
				rule = object{"match": []object{match}, "directResponse": object{"status": one(c, 418, 404)}}
			}
			rules = append(rules, rule)
		}
		c.may(func() { rules = append(rules, object{"route": to()}) })
		spec["http"] = rules
	})
	c.may(func() {
		sni := host
		if host == "*.wild.example" {
			sni = one(c, "x.wild.example", host)
		}
		match := object{"sniHosts": []string{sni}}
		c.may(func() { match["port"] = one(c, 8005, 8006, 443, 1234) })
		spec["tls"] = []object{{"match": []object{match}, "route": to()}}
	})
	c.may(func() {
		rule := object{"route": to()}
		c.may(func() { rule["match"] = []object{{"port": one(c, 8004, 8005, 8007, 9001, 1234)}} })
		spec["tcp"] = []object{rule}
	})
	if len(spec) == 1 {
		spec["http"] = []object{{"route": to()}}
	}
	return spec
}

// drawn compiles configuration; nil where something of it is refused.
func drawn(t *testing.T, list []object) (*model.Mesh, string) {
	t.Helper()
	texts := []string{agreed()}
	for _, o := range list {
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(raw))
	}
	objects, findings := source.Decode(source.LayerFile, "drawn", []byte(strings.Join(texts, "\n---\n")))
	if source.HasErrors(findings) {
		t.Fatal(findings)
	}
	m, findings := compile.Compile(compile.Input{Objects: planned.Complete(objects)})
	if source.HasErrors(findings) {
		return nil, ""
	}
	return m, strings.Join(texts[1:], "\n---\n")
}

// questions are requests to every kind of port, whatever rules there are.
func (c chance) questions() (out []explain.Request) {
	types := []string{"", "application/grpc", "application/grpc-web", "text/plain"}
	at := func(host string, port int) {
		for _, scheme := range []string{"tcp", "https"} {
			out = append(out, explain.Request{From: "a-v1", URL: fmt.Sprintf("%s://%s:%d", scheme, host, port)})
		}
		for _, path := range []string{"/", "/a", "/ab", "/pkg.Service/Method"} {
			out = append(out, explain.Request{From: "a-v1", URL: fmt.Sprintf("grpc://%s:%d%s", host, port, path)})
			for _, method := range []string{"GET", "POST", "PUT"} {
				for _, media := range types {
					r := explain.Request{From: "a-v1", Method: method, URL: fmt.Sprintf("http://%s:%d%s", host, port, path)}
					if media != "" {
						r.Headers = []explain.Field{{Name: "Content-Type", Value: media}}
					}
					out = append(out, r)
					r.URL += "?q=12"
					r.Headers = append(slices.Clip(r.Headers), explain.Field{Name: "x-a", Value: one(c, "1", "12", "123")})
					out = append(out, r)
				}
			}
		}
	}
	for _, host := range []string{serviceB, "alias.default.svc.cluster.local", "x.wild.example", "y.wild.example", "stranger.example"} {
		for _, port := range []int{8000, 8001, 8002, 8003, 8004, 8005, 8006, 8007, 80, 443, 9000, 9001, 1234} {
			at(host, port)
		}
	}
	return out
}

// gists are those of the meshes that are compared.
var gists = map[string]string{}

// gist is what becomes of a request.
func gist(t *testing.T, a *explain.Asker, r explain.Request) (out string) {
	t.Helper()
	r.Brief = true
	key := fmt.Sprintf("%p %v", a, r)
	if known, ok := gists[key]; ok {
		return known
	}
	defer func() { gists[key] = out }()
	report, err := a.Ask(r)
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{report.Outcome, fmt.Sprint(report.Status)}
	for i := range report.Destinations {
		d := &report.Destinations[i]
		shares := map[string]float64{}
		for _, ep := range d.Endpoints {
			shares[ep.Workload] += ep.Share * d.Share
		}
		parts = append(parts, fmt.Sprintf("%s:%d %.3v %t", d.Service, d.Port, shares, d.Missing))
		for j := range d.Ways {
			if w := &d.Ways[j]; w.Inbound != nil {
				parts = append(parts, fmt.Sprintf("%v %t %s %t", w.Workloads, w.MTLS, w.Inbound.Refused, w.Inbound.Verdict.Allowed))
			}
		}
	}
	return strings.Join(parts, "\n")
}

func port(to string) int {
	n, _ := strconv.Atoi(to[strings.LastIndexByte(to, ':')+1:])
	return n
}

// reported are the places that a report names.
func reported(r *diff.Report) (out []string) {
	for _, g := range r.Groups {
		out = append(out, g.Destinations...)
	}
	return out
}

// misdescribed says what a report describes wrongly for a request: it has to fit a description if it is treated differently, one change
// at most, and then be treated as the example is.
func misdescribed(t *testing.T, r *diff.Report, a, b *explain.Asker, q explain.Request, was, is string) string {
	t.Helper()
	scheme, to, _ := strings.Cut(q.URL, "://")
	to, rest, _ := strings.Cut(to, "/")
	if kind := kinds[port(to)] + wildcard[port(to)]; scheme != "http" || kind == "" || strings.HasPrefix(kind, "t") || kind == "https" {
		return ""
	}
	to = strings.Replace(to, ".svc.cluster.local", "", 1)
	target := asked{method: q.Method, path: "/" + rest, headers: map[string]string{}}
	target.path, target.query, _ = strings.Cut(target.path, "?")
	for _, h := range q.Headers {
		target.headers[strings.ToLower(h.Name)] = h.Value
	}
	if kinds[port(to)] == "grpc-web" && target.headers["content-type"] == "application/grpc-web" {
		return "" // descriptions speak of the call of gRPC that it becomes
	}
	var named, told []string
	for _, g := range r.Groups {
		if !slices.Contains(g.Destinations, to) || !slices.Contains(g.From, "a-v1.default") && g.From[0] != "every workload" {
			continue
		}
		var texts []string
		for _, ch := range g.Changes {
			texts = append(texts, ch.Requests...)
		}
		if slices.Equal(texts, []string{"connections"}) {
			continue
		}
		for _, ch := range g.Changes {
			if !slices.ContainsFunc(ch.Requests, func(d string) bool { return target.fits(t, d, texts) }) {
				continue
			}
			named = append(named, strings.Join(ch.Requests, " | "))
			example := ch.Example // as it is at this destination
			_, at, _ := strings.Cut(example.URL, "://")
			_, here, _ := strings.Cut(q.URL, "://")
			example.URL = strings.Replace(example.URL, at[:strings.Index(at+"/", "/")], here[:strings.Index(here, "/")], 1)
			if before, after := gist(t, b, example), gist(t, a, example); !strings.HasPrefix(ch.Example.URL, "https") && (before != was || after != is) {
				return fmt.Sprintf("fits %q, of which another is an example:\n%s\n---\n%s\nwhereas the request is:", named, before, after)
			}
		}
		told = append(told, texts...)
	}
	if len(named) == 0 && was != is && len(told) > 0 {
		return fmt.Sprintf("is treated differently and fits none of %q", told)
	}
	if len(named) > 1 {
		return fmt.Sprintf("fits several: %q", named)
	}
	return ""
}

// asked is a request as descriptions speak of it.
type asked struct {
	method, path, query string
	headers             map[string]string
}

// fits reads a description as people do.
func (a asked) fits(t *testing.T, text string, all []string) bool {
	t.Helper()
	if text == "connections" {
		return false
	}
	text, except, _ := strings.Cut(text, ", and not ")
	for except != "" {
		var e string
		e, except, _ = strings.Cut(except, ", and not ")
		if a.fits(t, strings.TrimSuffix(strings.TrimPrefix(e, "("), ")"), all) {
			return false
		}
	}
	if text == "all other requests" {
		return !slices.ContainsFunc(all, func(o string) bool { return !strings.HasPrefix(o, text) && a.fits(t, o, nil) })
	}
	what, with, _ := strings.Cut(text, "  with ")
	holds := true
	for _, part := range strings.Split(strings.ReplaceAll(what, " and ", "\x00"), "\x00") {
		for word := range strings.FieldsSeq(strings.ReplaceAll(part, "not ", "not\x01")) {
			word, not := strings.CutPrefix(word, "not\x01")
			value := a.method
			if strings.HasPrefix(word, "/") {
				value = a.path
			}
			holds = holds && like(value, word) != not
		}
	}
	if with == "" {
		return holds
	}
	for _, cond := range strings.Split(with, ", ") {
		cond, not := strings.CutPrefix(cond, "not ")
		is := false
		if q, isQuery := strings.CutPrefix(cond, "?"); isQuery {
			is = like(a.query, q)
		} else if name, value, other := strings.Cut(cond, " other than "); other {
			got, there := a.headers[name]
			is = !there || !like(got, value)
		} else if name, value, ok := strings.Cut(cond, ": "); ok {
			got, there := a.headers[name]
			is = there && like(got, value)
		} else {
			t.Fatalf("condition %q of %q", cond, text)
		}
		holds = holds && is != not
	}
	return holds
}

func like(value, pattern string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, begin)
	}
	return value == pattern
}

// TestAgrees has requests of all kinds explained in two meshes that differ at random: where any is treated differently, the comparison has
// to say so, and its own examples have to be treated differently.
func TestAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := chance{rand.New(rand.NewPCG(*agreeSeed, 0))}
	all, differing := c.questions(), 0
	for range *agreeTimes {
		first := c.objects()
		second := slices.Clone(first)
		if fresh := c.objects(); len(second) > 0 && len(fresh) > 0 {
			second = slices.DeleteFunc(second, func(o object) bool { return o["kind"] == fresh[0]["kind"] })
			second = append(second, fresh[0])
		} else {
			second = fresh
		}
		before, was := drawn(t, first)
		after, is := drawn(t, second)
		if before == nil || after == nil {
			continue
		}
		r := diff.Compare(before, after)
		b, a := explain.Over(before), explain.Over(after)
		clear(gists)
		wrong := false
		missed := map[string]explain.Request{}
		for _, q := range all {
			one, two := gist(t, b, q), gist(t, a, q)
			if text := misdescribed(t, r, a, b, q, one, two); text != "" {
				t.Errorf("%s %s %v: %s\n%s\n---\n%s", q.Method, q.URL, q.Headers, text, one, two)
				wrong = true
				break
			}
			if one == two {
				continue
			}
			differing++
			_, to, _ := strings.Cut(q.URL, "://")
			to, _, _ = strings.Cut(to, "/")
			to = strings.Replace(to, ".svc.cluster.local", "", 1)
			star := "*" + to[strings.Index(to, "."):]
			if named := reported(r); slices.Contains(named, to) || slices.Contains(named, star) {
				continue
			}
			host := to[:strings.Index(to, ":")+1]
			if kinds[port(to)] == "" && (strings.Contains(fmt.Sprint(r.Notes), "has no such port") || strings.Contains(fmt.Sprint(reported(r)), host)) {
				continue // of ports that a service does not have little is said
			}
			if _, known := missed[to]; !known {
				missed[to] = q
				t.Errorf("%s %s %v is treated differently, and nothing is said of %s:\n%s\n---\n%s", q.Method, q.URL, q.Headers, to, one, two)
				wrong = true
			}
		}
		for _, g := range r.Groups {
			for _, ch := range g.Changes {
				if strings.HasPrefix(ch.Example.URL, "http://direct.invalid") || strings.HasPrefix(ch.Example.URL, "tcp://direct.invalid") {
					continue
				}
				if gist(t, b, ch.Example) == gist(t, a, ch.Example) && strings.Contains(ch.Before, "100%") != strings.Contains(ch.After, "100%") {
					t.Errorf("the example of %v is treated alike: %+v\n%s\n%s", g.Destinations, ch.Example, ch.Before, ch.After)
					wrong = true
				}
			}
		}
		if wrong {
			var text strings.Builder
			_ = r.WriteText(&text, false)
			t.Fatalf("before:\n%s\nafter:\n%s\n%s", was, is, text.String())
		}
	}
	if differing < *agreeTimes {
		t.Errorf("%d requests were treated differently: too few to tell anything", differing)
	}
}
