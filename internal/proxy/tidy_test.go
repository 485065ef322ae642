package proxy

import (
	"runtime/debug"
	"testing"
	"time"
)

// TestTidy: only a proxy whose connections have all done nothing for a while gives memory back, and the program goes on without its
// pages.
func TestTidy(t *testing.T) {
	var tr tracker
	then := time.Now()
	if !tr.quietSince(then) {
		t.Error("not quiet without connections")
	}
	var c tracked
	tr.add(&c)
	c.enter(idle, then.Add(-time.Second))
	if !tr.quietSince(then) {
		t.Error("not quiet with a connection that has been idle for long")
	}
	c.enter(busy, then.Add(-time.Minute))
	if tr.quietSince(then) {
		t.Error("quiet with a request under way")
	}
	c.enter(idle, then.Add(time.Second))
	if tr.quietSince(then) {
		t.Error("quiet just after a request")
	}
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
