package index

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

// TestReaders compares the reverse list with a plain search, through many changes of who reads what.
func TestReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	type reader struct {
		keys  []Key
		reads Reads[*reader]
	}
	var readers Readers[*reader]
	all := make([]*reader, 50)
	for i := range all {
		all[i] = &reader{}
	}
	hosts := []string{"", "a.x", "b.x", "*.x", "*"}
	for range 5000 {
		x := all[r.IntN(len(all))]
		x.keys = nil
		for range r.IntN(5) {
			if k := (Key{Kind(r.IntN(2)), hosts[r.IntN(len(hosts))]}); !slices.Contains(x.keys, k) {
				x.keys = append(x.keys, k)
			}
		}
		slices.SortFunc(x.keys, compareKeys)
		readers.Set(x, &x.reads, x.keys)

		host := hosts[1+r.IntN(len(hosts)-1)]
		got, want := map[*reader]bool{}, map[*reader]bool{}
		for x := range readers.Touched(model.Delta{Services: map[string]bool{host: true}}) {
			got[x] = true
		}
		for _, x := range all {
			for _, k := range x.keys {
				if k.Kind == Services && (k.Name == "" || k.Name == host || IsWildcard(host) && Covers(host, k.Name)) {
					want[x] = true
				}
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%s: %d readers found, want %d", host, len(got), len(want))
		}
	}
	for _, x := range all {
		readers.Set(x, &x.reads, nil)
	}
	if n := readers.Len(); n != 0 {
		t.Errorf("%d keys are left without readers", n)
	}
}

// TestManyOfAKind: who reads very many of a kind is told of any.
func TestManyOfAKind(t *testing.T) {
	r := New(&model.Mesh{}).Trace()
	for i := range 3 * maxOfKind {
		r.Service("h" + strconv.Itoa(i))
	}
	r.Workload("default", "x")
	want := []Key{{Kind: Services}, {Workloads, "default/x"}}
	if got := r.Seen(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestNextSharesWhatDidNotChange: a change of endpoints costs next to nothing.
func TestNextSharesWhatDidNotChange(t *testing.T) {
	m := &model.Mesh{}
	for i := range 1000 {
		h := "s" + strconv.Itoa(i)
		m.Services.Put(h, &model.Service{Host: h})
	}
	x := New(m)
	m2 := *m
	m2.Services = m.Services.Copy()
	m2.Services.Put("s1", &model.Service{Host: "s1", Endpoints: []*model.Endpoint{{}}})
	d := model.Delta{Endpoints: map[string]bool{"s1": true}}
	if n := testing.AllocsPerRun(100, func() { x.Next(&m2, d) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
	if s := x.Next(&m2, d).Read().Service("s1"); len(s.Endpoints) != 1 {
		t.Error("the next index reads the mesh before")
	}
}
