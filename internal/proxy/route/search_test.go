package route

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// arbitrary draws conditions that overlap as much as they can.
type arbitrary struct{ *rand.Rand }

func (a arbitrary) path() string {
	var b strings.Builder
	for range a.IntN(5) {
		b.WriteString([]string{"/", "/a", "/ab", "/A", "a", "/b/", "é"}[a.IntN(7)])
	}
	return b.String()
}

func (a arbitrary) match() conf.Match {
	var m conf.Match
	switch p := a.path(); a.IntN(6) {
	case 0, 1:
		m.Path = conf.StringMatch{Kind: conf.Exact, Value: p}
	case 2, 3:
		m.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: p}
		m.PathSeparatedPrefix = a.IntN(3) == 0
	case 4:
		pattern := p + []string{"", ".*", "|/x", "b?", "(b|/)*"}[a.IntN(5)]
		if a.IntN(4) == 0 {
			pattern = "(?i)" + pattern
		}
		m.Path = conf.StringMatch{Kind: conf.Regex, Value: pattern, Regexp: regexp.MustCompile("^(?:" + pattern + ")$")}
	}
	if m.Path.Kind == conf.Exact || m.Path.Kind == conf.PrefixOf {
		if m.Path.IgnoreCase = a.IntN(4) == 0; m.Path.IgnoreCase {
			m.Path.Value = conf.Fold(m.Path.Value)
		}
	}
	for range a.IntN(3) {
		h := conf.HeaderMatch{Name: []string{"x", "y", ":method"}[a.IntN(3)]}
		if h.Value = (conf.StringMatch{Kind: conf.Exact, Value: []string{"", "1", "2", "GET"}[a.IntN(4)]}); a.IntN(5) == 0 {
			h.Value = conf.StringMatch{}
		}
		h.Invert, h.MissingAsEmpty, h.Present = a.IntN(6) == 0, a.IntN(6) == 0, a.IntN(2) == 0
		m.Headers = append(m.Headers, h)
	}
	return m
}

func (a arbitrary) request() *Request {
	r := &message.Request{Method: []string{"GET", "PUT"}[a.IntN(2)], Authority: "h", Path: a.path() + []string{"", "?q", "#f"}[a.IntN(3)]}
	for _, name := range []string{"x", "Y"} {
		if a.IntN(2) == 0 {
			r.Header.Add(name, []string{"", "1", "2"}[a.IntN(3)])
		}
	}
	return &Request{Request: r, Random: uint32(a.IntN(1e6))}
}

