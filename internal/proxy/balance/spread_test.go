package balance

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// localities makes a cluster of localities with two endpoints each.
func localities(priorities ...uint32) *conf.Cluster {
	c := &conf.Cluster{Name: "c", Policy: conf.Random}
	for i, p := range priorities {
		l := conf.Locality{Region: fmt.Sprint("r", i), Priority: p}
		for n := range 2 {
			l.Endpoints = append(l.Endpoints, &conf.Endpoint{Address: fmt.Sprintf("10.0.%d.%d", i, n), Port: 80, Weight: 1, Healthy: true})
		}
		c.Localities = append(c.Localities, l)
	}
	return c
}

func near(t *testing.T, what string, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Abs(got[i]-want[i]) > 0.02 {
			t.Errorf("%s: got %.3f, want %.3f", what, got, want)
			return
		}
	}
}

// The numbers are those of the table in Envoy's documentation of priority levels: 50 % of a priority sound means 70 % of the load.
func TestFailoverIsGradual(t *testing.T) {
	opt, _ := options()
	conf0 := localities(0, 1)
	conf0.Localities[0].Endpoints[1].Healthy = false
	near(t, "half of the first", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0.7, 0, 0.15, 0.15})
	conf0.Overprovisioning = 100
	near(t, "no overprovisioning", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0.5, 0, 0.25, 0.25})
	conf0.Localities[0].Endpoints[0].Healthy = false
	near(t, "none of the first", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0, 0, 0.5, 0.5})
	conf0 = localities(0, 1, 2)
	for i := range 3 {
		conf0.Localities[i].Endpoints[1].Healthy = false
	}
	near(t, "half of all", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0.7, 0, 0.3, 0, 0, 0})
}

func TestFirstRefusalLeavesThePriority(t *testing.T) {
	opt, _ := options()
	c := New(localities(0, 1), nil, opt)
	for _, h := range c.Hosts()[:2] {
		c.Report(h, ConnectFailed, 0, errors.New("connection refused"))
	}
	near(t, "both refused", shares(c, 5000, &Choice{}), []float64{0, 0, 0.5, 0.5})
}

func TestDegradedAreSecondChoice(t *testing.T) {
	opt, _ := options()
	conf0 := localities(0)
	conf0.Localities[0].Endpoints[1].Degraded = true
	near(t, "one sound", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0.7, 0.3})
	conf0.Localities[0].Endpoints[0].Healthy = false
	near(t, "none sound", shares(New(conf0, nil, opt), 1000, &Choice{}), []float64{0, 1})
}

func TestDrainingGetsNoWork(t *testing.T) {
	opt, _ := options()
	conf0 := localities(0, 1)
	e := conf0.Localities[0].Endpoints[0]
	e.Healthy, e.Draining = false, true
	// It is no loss either: nothing goes to the next priority.
	near(t, "draining", shares(New(conf0, nil, opt), 1000, &Choice{}), []float64{0, 1, 0, 0})
}

func TestLocalityWeights(t *testing.T) {
	opt, _ := options()
	conf0 := localities(0, 0)
	conf0.LocalityWeighted = true
	conf0.Localities[0].Weight, conf0.Localities[1].Weight = 80, 20
	near(t, "80 to 20", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{0.4, 0.4, 0.1, 0.1})
	conf0.Localities[0].Endpoints[1].Healthy = false
	// 80 x 0.7 to 20.
	near(t, "half of the first", shares(New(conf0, nil, opt), 30000, &Choice{}), []float64{56. / 76, 0, 10. / 76, 10. / 76})
	conf0.Policy = conf.Maglev
	conf0.Localities[0].Endpoints[1].Healthy = true
	count := map[string]float64{}
	for _, o := range owners(New(conf0, nil, opt), 20000) {
		count[o] += 1. / 20000
	}
	near(t, "hashed", []float64{count["10.0.0.0"], count["10.0.1.0"]}, []float64{0.4, 0.1})
}

