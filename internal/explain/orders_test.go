package explain

import (
	"strings"
	"testing"
)

// TestNamesWithOrders: what an object is called cannot give a terminal orders.
func TestNamesWithOrders(t *testing.T) {
	r := Report{From: Party{Workload: "a", Namespace: "b"}, Tried: []Try{{Name: "x\x1b[2Jy", Matched: true}}, Summary: "to\x00", Notes: []string{"n\x07"}}
	for _, color := range []bool{false, true} {
		var b strings.Builder
		if err := r.WriteText(&b, color); err != nil {
			t.Fatal(err)
		}
		if out := b.String(); !strings.Contains(out, `x\x1b[2Jy`) || !strings.Contains(out, `to\x00`) || !strings.Contains(out, `n\a`) || strings.ContainsAny(out, "\x00\x07") {
			t.Errorf("got %q", out)
		}
	}
}
