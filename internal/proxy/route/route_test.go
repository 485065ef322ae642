package route_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
)

func request(method, authority, path string, fields ...string) *route.Request {
	r := &message.Request{Method: method, Scheme: "http", Authority: authority, Path: path}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		r.Header.Add(name, value)
	}
	return &route.Request{Request: r}
}

func path(kind conf.MatchKind, v string) conf.Match {
	m := conf.Match{Path: conf.StringMatch{Kind: kind, Value: v}, CaseSensitive: true}
	if kind == conf.Regex {
		m.Path.Regexp = regexp.MustCompile("^(?:" + v + ")$")
	}
	return m
}

func table(routes ...*conf.Route) *conf.RouteTable {
	return &conf.RouteTable{Hosts: []*conf.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
}

func TestHostOrder(t *testing.T) {
	tab := &conf.RouteTable{}
	for _, domains := range [][]string{{"*"}, {"*.com"}, {"*.example.com"}, {"www.example.com"}, {"www.*"}, {"reviews:9080", "reviews"}, {"*-bar.foo.com"}} {
		tab.Hosts = append(tab.Hosts, &conf.VirtualHost{Name: domains[0], Domains: domains})
	}
	cases := map[string]string{
		"www.example.com": "www.example.com", "WWW.Example.Com": "www.example.com", "a.example.com": "*.example.com",
		"b.com": "*.com", "www.org": "www.*", "www.": "*", "reviews:9080": "reviews:9080", "reviews": "reviews:9080", "reviews:80": "*",
		"baz-bar.foo.com": "*-bar.foo.com", "-bar.foo.com": "*.com", "": "*", ".example.com": "*.com",
		strings.Repeat("A", 300) + ".example.com": "*.example.com",
	}
	for _, sealed := range []bool{false, true} {
		if sealed {
			tab.Seal()
		}
		for authority, want := range cases {
			if got := route.Host(tab, authority); got == nil || got.Name != want {
				t.Errorf("sealed %v: Host(%q) = %v, want %s", sealed, authority, got, want)
			}
		}
	}
}

func TestHostIgnoresPort(t *testing.T) {
	tab := &conf.RouteTable{IgnorePort: true, Hosts: []*conf.VirtualHost{
		{Name: "a", Domains: []string{"a.test"}}, {Name: "six", Domains: []string{"[::1]"}}, {Name: "bare", Domains: []string{"fe80::1"}}}}
	tab.Seal()
	for authority, want := range map[string]string{"a.test:8080": "a", "a.test": "a", "[::1]:80": "six", "[::1]": "six", "fe80::1": "bare", "b.test": ""} {
		got := ""
		if h := route.Host(tab, authority); h != nil {
			got = h.Name
		}
		if got != want {
			t.Errorf("Host(%q) = %q, want %q", authority, got, want)
		}
	}
}

func TestConditions(t *testing.T) {
	jason := conf.HeaderMatch{Name: "end-user", Value: conf.StringMatch{Kind: conf.Exact, Value: "jason"}}
	yes, inRange := new(bool), conf.HeaderMatch{Name: "n", Range: &conf.Range{Start: -3, End: 9}}
	*yes = true
	notJason := jason
	notJason.Invert = true
	notJasonOrAbsent := notJason
	notJasonOrAbsent.MissingAsEmpty = true
	tests := []struct {
		name  string
		match conf.Match
		req   *route.Request
		want  string // failing condition; empty when it matches
	}{
		{"everything", conf.Match{}, request("GET", "a", "/x?y"), ""},
		{"exact", path(conf.Exact, "/a"), request("GET", "a", "/a?b=c"), ""},
		{"exact, fragment", path(conf.Exact, "/a"), request("GET", "a", "/a#b?c"), ""},
		{"exact, longer", path(conf.Exact, "/a"), request("GET", "a", "/a/"), "path"},
		{"prefix", path(conf.PrefixOf, "/a"), request("GET", "a", "/abc"), ""},
		{"segment prefix", conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: "/a"}, PathSeparatedPrefix: true}, request("GET", "a", "/abc"), "path"},
		{"segment prefix itself", conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: "/a"}, PathSeparatedPrefix: true}, request("GET", "a", "/a"), ""},
		{"segment prefix below", conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: "/a"}, PathSeparatedPrefix: true}, request("GET", "a", "/a/b"), ""},
		{"ignoring case", conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: "/api", IgnoreCase: true}}, request("GET", "a", "/API/x"), ""},
		{"regex", path(conf.Regex, "/v[0-9]+"), request("GET", "a", "/v12"), ""},
		{"regex is anchored", path(conf.Regex, "/v[0-9]+"), request("GET", "a", "/v12/x"), "path"},
		{"header", conf.Match{Headers: []conf.HeaderMatch{jason}}, request("GET", "a", "/", "End-User:jason"), ""},
		{"header, other", conf.Match{Headers: []conf.HeaderMatch{jason}}, request("GET", "a", "/", "end-user:mary"), "header end-user"},
		{"header, absent", conf.Match{Headers: []conf.HeaderMatch{jason}}, request("GET", "a", "/"), "header end-user"},
		{"header twice is joined", conf.Match{Headers: []conf.HeaderMatch{{Name: "x", Value: conf.StringMatch{Kind: conf.Exact, Value: "1,2"}}}}, request("GET", "a", "/", "x:1", "X:2"), ""},
		{"inverted, other", conf.Match{Headers: []conf.HeaderMatch{notJason}}, request("GET", "a", "/", "end-user:mary"), ""},
		{"inverted, absent fails as in Envoy", conf.Match{Headers: []conf.HeaderMatch{notJason}}, request("GET", "a", "/"), "header end-user"},
		{"inverted, absent as empty", conf.Match{Headers: []conf.HeaderMatch{notJasonOrAbsent}}, request("GET", "a", "/"), ""},
		{"absent wanted", conf.Match{Headers: []conf.HeaderMatch{{Name: "x", Present: true, Invert: true}}}, request("GET", "a", "/", "x:"), "header x"},
		{"method", conf.Match{Headers: []conf.HeaderMatch{{Name: ":method", Value: conf.StringMatch{Kind: conf.Exact, Value: "GET"}}}}, request("POST", "a", "/"), "method"},
		{"host is the authority", conf.Match{Headers: []conf.HeaderMatch{{Name: "host", Value: conf.StringMatch{Kind: conf.Exact, Value: "a:80"}}}}, request("POST", "a:80", "/"), ""},
		{"a call of gRPC", conf.Match{GRPC: true}, request("POST", "a", "/"), "protocol"},
		{"a certificate", conf.Match{Presented: yes}, request("POST", "a", "/"), "certificate"},
		{"no valid certificate", conf.Match{Validated: new(bool)}, request("POST", "a", "/"), ""},
		{"never", conf.Match{Never: true}, request("POST", "a", "/"), "share"},
		{"in the range", conf.Match{Headers: []conf.HeaderMatch{inRange}}, request("GET", "a", "/", "n: 9"), "header n"},
		{"start of the range", conf.Match{Headers: []conf.HeaderMatch{inRange}}, request("GET", "a", "/", "n:-3"), ""},
		{"end of the range", conf.Match{Headers: []conf.HeaderMatch{inRange}}, request("GET", "a", "/", "n:9"), "header n"},
		{"no number", conf.Match{Headers: []conf.HeaderMatch{inRange}}, request("GET", "a", "/", "n:x"), "header n"},
		{"no field", conf.Match{Headers: []conf.HeaderMatch{inRange}}, request("GET", "a", "/"), "header n"},
		{"query", conf.Match{Query: []conf.QueryMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "1%202"}}}}, request("GET", "a", "/?x&v=1%202#v=3"), ""},
		{"query, first value", conf.Match{Query: []conf.QueryMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "2"}}}}, request("GET", "a", "/?v=1&v=2"), "query v"},
		{"query, present", conf.Match{Query: []conf.QueryMatch{{Name: "v"}}}, request("GET", "a", "/?v"), ""},
		{"query, absent", conf.Match{Query: []conf.QueryMatch{{Name: "v"}}}, request("GET", "a", "/?vv=1"), "query v"},
		{"cookie", conf.Match{Cookies: []conf.CookieMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "2"}}}}, request("GET", "a", "/", "cookie:u=1; v=2", "Cookie:v=3"), ""},
		{"cookie, other", conf.Match{Cookies: []conf.CookieMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "2"}}}}, request("GET", "a", "/", "cookie:v=3"), "cookie v"},
		{"cookie, inverted and absent", conf.Match{Cookies: []conf.CookieMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "2"}, Invert: true}}}, request("GET", "a", "/", "cookie:vv=2"), ""},
		{"cookie, inverted", conf.Match{Cookies: []conf.CookieMatch{{Name: "v", Value: conf.StringMatch{Kind: conf.Exact, Value: "2"}, Invert: true}}}, request("GET", "a", "/", "cookie:v=2"), "cookie v"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			tab := table(&conf.Route{Name: "r", Match: c.match})
			found := route.Find(tab, c.req).Route != nil
			_, trace := route.FindTrace(tab, c.req)
			got := trace.Attempts[0]
			if found != (c.want == "") || got.Matched != found || got.Condition != c.want {
				t.Errorf("found %v, attempt %+v, want condition %q", found, got, c.want)
			}
			if !found && (got.Want == "" || got.Got == "") {
				t.Errorf("attempt does not say why: %+v", got)
			}
		})
	}
}