func TestSlowStart(t *testing.T) {
	opt, clock := options()
	for _, policy := range []conf.Balancing{conf.RoundRobin, conf.LeastRequest} {
		conf0 := cluster(policy, 1, 1, 1)
		conf0.SlowStart = &conf.SlowStart{Window: 100 * time.Second, Aggression: 1, MinWeight: 0.1}
		old := cluster(policy, 1, 1)
		old.SlowStart = conf0.SlowStart
		c := New(conf0, New(old, nil, opt), opt)
		for _, step := range []struct {
			after time.Duration
			want  float64 // weight of the new one
		}{{0, 0.1}, {50 * time.Second, 0.5}, {25 * time.Second, 0.75}, {30 * time.Second, 1}} {
			clock.now = clock.now.Add(step.after)
			near(t, fmt.Sprint("policy ", policy, " weight ", step.want), shares(c, 30000, &Choice{}),
				[]float64{1 / (2 + step.want), 1 / (2 + step.want), step.want / (2 + step.want)})
		}
		if c.shared.warmUntil.Load() != 0 {
			t.Error("warm, and looked at still")
		}
	}
}

func TestSlowStartAfterRecovery(t *testing.T) {
	opt, clock := options()
	conf0 := cluster(conf.RoundRobin, 1, 1)
	conf0.SlowStart = &conf.SlowStart{Window: 100 * time.Second, Aggression: 2, MinWeight: 0}
	c := New(conf0, nil, opt)
	near(t, "together", shares(c, 1000, &Choice{}), []float64{0.5, 0.5})
	c.Check(c.Hosts()[0], false, nil)
	c.Check(c.Hosts()[0], true, nil)
	clock.now = clock.now.Add(25 * time.Second)
	near(t, "a quarter, root 2", shares(c, 30000, &Choice{}), []float64{1. / 3, 2. / 3})
}

// simulate sends requests one after the other; latency gives what a host takes and whether it fails.
func simulate(c *Cluster, clock *fakeClock, n int, latency func(i int) (time.Duration, Outcome)) []float64 {
	count := make([]float64, len(c.Hosts()))
	for range n {
		h := c.Pick(&Choice{})
		h.Begin()
		took, o := latency(h.Index)
		clock.now = clock.now.Add(5 * time.Millisecond)
		c.Report(h, o, took, nil)
		h.End()
		count[h.Index] += 1 / float64(n)
	}
	return count
}

func TestLatencyDecides(t *testing.T) {
	for _, policy := range []conf.Balancing{conf.PeakEWMA, conf.Probing} {
		opt, clock := options()
		c := New(cluster(policy, 1, 1, 1, 1), nil, opt)
		slow := func(i int) (time.Duration, Outcome) {
			if i == 0 {
				return 100 * time.Millisecond, Answered
			}
			return 10 * time.Millisecond, Answered
		}
		simulate(c, clock, 500, slow)
		if got := simulate(c, clock, 4000, slow); got[0] > 0.15 {
			t.Errorf("policy %d: the slow host has %.2f", policy, got[0])
		}
		// It recovers, and is found again.
		even := func(int) (time.Duration, Outcome) { return 10 * time.Millisecond, Answered }
		simulate(c, clock, 20000, even)
		if got := simulate(c, clock, 4000, even); policy == conf.PeakEWMA && got[0] < 0.1 {
			t.Errorf("policy %d: the host that recovered has %.2f", policy, got[0])
		}
	}
}

func TestFastErrorsDoNotAttract(t *testing.T) {
	for _, policy := range []conf.Balancing{conf.PeakEWMA, conf.Probing} {
		opt, clock := options()
		c := New(cluster(policy, 1, 1, 1, 1), nil, opt)
		broken := func(i int) (time.Duration, Outcome) {
			if i == 0 {
				return 100 * time.Microsecond, GatewayError
			}
			return 20 * time.Millisecond, Answered
		}
		if got := simulate(c, clock, 8000, broken); got[0] > 0.1 {
			t.Errorf("policy %d: the host with fast errors has %.2f", policy, got[0])
		}
	}
}

