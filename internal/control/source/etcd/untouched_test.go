package etcd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// ruled is a writer for that many rules, of which every status is as it should be, without a server: it has nothing to write.
func ruled(tb testing.TB, rules int) *writer {
	tb.Helper()
	var text strings.Builder
	for i := range rules {
		text.WriteString("---\n" + strings.ReplaceAll(rule, "NAME", fmt.Sprintf("r%05d", i)))
	}
	objects, findings := source.Text{Layer: source.LayerApplied}.Decode([]byte(text.String()))
	if source.HasErrors(findings) {
		tb.Fatal(findings)
	}
	mesh, findings := compile.Compile(compile.Input{Objects: objects})
	in := status.Input{Objects: objects, Mesh: mesh, Findings: findings}
	s, err := Open(Options{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	w := &writer{Store: s, input: func() status.Input { return in }, right: map[source.Key]said{}}
	wanted := status.Compute(in)
	for _, o := range objects {
		ops, err := w.difference(o, "", wanted[o.Key()])
		if err != nil || len(ops) != 1 {
			tb.Fatal(ops, err)
		}
		s.view.documents[o.Key()], s.view.statuses[o.Key()] = &document{}, string(ops[0].ValueBytes())
	}
	if err := w.writeAll(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return w
}

// TestUntouchedStatuses: a change decodes no status but those of the objects that it touches, however many others there are.
func TestUntouchedStatuses(t *testing.T) {
	const few, many = 200, 3200
	allocs := func(rules int) float64 {
		w := ruled(t, rules)
		return testing.AllocsPerRun(10, func() {
			if err := w.writeAll(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if a, b := allocs(few), allocs(many); b > a+(many-few)/10 { // maps have their parts
		t.Errorf("%.0f allocations with %d objects, %.0f with %d", a, few, b, many)
	}
}

func BenchmarkUntouchedStatuses(b *testing.B) {
	for _, rules := range []int{1000, 10000} {
		b.Run(fmt.Sprint(rules), func(b *testing.B) {
			w := ruled(b, rules)
			for b.Loop() {
				if err := w.writeAll(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
