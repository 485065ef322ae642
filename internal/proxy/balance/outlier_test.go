package balance

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func outlierCluster(o conf.Outlier, hosts int) *conf.Cluster {
	weights := make([]uint32, hosts)
	c := cluster(conf.RoundRobin, weights...)
	o.Interval, o.BaseEjection, o.MaxEjection = time.Second, 10*time.Second, 25*time.Second
	if o.MaxEjectionPercent == 0 {
		o.MaxEjectionPercent = 50
	}
	c.Outlier = &o
	return c
}

func fail(c *Cluster, host, n int, o Outcome) {
	for range n {
		c.Report(c.Hosts()[host], o, 0, nil)
	}
}

// pass lets time pass with the ticks that its owner would make.
func pass(c *Cluster, clock *fakeClock, d time.Duration) {
	for end := clock.now.Add(d); clock.now.Before(end); {
		clock.now = clock.now.Add(100 * time.Millisecond)
		c.Tick()
	}
}

func TestConsecutiveFailuresEject(t *testing.T) {
	opt, clock := options()
	conf0 := outlierCluster(conf.Outlier{Consecutive5xx: conf.Threshold{Count: 3, Enforce: 100}}, 4)
	c := New(conf0, nil, opt)
	fail(c, 0, 2, ServerError)
	fail(c, 0, 1, Answered)
	fail(c, 0, 2, ServerError)
	if got := shares(c, 100, &Choice{}); got[0] == 0 {
		t.Fatal("failures that were not consecutive ejected the host")
	}
	fail(c, 0, 1, ServerError)
	fail(c, 1, 3, Broken)
	fail(c, 2, 3, ServerError) // beyond the share that may go
	got := shares(c, 300, &Choice{})
	if got[0] != 0 || got[1] != 0 || got[2] == 0 {
		t.Fatalf("got %v", got)
	}
	if got := c.Hosts()[0].Condition(); got != "ejected (server errors in a row)" {
		t.Fatalf("condition %q", got)
	}
	// A new version of the cluster remembers.
	next := New(outlierCluster(*conf0.Outlier, 4), c, opt)
	if got := shares(next, 100, &Choice{}); got[0] != 0 {
		t.Fatalf("forgotten: %v", got)
	}
	pass(next, clock, 12*time.Second)
	if got := shares(next, 300, &Choice{}); got[0] == 0 || got[1] == 0 {
		t.Fatalf("not back after their time: %v", got)
	}
	// Without outlier detection nobody stays ejected.
	fail(next, 0, 3, ServerError)
	if got := shares(New(cluster(conf.RoundRobin, 1, 1, 1, 1), next, opt), 100, &Choice{}); got[0] == 0 {
		t.Fatalf("ejected without outlier detection: %v", got)
	}
}

func TestEjectionsGrowAndAreForgiven(t *testing.T) {
	opt, clock := options()
	c := New(outlierCluster(conf.Outlier{Consecutive5xx: conf.Threshold{Count: 1, Enforce: 100}}, 3), nil, opt)
	c.Tick()
	out := func() (d time.Duration) {
		fail(c, 0, 1, ServerError)
		for c.Hosts()[0].ejected.Load() != 0 {
			pass(c, clock, time.Second)
			d += time.Second
		}
		return d
	}
	for i, want := range []time.Duration{10 * time.Second, 20 * time.Second, 25 * time.Second, 25 * time.Second} {
		if got := out(); got < want || got > want+2*time.Second {
			t.Fatalf("ejection %d lasted %s, want %s", i, got, want)
		}
	}
	pass(c, clock, 10*time.Second)
	if got := out(); got > 12*time.Second {
		t.Fatalf("after good conduct: %s", got)
	}
}

func TestLocalFailuresApart(t *testing.T) {
	opt, _ := options()
	c := New(outlierCluster(conf.Outlier{SplitLocalOrigin: true, Consecutive5xx: conf.Threshold{Count: 2, Enforce: 100},
		ConsecutiveLocalOrigin: conf.Threshold{Count: 4, Enforce: 100}, ConsecutiveGatewayError: conf.Threshold{Count: 3, Enforce: 100}}, 4), nil, opt)
	fail(c, 0, 3, Broken)
	if c.Hosts()[0].standing() != sound {
		t.Fatal("local failures counted as answers")
	}
	fail(c, 0, 1, Broken)
	if got := c.Hosts()[0].Condition(); got != "ejected (connections failed in a row)" {
		t.Fatal(got)
	}
}

func TestSuccessRate(t *testing.T) {
	opt, clock := options()
	rate := conf.RateThreshold{MinHosts: 3, MinVolume: 20, Limit: 1500, Enforce: 100}
	c := New(outlierCluster(conf.Outlier{SuccessRate: rate}, 6), nil, opt)
	c.Tick()
	for i := range 5 {
		fail(c, i, 50, Answered)
	}
	fail(c, 5, 25, Answered)
	fail(c, 5, 25, ServerError)
	fail(c, 4, 3, ServerError)
	pass(c, clock, time.Second)
	for i, h := range c.Hosts() {
		want := "healthy"
		if i == 5 {
			want = "ejected (success rate below the others')"
		}
		if got := h.Condition(); got != want {
			t.Errorf("host %d is %s, want %s", i, got, want)
		}
	}
	// Too few requests say nothing.
	c = New(outlierCluster(conf.Outlier{SuccessRate: rate}, 6), nil, opt)
	c.Tick()
	fail(c, 5, 19, ServerError)
	pass(c, clock, time.Second)
	if got := c.Hosts()[5].Condition(); got != "healthy" {
		t.Fatal(got)
	}
}

func TestFailurePercentage(t *testing.T) {
	opt, clock := options()
	c := New(outlierCluster(conf.Outlier{FailurePercentage: conf.RateThreshold{MinHosts: 2, MinVolume: 10, Limit: 40, Enforce: 100}}, 4), nil, opt)
	c.Tick()
	for i, failed := range []int{0, 39, 40, 100} {
		fail(c, i, 100-failed, Answered)
		fail(c, i, failed, ServerError)
	}
	pass(c, clock, time.Second)
	for i, want := range []standing{sound, sound, ejected, ejected} {
		if got := c.Hosts()[i].standing(); got != want {
			t.Errorf("host %d stands at %d, want %d", i, got, want)
		}
	}
}

func TestEnforcingIsAChance(t *testing.T) {
	opt, _ := options()
	gone := 0
	for range 2000 {
		c := New(outlierCluster(conf.Outlier{Consecutive5xx: conf.Threshold{Count: 1, Enforce: 30}}, 2), nil, opt)
		fail(c, 0, 1, ServerError)
		if c.Hosts()[0].standing() == ejected {
			gone++
		}
	}
	if gone < 500 || gone > 700 {
		t.Fatalf("%d of 2000 ejected, want 30%%", gone)
	}
}

func TestActiveChecks(t *testing.T) {
	opt, _ := options()
	c := New(cluster(conf.RoundRobin, 1, 1), nil, opt)
	c.Check(c.Hosts()[0], false, nil)
	if got := shares(c, 100, &Choice{}); got[0] != 0 {
		t.Fatalf("a host that fails its checks is used: %v", got)
	}
	if got := c.Hosts()[0].Condition(); got != "failing its health checks" {
		t.Fatal(got)
	}
	c.Check(c.Hosts()[0], true, nil)
	if got := shares(c, 100, &Choice{}); got[0] == 0 {
		t.Fatalf("not back: %v", got)
	}
}
