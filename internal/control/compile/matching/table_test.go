package matching

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

func prefix(p string) model.HTTPMatch {
	return model.HTTPMatch{Path: model.StringMatch{Prefix: p}}
}
func segment(p string) model.HTTPMatch {
	return model.HTTPMatch{Path: model.StringMatch{Prefix: p, SegmentPrefix: true}}
}
func exact(p string) model.HTTPMatch {
	return model.HTTPMatch{Path: model.StringMatch{Exact: p, IsExact: true}}
}
func regex(p string) model.HTTPMatch { return model.HTTPMatch{Path: model.StringMatch{Regex: p}} }

func ignoringCase(m model.HTTPMatch) model.HTTPMatch {
	m.Path.IgnoreCase = true
	return m
}

// asking adds headers, of which each has the value "1".
func asking(m model.HTTPMatch, headers ...string) model.HTTPMatch {
	for _, h := range headers {
		m.Headers = append(m.Headers, model.NamedMatch{Name: h, Match: model.StringMatch{Exact: "1", IsExact: true}})
	}
	return m
}

func of(name string, born int, matches ...model.HTTPMatch) *model.RouteSet {
	rs := &model.RouteSet{Ref: model.Ref{Kind: "VirtualService", Name: name}, Created: time.Unix(int64(born), 0)}
	for i, m := range matches {
		rs.HTTP = append(rs.HTTP, model.HTTPRoute{Field: fmt.Sprint("spec.http[", i, "]"), Matches: []model.HTTPMatch{m}})
	}
	return rs
}

func byPrecedence(name string, born int, matches ...model.HTTPMatch) *model.RouteSet {
	rs := of(name, born, matches...)
	rs.ByPrecedence = true
	return rs
}

func last(rs *model.RouteSet) *model.RouteSet {
	rs.HTTP[0].Last = true
	return rs
}

func exported(rs *model.RouteSet, namespaces ...string) *model.RouteSet {
	rs.ExportTo.Namespaces = namespaces
	return rs
}

