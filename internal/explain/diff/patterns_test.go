package diff_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/explain/diff"
)

// routed is a VirtualService of s1 with a rule to s2 for each match, and all else to s0. A match that begins with s0: leads there.
func routed(matches ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: n1}\nspec:\n  hosts: [s1]\n  http:\n")
	for _, m := range matches {
		to := "s2.n2"
		if rest, ok := strings.CutPrefix(m, "s0 "); ok {
			m, to = rest, "s0.n0"
		}
		fmt.Fprintf(&b, "  - {match: [%s], route: [{destination: {host: %s.svc.cluster.local}}]}\n", m, to)
	}
	b.WriteString("  - route: [{destination: {host: s0.n0.svc.cluster.local}}]\n")
	return b.String()
}

// allowed is a policy of s1 with a condition.
func allowed(when string) string {
	return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: n1}\nspec:\n  rules: [{when: [" + when + "]}]\n"
}

func regex(field, of string) string { return fmt.Sprintf("{%s: {regex: '%s'}}", field, of) }

func header(name, kind, of string) string {
	return fmt.Sprintf("{headers: {%s: {%s: '%s'}}}", name, kind, of)
}

func query(name, kind, of string) string {
	return fmt.Sprintf("{queryParams: {%s: {%s: '%s'}}}", name, kind, of)
}

// TestPatterns has changes that only requests show which no sample of a single pattern is.
func TestPatterns(t *testing.T) {
	for name, x := range map[string]struct{ before, after, example string }{
		"a method more":             {routed(regex("method", "GET")), routed(regex("method", "GET|HEAD")), "HEAD http://s1.n1.svc.cluster.local:80/"},
		"another branch":            {routed(header("a", "regex", "a|b")), routed(header("a", "regex", "a|c")), "a: "},
		"a branch within":           {routed(header("user-agent", "regex", ".*(iPhone|Android).*")), routed(header("user-agent", "regex", ".*(iPhone|Windows).*")), "user-agent: "},
		"a branch of paths":         {routed(regex("uri", "/(foo|bar)/.*")), routed(regex("uri", "/(foo|baz)/.*")), "/ba"},
		"a class":                   {routed(regex("uri", "/a/[0-9]+")), routed(regex("uri", "/a/[0-9a]+")), "/a/a"},
		"a class of a parameter":    {routed(query("n", "regex", "[0-9]+")), routed(query("n", "regex", "[0-9a]+")), "?n=a"},
		"the number of repetitions": {routed(regex("uri", "/a{2,5}")), routed(regex("uri", "/a{2,6}")), "/aaaaaa"},
		"case":                      {routed(header("a", "regex", "Abc")), routed(header("a", "regex", "(?i)Abc")), "a: "},
		"ends of words":             {routed(header("a", "regex", `.*\bcat\b.*`)), routed(header("a", "regex", `.*cat.*`)), "a: "},
		"the order of a prefix and a pattern": {routed("{uri: {prefix: /a}}", "s0 "+regex("uri", ".*[.]png")),
			routed("s0 "+regex("uri", ".*[.]png"), "{uri: {prefix: /a}}"), "/a.png"},
		"the order of patterns":       {routed(regex("uri", "/a.*"), "s0 "+regex("uri", ".*b")), routed("s0 "+regex("uri", ".*b"), regex("uri", "/a.*")), "/ab"},
		"a value becomes a beginning": {routed(header("a", "exact", "1")), routed(header("a", "prefix", "1")), "a: 1"},
		"so of a parameter":           {routed(query("n", "exact", "1")), routed(query("n", "prefix", "1")), "?n=1"},
		"a pattern with a condition": {routed("{uri: {regex: '/a/[0-9]+'}, headers: {b: {exact: x}}}"),
			routed("{uri: {regex: '/a/[0-9a]+'}, headers: {b: {exact: x}}}"), "b: x"},
		"another value refused": {allowed("{key: 'request.headers[a]', notValues: [x]}"), allowed("{key: 'request.headers[a]', notValues: [y]}"), "a: "},
		"a suffix":              {allowed("{key: 'request.headers[a]', values: ['*ab']}"), allowed("{key: 'request.headers[a]', values: ['*b']}"), "a: "},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := large(t, 3, x.before), large(t, 3, x.after)
			r := diff.Compare(before, after)
			var b strings.Builder
			_ = r.WriteText(&b, false)
			if len(r.Groups) == 0 || len(r.Untold) > 0 {
				t.Fatalf("no request shows it:\n%s", b.String())
			}
			if d := cmp.Diff(diff.CompareAll(before, after).Groups, r.Groups); d != "" {
				t.Errorf("what was left out differs (-all +got):\n%s", d)
			}
			example := ""
			for _, g := range r.Groups {
				for _, c := range g.Changes {
					example += c.Example.Method + " " + c.Example.URL
					for _, h := range c.Example.Headers {
						example += " " + h.Name + ": " + h.Value
					}
					example += "\n"
				}
			}
			if t.Log(b.String(), example); !strings.Contains(example, x.example) {
				t.Errorf("examples %q, want one with %q", example, x.example)
			}
		})
	}
}

