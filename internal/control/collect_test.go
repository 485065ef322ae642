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
		name                                               string
		before, starting, meanwhile, serving, later, after int
	}{
		{"the default", 100, startPercent, startPercent, servePercent, servePercent, 100},
		{"between ours", 40, startPercent, startPercent, 40, 40, 40},
		{"lower already", 10, 10, 10, 10, 10, 10},
		{"off", -1, -1, -1, -1, -1, -1},
		{"set while it starts", 100, startPercent, 150, 150, 150, 150},
		{"set while it serves", 100, startPercent, startPercent, servePercent, 150, 150},
	} {
		debug.SetGCPercent(c.before)
		collector := collectOften()
		if got := percent(); got != c.starting {
			t.Errorf("%s: %d while it starts, want %d", c.name, got, c.starting)
		}
		debug.SetGCPercent(c.meanwhile)
		collector.started()
		collector.started()
		if got := percent(); got != c.serving {
			t.Errorf("%s: %d while it serves, want %d", c.name, got, c.serving)
		}
		debug.SetGCPercent(c.later)
		collector.end()
		if got := percent(); got != c.after {
			t.Errorf("%s: %d afterwards, want %d", c.name, got, c.after)
		}
	}
}
