package chance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/weftmesh/weft/internal/explain/chance"
	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

func TestFailing(t *testing.T) {
	good, bad, last := chance.Endpoints{Share: .2, Count: 2}, chance.Endpoints{Share: .2, Fails: true, Retried: true, Count: 3}, chance.Endpoints{Share: .2, Fails: true, Count: 3}
	for _, c := range []struct {
		all       []chance.Endpoints
		attempts  int
		elsewhere bool
		want      float64
	}{
		{[]chance.Endpoints{good, bad}, 1, false, .6},
		{[]chance.Endpoints{good, bad}, 3, false, .1},
		{[]chance.Endpoints{good, bad}, 4, false, 0},
		{[]chance.Endpoints{good, last}, 4, false, .6},
		{[]chance.Endpoints{bad}, 9, false, 1},
		// Another priority comes when this one is through, or at once.
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, 3, false, 1},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, 4, false, 0},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, 2, true, 0},
		// The proxy remembers four endpoints: the fifth attempt may come to the fifth bad one again.
		{[]chance.Endpoints{{Share: .1, Fails: true, Retried: true, Count: 5}, {Share: .5, Count: 1}}, 7, false, .5 * .4 / .9 * .3 / .8 * .2 / .7 * math.Pow(.1/.6, 3)},
	} {
		if got := chance.Failing(c.all, c.attempts, c.elsewhere); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v, %d attempts: %v, want %v", c.all, c.attempts, got, c.want)
		}
	}
}

// TestAsTheBalancer has requests make their attempts by the proxy's own balancer.
func TestAsTheBalancer(t *testing.T) {
	const requests = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		c, all := &conf.Cluster{Policy: conf.Random}, []chance.Endpoints{}
		l := conf.Locality{Weight: 1}
		for i := range 2 + r.IntN(6) {
			l.Endpoints = append(l.Endpoints, &conf.Endpoint{Address: fmt.Sprintf("10.0.0.%d", i), Port: 80, Weight: 1, Healthy: true})
			all = append(all, chance.Endpoints{Fails: r.IntN(2) == 0, Retried: r.IntN(3) > 0, Count: 1})
		}
		c.Localities = []conf.Locality{l}
		b := balance.New(c, nil, balance.Options{Rand: r.Uint64})
		for i, share := range b.Shares() {
			all[i].Share = share
		}
		attempts, failed := 1+r.IntN(4), 0
		for range requests {
			if fails(b, all, attempts) {
				failed++
			}
		}
		if got, want := float64(failed)/requests, chance.Failing(all, attempts, false); math.Abs(got-want) > .02 {
			t.Errorf("%+v, %d attempts: the balancer's fail in %.3f, computed %.3f", all, attempts, got, want)
		}
	}
}

// fails makes the attempts of one request.
func fails(b *balance.Cluster, all []chance.Endpoints, attempts int) bool {
	var choice balance.Choice
	for range attempts {
		h := b.Pick(&choice)
		switch e := all[h.Index]; {
		case !e.Fails:
			return false
		case !e.Retried:
			return true
		}
		choice.Avoid = append(choice.Avoid, h)
	}
	return true
}
