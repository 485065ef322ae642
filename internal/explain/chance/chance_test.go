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
		all   []chance.Endpoints
		again chance.Again
		want  float64
	}{
		{[]chance.Endpoints{good, bad}, chance.Again{}, .6},
		{[]chance.Endpoints{good, bad}, chance.Again{Times: 2}, .1},
		{[]chance.Endpoints{good, bad}, chance.Again{Times: 3}, 0},
		{[]chance.Endpoints{good, last}, chance.Again{Times: 3}, .6},
		{[]chance.Endpoints{bad}, chance.Again{Times: 8}, 1},
		// Another priority comes when this one is through, or at once.
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 2}, 1},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 3}, 0},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 1, Elsewhere: true}, 0},
		// The proxy remembers four endpoints: the fifth attempt may come to the fifth bad one again.
		{[]chance.Endpoints{{Share: .1, Fails: true, Retried: true, Count: 5}, {Share: .5, Count: 1}}, chance.Again{Times: 6}, .5 * .4 / .9 * .3 / .8 * .2 / .7 * math.Pow(.1/.6, 3)},
		// An endpoint that has failed the request may get it again.
		{[]chance.Endpoints{good, bad}, chance.Again{Times: 2, SameHosts: true}, .6 * .6 * .6},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 5, SameHosts: true}, 1},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 1, SameHosts: true, Elsewhere: true}, 0},
	} {
		if got := chance.Failing(c.all, c.again); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v, %+v: %v, want %v", c.all, c.again, got, c.want)
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
		again, failed := chance.Again{Times: r.IntN(4), SameHosts: r.IntN(3) == 0}, 0
		for range requests {
			if fails(b, all, again) {
				failed++
			}
		}
		if got, want := float64(failed)/requests, chance.Failing(all, again); math.Abs(got-want) > .02 {
			t.Errorf("%+v, %+v: the balancer's fail in %.3f, computed %.3f", all, again, got, want)
		}
	}
}

// fails makes the attempts of one request.
func fails(b *balance.Cluster, all []chance.Endpoints, again chance.Again) bool {
	choice := balance.Choice{SameHosts: again.SameHosts}
	for range again.Times + 1 {
		h := b.Pick(&choice)
		switch e := all[h.Index]; {
		case !e.Fails:
			return false
		case !e.Retried:
			return true
		}
		choice.Failed = append(choice.Failed, h)
	}
	return true
}