// TestUntold has changes that no request shows, which is no proof that there is none.
func TestUntold(t *testing.T) {
	tcp := `apiVersion: v1
kind: Service
metadata: {name: db, namespace: n1}
spec: {selector: {app: s1}, ports: [{name: tcp, port: 90}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: n1}
spec:
  hosts: [db]
  tcp:
  - {match: [{destinationSubnets: [%s]}], route: [{destination: {host: s0.n0.svc.cluster.local, port: {number: 80}}}]}
  - route: [{destination: {host: db}}]
`
	policy := "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: n1}\nspec:\n  action: DENY\n  rules: [{from: [{source: {%s: [%s]}}]}]\n"
	for name, x := range map[string]struct{ before, after, want string }{
		"a pattern of the same destination": {routed("s0 " + regex("uri", "/a+")), routed("s0 " + regex("uri", "/b+")), "~/a+"},
		"blocks of direct peers":            {fmt.Sprintf(policy, "ipBlocks", "192.0.2.0/24"), fmt.Sprintf(policy, "ipBlocks", "192.0.2.0/25"), "192.0.2.0/25"},
		"blocks of clients":                 {fmt.Sprintf(policy, "remoteIpBlocks", "192.0.2.0/24"), fmt.Sprintf(policy, "remoteIpBlocks", "192.0.2.0/25"), "192.0.2.0/25"},
		"subnets":                           {fmt.Sprintf(tcp, "192.0.2.0/24"), fmt.Sprintf(tcp, "192.0.2.0/25"), "destination 192.0.2.0/25"},
	} {
		t.Run(name, func(t *testing.T) {
			r := diff.Compare(large(t, 3, x.before), large(t, 3, x.after))
			var b strings.Builder
			_ = r.WriteText(&b, false)
			if !r.Different() || len(r.Groups) > 0 || !strings.Contains(strings.Join(r.Untold, "\n"), x.want) || !strings.Contains(b.String(), "others may") {
				t.Errorf("untold %q:\n%s", r.Untold, b.String())
			}
		})
	}
}

// TestEqualPatterns has patterns that are written otherwise and match the same.
func TestEqualPatterns(t *testing.T) {
	for _, x := range [][2]string{{"/a|/b", "/[ab]"}, {"/aa*", "/a+"}, {"/(x|y)?", "/[xy]{0,1}"}} {
		r := diff.Compare(large(t, 3, routed(regex("uri", x[0]))), large(t, 3, routed(regex("uri", x[1]))))
		if r.Different() {
			t.Errorf("%q and %q: %v %q", x[0], x[1], r.Groups, r.Untold)
		}
	}
}

// TestManyPatterns bounds what their pairs take, and what cannot be searched through is not called equal.
func TestManyPatterns(t *testing.T) {
	many := func(class string) string {
		var matches []string
		for i := range 150 {
			matches = append(matches, regex("uri", fmt.Sprintf("/.*(p%d|q%s{1,40}).*/%d", i, class, i)))
		}
		return routed(matches...)
	}
	before, after := large(t, 3, many("[0-9]")), large(t, 3, many("[0-8]"))
	began := processorTime(t)
	r := diff.Compare(before, after)
	if took := processorTime(t) - began; !r.Different() || took > time.Minute {
		t.Errorf("took %s, different: %v", took, r.Different())
	} else {
		t.Log(took, r.Requests, len(r.Groups), r.Untold, r.Notes)
	}
}
