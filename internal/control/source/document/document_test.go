package document

import "testing"

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
