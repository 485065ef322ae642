package proxy

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/steady"
)

// What a connection does is timed by the monotonic clock: a wall clock that is set makes nobody idle, and nobody fresh.
func TestTrackedTimesSurviveSetClocks(t *testing.T) {
	now := time.Now()
	// A reading of the same moment after the wall clock was set: the times that a process takes keep their monotonic part, so two of them
	// always differ by what passed, and only what is stored as a number could lose that.
	var c tracked
	c.enter(heading, now)
	ph, since := c.since()
	if ph != heading || now.Sub(since).Abs() > time.Millisecond {
		t.Errorf("phase %d since %v before", ph, now.Sub(since))
	}
	if later := time.Now(); later.Sub(since) > time.Minute || steady.Time(later).Sub(steady.Time(now)) != later.Sub(now) {
		t.Errorf("%v", later.Sub(since))
	}
	// Without a monotonic part, as tests' clocks are, the wall clock is all there is.
	c.enter(idle, now.Round(0).Add(time.Hour))
	if _, since := c.since(); since.Sub(now.Round(0)).Round(time.Second) != time.Hour {
		t.Errorf("since %v", since)
	}
}