// TestTaker says of the first rule of route sets who takes all its requests.
func TestTaker(t *testing.T) {
	for _, row := range []struct {
		name   string
		of     *model.RouteSet
		others []*model.RouteSet
		want   string
	}{
		{"the same prefix", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, prefix("/a"))}, "a spec.http[0]"},
		{"the same prefix of a younger object", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 3, prefix("/a"))}, ""},
		{"one age: by name", of("b", 1, prefix("/a")), []*model.RouteSet{of("a", 1, prefix("/a")), of("c", 1, prefix("/a"))}, "a spec.http[0]"},
		{"a shorter prefix", of("b", 2, prefix("/a/b")), []*model.RouteSet{of("a", 1, prefix("/q"), prefix("/a"))}, "a spec.http[1]"},
		{"a part of a segment", of("b", 2, segment("/ab")), []*model.RouteSet{of("a", 1, prefix("/a"))}, "a spec.http[0]"},
		{"a longer prefix", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, prefix("/a/b"))}, ""},
		{"an exact path within a prefix", of("b", 2, exact("/a/b")), []*model.RouteSet{of("a", 1, prefix("/a"))}, "a spec.http[0]"},
		{"a prefix with an exact path in it", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, exact("/a"))}, ""},
		{"an expression", of("b", 2, regex("/a.*")), []*model.RouteSet{of("a", 1, regex("/a.*"))}, "a spec.http[0]"},
		{"an expression for everything", of("b", 2, exact("/a")), []*model.RouteSet{of("a", 1, regex(".*"))}, "a spec.http[0]"},
		{"case", of("b", 2, ignoringCase(exact("/A/b"))), []*model.RouteSet{of("a", 1, ignoringCase(prefix("/a")))}, "a spec.http[0]"},
		{"case that counts", of("b", 2, ignoringCase(exact("/a"))), []*model.RouteSet{of("a", 1, exact("/a"))}, ""},
		{"the same headers in another order", of("b", 2, asking(exact("/a"), "x", "y")), []*model.RouteSet{of("a", 1, asking(prefix("/a"), "y", "x"))}, "a spec.http[0]"},
		{"other headers", of("b", 2, asking(exact("/a"), "x")), []*model.RouteSet{of("a", 1, asking(prefix("/a"), "y"))}, ""},
		{"no headers are wider", of("b", 2, asking(exact("/a"), "x")), []*model.RouteSet{of("a", 1, prefix("/a"))}, "a spec.http[0]"},
		{"fewer headers are wider", of("b", 2, asking(exact("/a"), "x", "y")), []*model.RouteSet{of("a", 1, asking(prefix("/a"), "y"))}, "a spec.http[0]"},
		{"more headers", of("b", 2, asking(exact("/a"), "y")), []*model.RouteSet{of("a", 1, asking(prefix("/a"), "x", "y"))}, ""},
		{"fewer of many headers", of("b", 2, asking(exact("/a"), "u", "v", "w", "x", "y")), []*model.RouteSet{of("a", 1, asking(prefix("/a"), "x"))}, ""}, // is not looked for
		{"everything, of an older object", of("b", 2, prefix("/")), []*model.RouteSet{of("a", 1, model.HTTPMatch{})}, "a spec.http[0]"},
		{"everything of an older object goes after what is narrower", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, prefix("/"))}, ""},
		{"what an object has after everything", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, prefix("/"), prefix("/a"))}, ""},
		{"the first of several", of("c", 3, prefix("/a/b")), []*model.RouteSet{of("b", 2, prefix("/a/b")), of("a", 1, prefix("/a"))}, "a spec.http[0]"},
		{"an older HTTPRoute", byPrecedence("b", 1, prefix("/a")), []*model.RouteSet{of("a", 2, prefix("/a"))}, "a spec.http[0]"},
		{"an older HTTPRoute beside everything", byPrecedence("b", 1, segment("/a")), []*model.RouteSet{of("a", 2, prefix("/"))}, "a spec.http[0]"},
		{"HTTPRoutes with one match", byPrecedence("b", 2, segment("/a")), []*model.RouteSet{byPrecedence("a", 1, segment("/a"))}, "a spec.http[0]"},
		{"HTTPRoutes of which one is wider", byPrecedence("b", 2, segment("/a/b")), []*model.RouteSet{byPrecedence("a", 1, segment("/a"), segment("/"))}, ""},
		{"a default backend beside an HTTPRoute", last(byPrecedence("b", 1, model.HTTPMatch{})), []*model.RouteSet{byPrecedence("a", 2, segment("/"))}, "a spec.http[0]"},
		{"an older default backend", byPrecedence("b", 2, segment("/")), []*model.RouteSet{last(byPrecedence("a", 1, model.HTTPMatch{}))}, ""},
		{"one that fewer see", of("b", 2, prefix("/a")), []*model.RouteSet{exported(of("a", 1, prefix("/a")), "x")}, ""},
		{"one that more see", exported(of("b", 2, prefix("/a")), "x"), []*model.RouteSet{of("a", 1, prefix("/a"))}, ""},
		{"two that the same see", exported(of("b", 2, prefix("/a")), "x", "y"), []*model.RouteSet{exported(of("a", 1, prefix("/a")), "y", "x")}, "a spec.http[0]"},
		{"one that holds at other clients", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, model.HTTPMatch{Path: prefix("/a").Path, SourceNamespace: "x"})}, ""},
		{"what some clients never come to", of("b", 2, prefix("/a")), []*model.RouteSet{of("a", 1, model.HTTPMatch{SourceNamespace: "x"}, prefix("/a"))}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var table Table
			place := []Place{{Where: "here", Host: "a.b"}}
			for _, rs := range append(row.others, row.of) {
				for _, c := range Claims(rs, place, nil, nil) {
					table.Put(c)
				}
			}
			got := ""
			if taker := table.Taker(Claims(row.of, place, nil, nil)[0]); taker != nil {
				got = taker.By.Name + " " + taker.Field
			}
			if got != row.want {
				t.Errorf("taken by %q, want %q", got, row.want)
			}
		})
	}
}

