package track

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/steady"
)

// What a connection does is timed by the monotonic clock: a wall clock that is set makes nobody idle, and nobody fresh.
func TestTrackedTimesSurviveSetClocks(t *testing.T) {
	now := time.Now()
	// A reading of the same moment after the wall clock was set: the times that a process takes keep their monotonic part, so two of them
	// always differ by what passed, and only what is stored as a number could lose that.
	var c Conn
	c.Enter(Heading, now)
	ph, since := c.since()
	if ph != Heading || now.Sub(since).Abs() > time.Millisecond {
		t.Errorf("phase %d since %v before", ph, now.Sub(since))
	}
	if later := time.Now(); later.Sub(since) > time.Minute || steady.Time(later).Sub(steady.Time(now)) != later.Sub(now) {
		t.Errorf("%v", later.Sub(since))
	}
	// Without a monotonic part, as tests' clocks are, the wall clock is all there is.
	c.Enter(Idle, now.Round(0).Add(time.Hour))
	if _, since := c.since(); since.Sub(now.Round(0)).Round(time.Second) != time.Hour {
		t.Errorf("since %v", since)
	}
}

// Only a proxy whose connections have all done nothing for a while is quiet.
func TestQuietSince(t *testing.T) {
	var tr Tracker
	then := time.Now()
	if !tr.QuietSince(then) {
		t.Error("not quiet without connections")
	}
	var c Conn
	tr.Add(&c)
	c.Enter(Idle, then.Add(-time.Second))
	if !tr.QuietSince(then) {
		t.Error("not quiet with a connection that has been idle for long")
	}
	c.Enter(Busy, then.Add(-time.Minute))
	if tr.QuietSince(then) {
		t.Error("quiet with a request under way")
	}
	c.Enter(Idle, then.Add(time.Second))
	if tr.QuietSince(then) {
		t.Error("quiet just after a request")
	}
}

// interrupted notes that its reads were made to fail, and has something happen just then.
type interrupted struct {
	conn.Conn
	cut  bool
	then func()
}

func (c *interrupted) SetReadDeadline(time.Time) error {
	if c.cut = true; c.then != nil {
		c.then()
	}
	return nil
}

// TestEvictionSparesRequestsThatHaveJustCome: whoever speaks while others are being ended is idle no more, and served.
func TestEvictionSparesRequestsThatHaveJustCome(t *testing.T) {
	now := time.Now()
	var tr Tracker
	one, two := &Conn{Conn: &interrupted{}}, &Conn{Conn: &interrupted{}}
	one.Conn.(*interrupted).then = func() { two.Enter(Heading, now) }
	for i, c := range []*Conn{one, two} {
		c.Enter(Idle, now.Add(time.Duration(i-10)*time.Second))
		tr.Add(c)
	}
	if n := tr.Evict(now); n != 1 || !one.Conn.(*interrupted).cut || two.Conn.(*interrupted).cut {
		t.Errorf("%d ended; the one that speaks is interrupted: %v", n, two.Conn.(*interrupted).cut)
	}
	if !one.Swap(Heading, now).Interrupted() {
		t.Error("a request that comes after all does not find out that it has to lift the interruption")
	}
	if two.Swap(Busy, now).Interrupted() {
		t.Error("the other seems interrupted")
	}
}

// TestRestingIsWokenOnce: what is to end while it rests does not become idle by that.
func TestRestingIsWokenOnce(t *testing.T) {
	now := time.Now()
	var tr Tracker
	one := &Conn{Conn: &interrupted{}, Idle: time.Hour}
	one.Enter(Resting, now.Add(-time.Second))
	tr.Add(one)
	if n := tr.Evict(now); n != 1 {
		t.Fatalf("%d ended", n)
	}
	if one.Wake(); !one.Swap(Heading, now).Interrupted() {
		t.Error("forgotten")
	}
	one.Enter(Resting, now)
	if one.Wake(); one.Swap(Heading, now) != Idle {
		t.Error("it still rests")
	}
}

// TestDrainingGracesConnectionsThatHaveJustCome: their first request is on its way, and would be lost.
func TestDrainingGracesConnectionsThatHaveJustCome(t *testing.T) {
	now := time.Now()
	for idleFor, cut := range map[time.Duration]bool{0: false, time.Second / 2: false, 2 * time.Second: true} {
		c := &interrupted{}
		var tr Tracker
		one := &Conn{Conn: c, Idle: time.Hour}
		one.Enter(Idle, now.Add(-idleFor))
		tr.Add(one)
		tr.Sweep(now, true, time.Second, func(bool) bool { return true })
		if c.cut != cut {
			t.Errorf("idle for %v: interrupted %v", idleFor, c.cut)
		}
	}
}

// TestShedBeginsWithTheWorst: only those clients lose answers that hold the most, and none while it is only looked.
func TestShedBeginsWithTheWorst(t *testing.T) {
	var tr Tracker
	shed := map[int]bool{}
	for _, held := range []int{5, 50, 0, 7} {
		tr.Add(&Conn{Slow: func(time.Time) int { return held }, Shed: func(time.Time) int { shed[held] = true; return held }})
	}
	tr.Add(&Conn{}) // of HTTP/1
	if n := tr.Shed(time.Now(), false); n != 0 || len(shed) > 0 {
		t.Errorf("%d answers ended, of %v", n, shed)
	}
	if n := tr.Shed(time.Now(), true); n != 50 || len(shed) != 1 {
		t.Errorf("%d answers ended, of %v", n, shed)
	}
}
