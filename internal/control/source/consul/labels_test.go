package consul

import (
	"fmt"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// TestOddLabels: tags and meta that do not count as labels are said with their instance, until they are put right.
func TestOddLabels(t *testing.T) {
	s := start(t)
	register := func(id string, meta map[string]string, tags ...string) {
		meta[sourcetest.Label] = "1"
		s.put(t, "/v1/agent/service/register", map[string]any{"ID": id, "Name": "a", "Address": "10.0.0.1", "Port": 80, "Meta": meta, "Tags": tags})
	}
	register("a1", map[string]string{"url": "http://a/b", "team": "x"}, "urlprefix-/a", "version=1", "version=2", "version=2", "team=y", "canary")
	register("a2", map[string]string{"url": "http://a/b"}, "urlprefix-/a", "version=3")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "a=1")
	awaitTold(t, l, noLabel+" "+tagsContradict)
	f := l.Last().Findings
	for i, want := range []struct {
		severity model.Severity
		words    []string
	}{
		{model.Info, []string{`tag "urlprefix-/a" of a1 on node `, `meta "url=http://a/b" of a1 on node `, " and 1 more"}},
		{model.Warning, []string{`tag "version=2" counts, not tag "version=1" of a1 on node `, `meta "team=x" counts, not tag "team=y" of a1 on node `}},
	} {
		if f[i].Severity != want.severity || f[i].File != "consul:a" || f[i].Object.Name != "a" || f[i].Hint == "" {
			t.Errorf("got %v", f[i])
		}
		for _, w := range want.words {
			if !strings.Contains(f[i].Message, w) {
				t.Errorf("%q is not in %q", w, f[i].Message)
			}
		}
	}
	e := l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: "a"}).Kube.(*networking.ServiceEntry)
	if got := e.Spec.Endpoints[0].Labels; got["version"] != "2" || got["team"] != "x" || got["canary"] != "true" {
		t.Errorf("got %v", got)
	}
	register("a1", map[string]string{"team": "y"}, "urlprefix-/a", "version=2", "team=y")
	awaitTold(t, l, noLabel)
	s.put(t, "/v1/agent/service/deregister/a1", nil)
	s.put(t, "/v1/agent/service/deregister/a2", nil)
	awaitTold(t, l, "")
}

// TestOwnLabels: what Consul says of itself is nobody's to put right.
func TestOwnLabels(t *testing.T) {
	s, err := New(Options{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	odd := newOddities()
	odd.unfit[`tag "a b"`] = []string{"a"}
	var last source.Change
	s.intake.Begin(Layer, func(c source.Change) { last = c })
	s.intake.Open()
	s.tellOddities(ownService, odd)
	if len(last.Findings) > 0 {
		t.Errorf("got %v", last.Findings)
	}
	s.tellOddities("a", odd)
	if len(last.Findings) != 1 {
		t.Errorf("got %v", last.Findings)
	}
}

// TestRoll: the first services by name are told of, whatever the order in which they came, and the others are counted.
func TestRoll(t *testing.T) {
	var in source.Intake
	var told string
	in.Begin(Layer, func(c source.Change) {
		told = ""
		for _, f := range c.Findings {
			told += f.Message + " "
		}
	})
	in.Open()
	r := roll{code: "C", rest: "are odd"}
	name := func(i int) string { return fmt.Sprintf("%03d", i) }
	for i := range 100 {
		n := name(i * 37 % 100)
		r.note(&in, n, &model.Finding{Code: "C", File: Layer + ":" + n, Message: n})
	}
	want := func(from, to int, rest string) {
		t.Helper()
		text := rest
		for i := from; i < to; i++ {
			text += name(i) + " "
		}
		if told != text {
			t.Errorf("got %q, want %q", told, text)
		}
	}
	want(0, maxTold, "80 more services are odd ")
	for i := range 50 {
		r.note(&in, name(i), nil)
	}
	want(50, 50+maxTold, "30 more services are odd ")
	for i := 99; i >= 60; i-- {
		r.note(&in, name(i), nil)
	}
	want(50, 60, "")
}