func TestFraction(t *testing.T) {
	tab := table(&conf.Route{Name: "share", Match: conf.Match{Fraction: 250_000}}, &conf.Route{Name: "rest"})
	for random, want := range map[uint32]string{0: "share", 249_999: "share", 250_000: "rest", 999_999: "rest"} {
		r := request("GET", "a", "/")
		r.Random = random
		if got := route.Find(tab, r).Route.Name; got != want {
			t.Errorf("random %d: %s, want %s", random, got, want)
		}
	}
}

func TestNothingFound(t *testing.T) {
	tab := &conf.RouteTable{Hosts: []*conf.VirtualHost{{Name: "a", Domains: []string{"a"}}}}
	if got := route.Find(tab, request("GET", "b", "/")); got.Host != nil || got.Route != nil {
		t.Errorf("unknown host: %+v", got)
	}
	if got := route.Find(tab, request("GET", "a", "/")); got.Host == nil || got.Route != nil {
		t.Errorf("no route: %+v", got)
	}
	if got := route.Find(nil, request("GET", "a", "/")); got.Host != nil {
		t.Errorf("no table: %+v", got)
	}
}

// TestIndexKeepsOrder compares the indexed search with the plain one on random tables.
func TestIndexKeepsOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/ab", "/b", "/b/a", "/A", "/abc/d"}
	for range 300 {
		var routes []*conf.Route
		for i := range 8 + rnd.IntN(30) {
			p := paths[rnd.IntN(len(paths))]
			m := []conf.Match{path(conf.Exact, p), path(conf.PrefixOf, p), path(conf.Regex, p+".?"), {}, path(conf.PrefixOf, p)}[rnd.IntN(5)]
			m.PathSeparatedPrefix = m.Path.Kind == conf.PrefixOf && p != "/" && rnd.IntN(2) == 0
			m.Path.IgnoreCase = m.Path.Kind != conf.Regex && rnd.IntN(5) == 0
			m.Path.Value = map[bool]string{true: strings.ToLower(m.Path.Value), false: m.Path.Value}[m.Path.IgnoreCase]
			if rnd.IntN(3) > 0 {
				m.Headers = []conf.HeaderMatch{{Name: "x", Value: conf.StringMatch{Kind: conf.Exact, Value: fmt.Sprint(rnd.IntN(3))}}}
			}
			routes = append(routes, &conf.Route{Name: fmt.Sprint(i), Match: m})
		}
		plain, indexed := table(routes...), table(routes...)
		indexed.Seal()
		if indexed.Hosts[0].Index == nil {
			t.Fatal("no index was built")
		}
		for _, p := range paths {
			for x := range 4 {
				r := request("GET", "h", p+"?q", fmt.Sprintf("x:%d", x))
				a, b := route.Find(plain, r), route.Find(indexed, r)
				c, _ := route.FindTrace(indexed, r)
				if a.Route != b.Route || a.Index != b.Index || c.Route != a.Route {
					t.Fatalf("%s x=%d: plain %d, indexed %d, traced %d", p, x, a.Index, b.Index, c.Index)
				}
			}
		}
	}
}

