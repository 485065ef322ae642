package message

import (
	"slices"
	"testing"
)

func TestHeaderKeepsOrderAndCase(t *testing.T) {
	var h Header
	h.Add("X-One", "1")
	h.Add("x-two", "2")
	h.Add("X-ONE", "3")
	h.Set("x-one", "9")
	h.Add("Z", "4")
	h.Del("X-TWO")
	want := []Field{{Name: "X-One", Value: "9"}, {Name: "Z", Value: "4"}}
	if got := slices.Collect(h.All()); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if v, ok := h.Get("z"); !ok || v != "4" {
		t.Fatalf("Get(z) = %q, %v", v, ok)
	}
}

func TestEqualFoldIsASCIIOnly(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"Host", "hOST", true}, {"a@", "a`", false}, {"K", "\u212a", false}, {"[", "{", false}, {"", "", true}} {
		if got := EqualFold(c.a, c.b); got != c.want {
			t.Errorf("EqualFold(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestHeaderAllocatesNothingWhenReused(t *testing.T) {
	var h Header
	fill := func() {
		h.Reset()
		h.Add("a", "1")
		h.Add("b", "2")
		h.Set("a", "3")
		if _, ok := h.Get("b"); !ok {
			t.Fatal("lost a field")
		}
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Fatalf("%v allocations per reuse", n)
	}
}