// TestServersOfTakers: a rule takes nothing at workloads that its gateway is not for, and nothing of another TLS server's table.
func TestServersOfTakers(t *testing.T) {
	gateway := func(protocol model.Protocol, tls *model.ServerTLS, labels ...string) *model.Gateway {
		g := &model.Gateway{Selector: map[string]string{}, Servers: []model.Server{{Port: 80, Protocol: protocol, TLS: tls}}}
		for _, l := range labels {
			g.Selector[l] = "1"
		}
		return g
	}
	simple, mutual := &model.ServerTLS{Mode: model.TLSSimple}, &model.ServerTLS{Mode: model.TLSMutual}
	elsewhere := gateway(model.HTTP, nil, "a")
	elsewhere.SelectorNamespace = "x"
	for _, row := range []struct {
		name       string
		taker, own *model.Gateway
		want       bool
	}{
		{"the same workloads", gateway(model.HTTP, nil, "a"), gateway(model.HTTP, nil, "a"), true},
		{"more workloads", gateway(model.HTTP, nil), gateway(model.HTTP, nil, "a"), true},
		{"fewer workloads", gateway(model.HTTP, nil, "a", "b"), gateway(model.HTTP, nil, "a"), false},
		{"other workloads", gateway(model.HTTP, nil, "b"), gateway(model.HTTP, nil, "a"), false},
		{"workloads of one namespace", elsewhere, gateway(model.HTTP, nil, "a"), false},
		{"the same of TLS", gateway(model.HTTPS, simple), gateway(model.HTTPS, simple), true},
		{"other settings of TLS", gateway(model.HTTPS, simple), gateway(model.HTTPS, mutual), false},
	} {
		place := []Place{{Where: "here", Host: "a.b"}}
		if row.own.Servers[0].TLS != nil {
			place[0].Server = "a.b"
		}
		var table Table
		for _, c := range Claims(of("a", 1, prefix("/a")), place, row.taker, &row.taker.Servers[0]) {
			table.Put(c)
		}
		own := Claims(of("b", 2, prefix("/a")), place, row.own, &row.own.Servers[0])[0]
		table.Put(own)
		if got := table.Taker(own) != nil; got != row.want {
			t.Errorf("%s: taken is %t", row.name, got)
		}
	}
}

// TestAfter: who takes a claim's requests names the claim among those that have to be looked at when it goes, and a table is empty when
// all have gone.
func TestAfter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var claims []*Claim
	var table Table
	paths := []string{"/", "/a", "/a/b", "/ab", "/b"}
	forms := []func(string) model.HTTPMatch{prefix, prefix, segment, exact, regex}
	for i := range 200 {
		m := forms[r.IntN(len(forms))](paths[r.IntN(len(paths))])
		if r.IntN(3) == 0 {
			m = asking(m, []string{"x", "y", "z", "x"}[:1+r.IntN(4)]...)
		}
		if r.IntN(4) == 0 {
			m = ignoringCase(m)
		}
		rs := of(fmt.Sprint("r", i), r.IntN(5), m)
		rs.ByPrecedence = r.IntN(2) == 0
		claims = append(claims, Claims(rs, []Place{{Host: "a.b"}}, nil, nil)...)
	}
	for _, c := range claims {
		table.Put(c)
	}
	taken := 0
	for len(claims) > 0 {
		for _, c := range claims {
			if taker := table.Taker(c); taker != nil {
				taken++
				if !slices.Contains(slices.Collect(table.After(taker)), c) {
					t.Fatalf("%+v is taken by %+v, which does not know", c, taker)
				}
			}
		}
		i := r.IntN(len(claims))
		table.Remove(claims[i])
		claims = slices.Delete(claims, i, i+1)
	}
	if taken == 0 || !table.Empty() || len(table.same.at)+len(table.same.paths) > 0 {
		t.Errorf("%d were taken, %d are left", taken, len(table.byPath))
	}
}