func TestPick(t *testing.T) {
	split := []conf.WeightedCluster{{Cluster: "a", Weight: 80}, {Cluster: "zero"}, {Cluster: "b", Weight: 20}}
	counts := map[string]int{}
	const n = 10000
	for i := range n {
		counts[route.Pick(split, 100, uint32(uint64(i)<<32/n)).Cluster]++
	}
	if a := counts["a"]; a < 7999 || a > 8001 || counts["b"] != n-a {
		t.Errorf("shares: %v", counts)
	}
	if got := route.Pick(split, 100, 1<<32-1).Cluster; got != "b" {
		t.Errorf("largest random number: %s", got)
	}
	if route.Pick(nil, 0, 0) != nil {
		t.Error("picked from nothing")
	}
}

func TestFindAllocatesNothing(t *testing.T) {
	var routes []*conf.Route
	for i := range 50 {
		routes = append(routes, &conf.Route{Match: path(conf.PrefixOf, fmt.Sprintf("/p%d/", i))})
	}
	routes = append(routes, &conf.Route{Match: conf.Match{
		Path:    conf.StringMatch{Kind: conf.Regex, Regexp: regexp.MustCompile("^(?:/x/[a-z]+)$")},
		Headers: []conf.HeaderMatch{{Name: "end-user", Value: conf.StringMatch{Kind: conf.Exact, Value: "jason"}}, {Name: ":method", Value: conf.StringMatch{Kind: conf.Exact, Value: "GET"}}},
		Query:   []conf.QueryMatch{{Name: "q", Value: conf.StringMatch{Kind: conf.Exact, Value: "1"}}},
		Cookies: []conf.CookieMatch{{Name: "c", Value: conf.StringMatch{Kind: conf.Exact, Value: "1"}}},
	}})
	tab := table(routes...)
	tab.Hosts[0].Domains = []string{"*.example.com"}
	tab.Seal()
	r := request("GET", "WWW.Example.com:80", "/x/abc?a=b&q=1", "a:b", "End-User:jason", "cookie:b=2; c=1")
	tab.IgnorePort = true
	if n := testing.AllocsPerRun(200, func() {
		if res := route.Find(tab, r); res.Index != 50 || res.Route == nil {
			t.Fatalf("found %+v", res)
		}
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func TestNormalizePath(t *testing.T) {
	tests := []struct {
		in    string
		merge bool
		want  string // empty: refused
	}{
		{"/a/b?c=/../d", false, "/a/b?c=/../d"}, {"/", false, "/"}, {"*", false, "*"}, {"/a/./b/../c", false, "/a/c"},
		{"/%61dmin", false, "/admin"}, {"/a%2Fb", false, "/a%2Fb"}, {"/a/%2e%2E/b", false, "/b"}, {"/a\\b", false, "/a/b"},
		{"//a//b", false, "//a//b"}, {"//a//b/", true, "/a/b/"}, {"/a/..", false, "/"}, {"/a/b/..", false, "/a/"}, {"/a/.", false, "/a/"},
		{"/..", false, ""}, {"/a/../../b", false, ""}, {"/a%00", false, ""}, {"/a%zz", false, "/a%zz"}, {"/...", false, "/..."}, {"/a/?x", true, "/a/?x"},
	}
	for _, c := range tests {
		got, ok := route.NormalizePath(c.in, c.merge)
		if ok != (c.want != "") || ok && got != c.want {
			t.Errorf("NormalizePath(%q, %v) = %q, %v; want %q", c.in, c.merge, got, ok, c.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		h         conf.HTTP
		in, want  string // empty: refused
		elsewhere bool
	}{
		{conf.HTTP{}, "/a//b/../%2F", "/a//b/../%2F", false},
		{conf.HTTP{MergeSlashes: true}, "/a//b/..//c?d=//", "/a/b/../c?d=//", false},
		{conf.HTTP{MergeSlashes: true, NormalizePath: true}, "//a//b/..//c", "/a/c", false},
		{conf.HTTP{EscapedSlashes: conf.Unescape}, "/a%2Fb%5Cc?d=%2F", "/a/b\\c?d=%2F", false},
		{conf.HTTP{EscapedSlashes: conf.Unescape, NormalizePath: true, MergeSlashes: true}, "/a%2f..%2F%2fadmin", "/admin", false},
		{conf.HTTP{EscapedSlashes: conf.RefuseEscaped}, "/a%2Fb", "", false},
		{conf.HTTP{EscapedSlashes: conf.RefuseEscaped}, "/a%20b?%2F", "/a%20b?%2F", false},
		{conf.HTTP{EscapedSlashes: conf.RedirectUnescaped, NormalizePath: true}, "/a%5c..%5Cb", "/b", true},
		{conf.HTTP{EscapedSlashes: conf.RedirectUnescaped, NormalizePath: true}, "/a/../b", "/b", false},
	} {
		got, elsewhere, ok := route.Canonical(&c.h, c.in)
		if ok != (c.want != "") || ok && got != c.want || elsewhere != c.elsewhere {
			t.Errorf("Canonical(%+v, %q) = %q, %v, %v; want %q", c.h, c.in, got, elsewhere, ok, c.want)
		}
	}
}

func FuzzNormalizePath(f *testing.F) {
	f.Add("/a/%2e%2e/b?c", true)
	f.Add("/%252e/\\..", false)
	f.Fuzz(func(t *testing.T, s string, merge bool) {
		once, ok := route.NormalizePath(s, merge)
		if !ok {
			return
		}
		if p, _, _ := strings.Cut(once, "?"); strings.HasPrefix(s, "/") && (strings.Contains(p, "/../") || strings.HasSuffix(p, "/..")) && !strings.Contains(p, "#") {
			t.Errorf("%q became %q, which still leads upwards", s, once)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var routes []*conf.Route
			for i := range n {
				routes = append(routes, &conf.Route{Match: path(conf.PrefixOf, fmt.Sprintf("/service-%d/", i))})
			}
			tab := table(routes...)
			tab.Seal()
			r := request("GET", "reviews:9080", fmt.Sprintf("/service-%d/x", n-1), "end-user:jason")
			b.ReportAllocs()
			for b.Loop() {
				route.Find(tab, r)
			}
		})
	}
}
