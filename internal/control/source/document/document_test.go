package document

import (
	"slices"
	"testing"
)

func TestDidYouMean(t *testing.T) {
	for name, want := range map[string]string{"mach": "did you mean match?", "per_try_timeout": "did you mean perTryTimeout?", "zzzz": ""} {
		if got := DidYouMean(name, []string{"match", "perTryTimeout", "route"}); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestOutlineIsNoLargerThanNeeded: what is kept of a document is one spot for each value, and no room beyond.
func TestOutlineIsNoLargerThanNeeded(t *testing.T) {
	roots, problem := Parse("a.yaml", []byte("a: b\nc:\n- d: |\n    e: f\n- [g, h]\n"), 1)
	if problem != nil {
		t.Fatal(problem)
	}
	const values = 8 // the whole, b, the list, its first entry, the block, its second entry, g, h
	if o := OutlineOf(roots[0]); len(o.spots) != values || cap(o.spots) != values {
		t.Errorf("%d spots of %d for %d values", len(o.spots), cap(o.spots), values)
	}
}

func TestComparePaths(t *testing.T) {
	in := []string{"spec.http[10].route", "spec.hosts[11]", "spec.hosts[1]", "spec.hosts", "spec.http[2].route[10]", "spec.hosts[2]", "spec.http[2].route[9]", `spec["a[10"]`, `spec["a[9"]`, "", "spec.hosts[x]"}
	want := []string{"", "spec.hosts", "spec.hosts[1]", "spec.hosts[2]", "spec.hosts[11]", "spec.hosts[x]", "spec.http[2].route[9]", "spec.http[2].route[10]", "spec.http[10].route", `spec["a[10"]`, `spec["a[9"]`}
	for range 3 {
		slices.SortFunc(in, ComparePaths)
		if !slices.Equal(in, want) {
			t.Fatalf("%q", in)
		}
		slices.Reverse(in)
	}
}
