package explain

import (
	"fmt"
	"strings"
	"testing"
)

// TestManyRoutes: of many routes that do not match people read of the nearest, in their order, and how many there are besides.
func TestManyRoutes(t *testing.T) {
	var r Report
	for i := range 1_000 {
		r.Tried = append(r.Tried, Try{Name: fmt.Sprintf("route-%d", i), Condition: "path", Want: fmt.Sprintf("prefix %q", fmt.Sprintf("/p%d", i)), Got: `"/p777/x"`})
	}
	r.Tried[5].Condition, r.Tried[5].Want, r.Tried[5].Got = "method", "POST", "GET"
	r.Tried = append(r.Tried, Try{Name: "last", Matched: true})
	var b strings.Builder
	if err := r.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	out, at := b.String(), 0
	for _, want := range []string{"route-5 ", "route-7 ", "route-77 ", "route-777 ", "last", "and 981 more that do not match"} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("no %q after that:\n%s", want, out)
		}
		at += i
	}
	if strings.Contains(out, "route-6 ") || strings.Count(out, "route-") != maxTried-1 {
		t.Errorf("got\n%s", out)
	}
}

func TestShares(t *testing.T) {
	for f, want := range map[float64]string{0: "0%", 1: "100%", .2: "20%", 8. / 18: "44.4444%", 1e-6: "0.0001%", 1e-9: "<0.0001%"} {
		if got := share(f); got != want {
			t.Errorf("share(%v) = %s, want %s", f, got, want)
		}
	}
}
