package headers

import (
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestConditional: a default gives way to what is there, a replacement needs it.
func TestConditional(t *testing.T) {
	change := &conf.HeaderChange{
		Default: []conf.HeaderValue{{Name: "x-there", Value: "default"}, {Name: "x-absent", Value: "default"}},
		Replace: []conf.HeaderValue{{Name: "x-old", Value: "new"}, {Name: "x-none", Value: "new"}},
	}
	var h message.Header
	h.Add("X-There", "1")
	h.Add("X-Old", "1")
	Apply(&h, change, nil)
	for name, want := range map[string]string{"x-there": "1", "x-absent": "default", "x-old": "new", "x-none": ""} {
		if got, _ := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