func TestBusyHostsAreLeft(t *testing.T) {
	for _, policy := range []conf.Balancing{conf.PeakEWMA, conf.Probing} {
		opt, clock := options()
		c := New(cluster(policy, 1, 1, 1, 1), nil, opt)
		simulate(c, clock, 1000, func(int) (time.Duration, Outcome) { return 10 * time.Millisecond, Answered })
		for range 50 {
			c.Hosts()[2].Begin()
		}
		if got := simulate(c, clock, 4000, func(int) (time.Duration, Outcome) { return 10 * time.Millisecond, Answered }); got[2] > 0.05 {
			t.Errorf("policy %d: the busy host has %.2f", policy, got[2])
		}
	}
}

var policies = []conf.Balancing{conf.RoundRobin, conf.LeastRequest, conf.Random, conf.RingHash, conf.Maglev, conf.PeakEWMA, conf.Probing}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, policy := range policies {
		conf0 := cluster(policy, 1, 2, 3)
		conf0.SlowStart = &conf.SlowStart{Window: time.Hour, Aggression: 1, MinWeight: 0.1}
		c := New(conf0, New(cluster(policy, 1, 2), nil, Options{}), Options{})
		failed := []*Host{c.Hosts()[0]}
		for _, ch := range []*Choice{{Hash: 7, Hashed: true}, {}, {Failed: failed}} {
			if n := testing.AllocsPerRun(100, func() { c.Pick(ch) }); n != 0 {
				t.Errorf("policy %d: %v allocations", policy, n)
			}
		}
	}
}

// A thousand endpoints of which some change at every choice: nothing that is known to be out is chosen while others are in.
func TestFlapping(t *testing.T) {
	for _, policy := range policies {
		opt, clock := options()
		c := New(cluster(policy, slices.Repeat([]uint32{1}, 1000)...), nil, opt)
		for i := range 20000 {
			clock.now = clock.now.Add(20 * time.Microsecond)
			h := c.Hosts()[opt.Rand()%1000]
			c.Check(h, opt.Rand()%2 == 0, nil)
			got := c.Pick(&Choice{Hash: uint64(i), Hashed: true})
			if got == nil || got.standing() != sound {
				t.Fatalf("policy %d: choice %d fell on %v", policy, i, got)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, hosts := range []int{3, 1000} {
		for _, policy := range policies {
			b.Run(fmt.Sprintf("hosts=%d/policy=%d", hosts, policy), func(b *testing.B) {
				c := New(cluster(policy, slices.Repeat([]uint32{1}, hosts)...), nil, Options{})
				ch := &Choice{Hashed: true}
				b.ReportAllocs()
				for b.Loop() {
					ch.Hash++
					c.Pick(ch)
				}
			})
		}
	}
}

func BenchmarkPickFlapping(b *testing.B) {
	c := New(cluster(conf.LeastRequest, slices.Repeat([]uint32{1}, 1000)...), nil, Options{})
	ch := &Choice{}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		c.Check(c.Hosts()[n%1000], n%3 == 0, nil)
		c.Pick(ch)
	}
}

// A repetition goes to priorities in which it has not failed yet; after the last of them it begins anew.
func TestElsewhere(t *testing.T) {
	opt, _ := options()
	c := New(localities(0, 0, 1, 2), nil, opt)
	h := c.Hosts()
	near(t, "the first priority has failed", shares(c, 5000, &Choice{Elsewhere: true, Failed: h[:1]}), []float64{0, 0, 0, 0, 0.5, 0.5, 0, 0})
	near(t, "the second too", shares(c, 5000, &Choice{Elsewhere: true, Failed: []*Host{h[0], h[5]}}), []float64{0, 0, 0, 0, 0, 0, 0.5, 0.5})
	near(t, "all have", shares(c, 5000, &Choice{Elsewhere: true, Failed: []*Host{h[0], h[5], h[6]}}), []float64{0, 1. / 3, 1. / 3, 1. / 3, 0, 0, 0, 0})
	near(t, "not wanted", shares(c, 5000, &Choice{Failed: h[:1]}), []float64{0, 1. / 3, 1. / 3, 1. / 3, 0, 0, 0, 0})
	c.Report(h[4], ConnectFailed, 0, errors.New("connection refused"))
	near(t, "an unsound one of the second", shares(c, 5000, &Choice{Elsewhere: true, Failed: h[:1]}), []float64{0, 0, 0, 0, 0, 1, 0, 0})
}
