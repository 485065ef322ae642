package headers

import (
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func lookup(name, argument string) (string, bool) {
	switch name {
	case "REQ":
		return map[string]string{"x": "1", "a%b": "2"}[argument], true
	case "PROTOCOL":
		return "HTTP/1.1", true
	}
	return "", false
}

func TestExpand(t *testing.T) {
	for value, want := range map[string]string{
		"plain":            "plain",
		"100%%":            "100%",
		"%REQ(x)%":         "1",
		"a%REQ(x)%b":       "a1b",
		"%REQ(a%b)%":       "2",
		"%REQ(none)%":      "",
		"<%REQ(none)%>":    "<>",
		"%PROTOCOL%":       "HTTP/1.1",
		"%UNKNOWN%":        "%UNKNOWN%",
		"50%":              "50%",
		"%REQ(x)% %REQ(x)": "1 %REQ(x)",
	} {
		if got := Expand(value, lookup); got != want {
			t.Errorf("Expand(%q) = %q, want %q", value, got, want)
		}
	}
}

func TestApplyOrder(t *testing.T) {
	var h message.Header
	h.Add("A", "1")
	h.Add("B", "2")
	Apply(&h, &conf.HeaderChange{
		Remove: []string{"a", "c"},
		Set:    []conf.HeaderValue{{Name: "b", Value: "3"}, {Name: "c", Value: "4"}, {Name: "d", Value: "%REQ(none)%"}},
		Add:    []conf.HeaderValue{{Name: "B", Value: "%REQ(x)%"}, {Name: "A", Value: ""}},
	}, lookup)
	want := []message.Field{{Name: "B", Value: "3"}, {Name: "c", Value: "4"}, {Name: "B", Value: "1"}, {Name: "A", Value: ""}}
	if got := slices.Collect(h.All()); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a%REQ(x)%b%%")
	f.Fuzz(func(t *testing.T, s string) { Expand(s, lookup) })
}
