package control

import (
	"runtime/debug"
	"testing"
)

// The collector's setting is lowered for a while, and what somebody else has set is left alone.
func TestCollectOften(t *testing.T) {
	original := debug.SetGCPercent(100)
	defer debug.SetGCPercent(original)
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	for _, c := range []struct {
		name                             string
		before, during, meanwhile, after int
	}{
		{"the default", 100, startPercent, startPercent, 100},
		{"lower already", 10, 10, 10, 10},
		{"off", -1, -1, -1, -1},
		{"set meanwhile", 100, startPercent, 150, 150},
	} {
		debug.SetGCPercent(c.before)
		done := collectOften()
		if got := percent(); got != c.during {
			t.Errorf("%s: %d while it starts, want %d", c.name, got, c.during)
		}
		debug.SetGCPercent(c.meanwhile)
		done()
		done()
		if got := percent(); got != c.after {
			t.Errorf("%s: %d afterwards, want %d", c.name, got, c.after)
		}
	}
}
