package proxy

import (
	"runtime/debug"
	"testing"
)

// TestTidy: the program goes on without its pages.
func TestTidy(t *testing.T) {
	if err := dropProgram(); err != nil {
		t.Error(err)
	}
}

func TestCollectorPace(t *testing.T) {
	before := debug.SetGCPercent(defaultPercent)
	defer debug.SetGCPercent(before)
	var p collectorPace
	p.set()
	if now := debug.SetGCPercent(p.percent); now != p.percent || now < defaultPercent {
		t.Errorf("the collector's percentage is %d, not %d", now, p.percent)
	}
}
