package balance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func cluster(policy conf.Balancing, weights ...uint32) *conf.Cluster {
	l := conf.Locality{}
	for i, w := range weights {
		l.Endpoints = append(l.Endpoints, &conf.Endpoint{Address: fmt.Sprintf("10.0.0.%d", i+1), Port: 80, Weight: w, Healthy: true})
	}
	return &conf.Cluster{Name: "c", Policy: policy, Localities: []conf.Locality{l}}
}

type fakeClock struct{ now time.Time }

func (c *fakeClock) Now() time.Time { return c.now }

func options() (Options, *fakeClock) {
	clock := &fakeClock{time.Unix(1000, 0)}
	r := rand.New(rand.NewPCG(1, 2))
	return Options{Now: clock.Now, Rand: r.Uint64}, clock
}

func shares(c *Cluster, n int, ch *Choice) []float64 {
	count := make([]float64, len(c.Hosts()))
	for range n {
		count[c.Pick(ch).Index]++
	}
	for i := range count {
		count[i] /= float64(n)
	}
	return count
}

func TestPoliciesKeepWeights(t *testing.T) {
	for _, policy := range []conf.Balancing{conf.RoundRobin, conf.LeastRequest, conf.Random, conf.Maglev, conf.PeakEWMA, conf.Probing} {
		for _, weights := range [][]uint32{{1, 1, 1}, {1, 2, 7}, {1, 100000}} {
			opt, _ := options()
			c := New(cluster(policy, weights...), nil, opt)
			total := 0.0
			for _, w := range weights {
				total += float64(w)
			}
			for i, got := range shares(c, 20000, &Choice{}) {
				if want := float64(weights[i]) / total; math.Abs(got-want) > 0.02 {
					t.Errorf("policy %d weights %v: host %d got %.3f, want %.3f", policy, weights, i, got, want)
				}
			}
		}
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	opt, _ := options()
	c := New(cluster(conf.RoundRobin, 3, 1), nil, opt)
	last, run := -1, 0
	for range 40 {
		h := c.Pick(&Choice{})
		if h.Index == last {
			run++
		} else {
			last, run = h.Index, 1
		}
		if run > 3 {
			t.Fatalf("host %d has %d turns in a row", last, run)
		}
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	opt, _ := options()
	c := New(cluster(conf.LeastRequest, 1, 1), nil, opt)
	c.Hosts()[0].Begin()
	if got := shares(c, 4000, &Choice{}); got[0] > 0.3 {
		t.Fatalf("the busy host got %.2f", got[0])
	}
}

func TestHashingMovesOnlyWhatItMust(t *testing.T) {
	opt, _ := options()
	before := New(cluster(conf.RingHash, 1, 1, 1, 1), nil, opt)
	after := New(cluster(conf.RingHash, 1, 1, 1), before, opt)
	for key := range uint64(2000) {
		ch := &Choice{Hash: key * 0x9e3779b97f4a7c15, Hashed: true}
		a, b := before.Pick(ch), after.Pick(ch)
		if a.Index != 3 && a.Endpoint.Address != b.Endpoint.Address {
			t.Fatalf("key %d moved from %s to %s", key, a.Endpoint.Address, b.Endpoint.Address)
		}
	}
}

func TestFailureToConnectLeavesTheHostAndProbesAlone(t *testing.T) {
	opt, clock := options()
	c := New(cluster(conf.RoundRobin, 1, 1, 1), nil, opt)
	bad := c.Hosts()[1]
	c.Report(bad, ConnectFailed, 0, errors.New("connection refused"))
	if got := shares(c, 300, &Choice{}); got[1] != 0 {
		t.Fatalf("got %v at once", got)
	}
	if f := bad.LastFailure(); f == nil || f.Text != "connection refused" {
		t.Fatalf("last failure %v", f)
	}
	clock.now = clock.now.Add(firstProbe)
	if got := shares(c, 300, &Choice{}); got[1] != 1.0/300 {
		t.Fatalf("got %v where one probe was due", got)
	}
	c.Report(bad, Answered, 0, nil)
	if got := shares(c, 300, &Choice{}); got[1] < 0.3 {
		t.Fatalf("got %v after recovery", got)
	}
}

func TestOnlySuspectsLeftAreTried(t *testing.T) {
	opt, _ := options()
	c := New(cluster(conf.RoundRobin, 1, 1), nil, opt)
	for _, h := range c.Hosts() {
		c.Report(h, ConnectFailed, 0, errors.New("no"))
	}
	if c.Pick(&Choice{}) == nil {
		t.Fatal("gave up without trying")
	}
}

func TestAvoidPrefersOthers(t *testing.T) {
	opt, _ := options()
	c := New(cluster(conf.Random, 1, 1), nil, opt)
	ch := &Choice{Failed: []*Host{c.Hosts()[0]}}
	if got := shares(c, 200, ch); got[0] != 0 {
		t.Fatalf("got %v", got)
	}
	ch.Failed = c.Hosts()
	if c.Pick(ch) == nil {
		t.Fatal("gave up where a second try on the same host is possible")
	}
}

func TestPriorityAndPanic(t *testing.T) {
	opt, _ := options()
	conf0 := cluster(conf.RoundRobin, 1, 1)
	spare := cluster(conf.RoundRobin, 1)
	spare.Localities[0].Priority = 1
	spare.Localities[0].Endpoints[0].Address = "10.1.0.1"
	conf0.Localities = append([]conf.Locality{spare.Localities[0]}, conf0.Localities...)
	c := New(conf0, nil, opt)
	if got := shares(c, 100, &Choice{}); got[0] != 0 {
		t.Fatalf("the spare was used: %v", got)
	}
	for _, e := range conf0.Localities[1].Endpoints {
		e.Healthy = false
	}
	if got := shares(New(conf0, nil, opt), 100, &Choice{}); got[0] != 1 {
		t.Fatalf("the spare was not used: %v", got)
	}
	// A sound priority is left: that is no panic.
	conf0.PanicThreshold = 0.5
	if got := shares(New(conf0, nil, opt), 100, &Choice{}); got[0] != 1 {
		t.Fatalf("panic, though the spare is sound: %v", got)
	}
	conf0.Localities[0].Endpoints[0].Healthy = false
	if got := shares(New(conf0, nil, opt), 3000, &Choice{}); math.Abs(got[0]-1./3) > 0.05 {
		t.Fatalf("in total panic all hosts are used alike: %v", got)
	}
	conf0.PanicThreshold = 0
	if h := New(conf0, nil, opt).Pick(&Choice{}); h != nil {
		t.Fatalf("picked %v without panic", h.Endpoint)
	}
}

func TestNoUsableHost(t *testing.T) {
	opt, _ := options()
	conf0 := cluster(conf.RoundRobin, 1)
	conf0.Localities[0].Endpoints[0].Healthy = false
	if h := New(conf0, nil, opt).Pick(&Choice{}); h != nil {
		t.Fatalf("picked %v", h.Endpoint)
	}
	if h := New(&conf.Cluster{}, nil, opt).Pick(&Choice{}); h != nil {
		t.Fatalf("picked %v", h.Endpoint)
	}
}