// TestSearchFindsTheFirst holds the index against trying the routes one by one, on random tables.
func TestSearchFindsTheFirst(t *testing.T) {
	a := arbitrary{rand.New(rand.NewPCG(3, 4))}
	hits := 0
	for round := range 400 {
		h := &conf.VirtualHost{Domains: []string{"*"}}
		for range 8 + a.IntN(60) {
			h.Routes = append(h.Routes, &conf.Route{Match: a.match()})
		}
		tab := &conf.RouteTable{Hosts: []*conf.VirtualHost{h}}
		for range 60 {
			r := a.request()
			h.Index = nil
			want, _ := first(h, r)
			tab.Seal()
			if got, _ := first(h, r); got != want {
				t.Fatalf("round %d: %s %s: route %d with the index, %d without", round, r.Method, r.Path, got, want)
			}
			if want >= 0 {
				hits++
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d requests matched anything: the test shows too little", hits)
	}
}

// manyRoutes is a host of n routes of one kind, and a request that only the last of them matches.
func manyRoutes(kind string, n int) (*conf.VirtualHost, *Request) {
	h := &conf.VirtualHost{Domains: []string{"*"}}
	r := &message.Request{Method: "GET", Authority: "h"}
	for i := range n {
		s := strconv.Itoa(i)
		m := conf.Match{}
		switch kind {
		case "exact":
			m.Path = conf.StringMatch{Kind: conf.Exact, Value: "/api/v1/things/" + s}
			r.Path = m.Path.Value + "?page=2"
		case "prefix":
			m.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: "/api/v1/things-" + s + "/"}
			r.Path = m.Path.Value + "one/two"
		case "prefixes of all lengths":
			m.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: "/" + strings.Repeat("x", i%40) + "/" + s + "/"}
			r.Path = m.Path.Value + "one/two"
		case "segments":
			m.Path, m.PathSeparatedPrefix = conf.StringMatch{Kind: conf.PrefixOf, Value: "/api/v1/things-" + s}, true
			r.Path = m.Path.Value + "/one/two"
		case "ignoring case":
			m.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: "/api/v1/things-" + s + "/", IgnoreCase: true}
			r.Path = strings.ToUpper(m.Path.Value) + "one/two"
		case "regex with a beginning":
			p := "/api/v1/things-" + s + "/[a-z]+"
			m.Path = conf.StringMatch{Kind: conf.Regex, Value: p, Regexp: regexp.MustCompile("^(?:" + p + ")$")}
			r.Path = "/api/v1/things-" + s + "/abc"
		case "one path by header":
			m.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: "/"}
			m.Headers = []conf.HeaderMatch{{Name: ":method", Value: conf.StringMatch{Kind: conf.Exact, Value: "GET"}},
				{Name: "x-tenant", Value: conf.StringMatch{Kind: conf.Exact, Value: "tenant-" + s}}}
			r.Path = "/any"
			r.Header.Set("X-Tenant", "tenant-"+s)
		}
		h.Routes = append(h.Routes, &conf.Route{Match: m})
	}
	(&conf.RouteTable{Hosts: []*conf.VirtualHost{h}}).Seal()
	return h, &Request{Request: r}
}

var indexedKinds = []string{"exact", "prefix", "prefixes of all lengths", "segments", "ignoring case", "regex with a beginning", "one path by header"}

// TestSearchTriesFewRoutes: the work does not grow with the number of routes.
func TestSearchTriesFewRoutes(t *testing.T) {
	for _, kind := range indexedKinds {
		h, r := manyRoutes(kind, 10_000)
		if got, tried := first(h, r); got != 9_999 || tried > 5 {
			t.Errorf("%s: found route %d of 10,000 after %d comparisons", kind, got, tried)
		}
		r.Path, r.Header = "/somewhere/else", message.Header{}
		if got, tried := first(h, r); got != -1 || tried > 5 {
			t.Errorf("%s: found route %d for a path of none after %d comparisons", kind, got, tried)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	for _, kind := range indexedKinds {
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				h, r := manyRoutes(kind, n)
				b.ReportAllocs()
				for b.Loop() {
					first(h, r)
				}
			})
		}
	}
}

// FuzzSearch is TestSearchFindsTheFirst for paths that nobody thought of.
func FuzzSearch(f *testing.F) {
	f.Add(uint64(1), "/a/ab/b/?q")
	f.Add(uint64(2), "")
	f.Fuzz(func(t *testing.T, seed uint64, path string) {
		a := arbitrary{rand.New(rand.NewPCG(seed, 1))}
		h := &conf.VirtualHost{Domains: []string{"*"}}
		for range 40 {
			m := a.match()
			if a.IntN(4) == 0 && m.Path.Kind != conf.Regex && len(path) > 0 {
				m.Path.Value = path[:a.IntN(len(path))]
				if m.Path.IgnoreCase {
					m.Path.Value = conf.Fold(m.Path.Value)
				}
			}
			h.Routes = append(h.Routes, &conf.Route{Match: m})
		}
		r := a.request()
		r.Path = path
		want, _ := first(h, r)
		(&conf.RouteTable{Hosts: []*conf.VirtualHost{h}}).Seal()
		if got, _ := first(h, r); got != want {
			t.Errorf("%q: route %d with the index, %d without", path, got, want)
		}
	})
}
