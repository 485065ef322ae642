package message

import (
	"slices"
	"strings"
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

// TestMayHave has every way of changing a header meet the names that are there, in any case.
func TestMayHave(t *testing.T) {
	names := []string{"TE", "a", "Host", "X-Envoy-Retry-On", "x-forwarded-client-cert", "Content-Length"}
	for _, name := range names {
		for what, add := range map[string]func(h *Header){
			"Add":          func(h *Header) { h.Add(name, "v") },
			"AddLine":      func(h *Header) { h.AddLine(name+": v\r\n", name, "v") },
			"AddPlain":     func(h *Header) { h.AddPlain(strings.ToLower(name), "v", false) },
			"AddSensitive": func(h *Header) { h.AddSensitive(name, "v") },
			"Set":          func(h *Header) { h.Set(name, "v") },
			"CopyFrom": func(h *Header) {
				var from Header
				from.Add(name, "v")
				h.CopyFrom(&from)
			},
		} {
			var h Header
			add(&h)
			for _, as := range []string{name, strings.ToUpper(name), strings.ToLower(name)} {
				if _, ok := h.Get(as); !ok || !h.MayHave(as) || len(as) > 3 && !h.MayBegin(as[:3]) {
					t.Errorf("%s %s: not found as %s", what, name, as)
				}
			}
			h.Del("Accept")
			h.Set("Accept", "v")
			if h.Len() != 2 {
				t.Errorf("%s %s: %d fields", what, name, h.Len())
			}
			h.Reset()
			if h.MayHave(name) {
				t.Errorf("%s %s: there after Reset", what, name)
			}
		}
	}
}
