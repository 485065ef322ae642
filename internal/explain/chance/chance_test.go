package chance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/explain/chance"
	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

func TestFailing(t *testing.T) {
	good, bad, last := chance.Endpoints{Share: .2, Count: 2}, chance.Endpoints{Share: .2, Fails: true, Retried: true, Count: 3}, chance.Endpoints{Share: .2, Fails: true, Count: 3}
	shunned := bad
	shunned.Shunned = true
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
		// Another priority comes when this one is through and cannot be connected to, or at once where it is asked for.
		{[]chance.Endpoints{shunned, {Priority: 1, Count: 1}}, chance.Again{Times: 2}, 1},
		{[]chance.Endpoints{shunned, {Priority: 1, Count: 1}}, chance.Again{Times: 3}, 0},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 3}, 1},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 1, Elsewhere: true}, 0},
		// The proxy remembers four endpoints: the fifth attempt may come to the fifth bad one again.
		{[]chance.Endpoints{{Share: .1, Fails: true, Retried: true, Count: 5}, {Share: .5, Count: 1}}, chance.Again{Times: 6}, .5 * .4 / .9 * .3 / .8 * .2 / .7 * math.Pow(.1/.6, 3)},
		// An endpoint that has failed the request may get it again.
		{[]chance.Endpoints{good, bad}, chance.Again{Times: 2, SameHosts: true}, .6 * .6 * .6},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 5, SameHosts: true}, 1},
		{[]chance.Endpoints{bad, {Priority: 1, Count: 1}}, chance.Again{Times: 1, SameHosts: true, Elsewhere: true}, 0},
		{[]chance.Endpoints{good, shunned}, chance.Again{Times: 2, SameHosts: true}, .1},
		{[]chance.Endpoints{good, bad}, chance.Again{Times: 2, SameHosts: true, Bound: true}, .6},
		{[]chance.Endpoints{good, shunned}, chance.Again{Times: 2, SameHosts: true, Bound: true}, .1},
	} {
		if got, _ := chance.Failing(c.all, c.again); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v, %+v: %v, want %v", c.all, c.again, got, c.want)
		}
	}
}

func TestWhereRequestsEnd(t *testing.T) {
	bad, last := chance.Endpoints{Share: .5, Fails: true, Retried: true, Count: 1}, chance.Endpoints{Share: .5, Fails: true, Count: 1}
	fifth := chance.Endpoints{Share: .2, Fails: true, Retried: true, Count: 1}
	for _, c := range []struct {
		all   []chance.Endpoints
		again chance.Again
		want  []float64
	}{
		{[]chance.Endpoints{bad, last}, chance.Again{}, []float64{.5, .5}},
		{[]chance.Endpoints{bad, last}, chance.Again{Times: 1}, []float64{0, 1}},
		{[]chance.Endpoints{bad, last}, chance.Again{Times: 2, SameHosts: true}, []float64{.125, .875}},
		{[]chance.Endpoints{bad, last}, chance.Again{Times: 2, SameHosts: true, Bound: true}, []float64{.5, .5}},
		{[]chance.Endpoints{bad, bad}, chance.Again{Times: math.MaxInt32}, []float64{.5, .5}},
		// Five are more than are remembered.
		{[]chance.Endpoints{fifth, fifth, fifth, fifth, {Share: .2, Fails: true, Count: 1}}, chance.Again{Times: 4}, []float64{0, 0, 0, 0, 1}},
		{[]chance.Endpoints{fifth, fifth, fifth, fifth, fifth, {Priority: 1, Fails: true, Count: 1}}, chance.Again{Times: math.MaxInt32}, []float64{.2, .2, .2, .2, .2, 0}},
	} {
		share, at := chance.Failing(c.all, c.again)
		sum := 0.0
		for i := range at {
			if sum += at[i]; math.Abs(at[i]-c.want[i]) > 1e-9 || (at[i] == 0) != (c.want[i] == 0) {
				t.Errorf("%+v, %+v: %v, want %v", c.all, c.again, at, c.want)
				break
			}
		}
		if math.Abs(sum-share) > 1e-9 {
			t.Errorf("%+v, %+v: %v are not %v together", c.all, c.again, at, share)
		}
	}
}

// TestAsTheBalancer has requests make their attempts by the proxy's own balancer.
func TestAsTheBalancer(t *testing.T) {
	const requests = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		c, all := &conf.Cluster{Policy: conf.Random}, []chance.Endpoints{}
		localities := make([]conf.Locality, 1+r.IntN(3))
		for i := range localities {
			localities[i] = conf.Locality{Weight: 1, Priority: uint32(i)}
		}
		for i := range 2 + r.IntN(6) {
			l := &localities[i%len(localities)]
			l.Endpoints = append(l.Endpoints, &conf.Endpoint{Address: fmt.Sprintf("10.0.0.%d", i), Port: 80, Weight: 1, Healthy: true})
		}
		c.Localities = localities
		b := balance.New(c, nil, balance.Options{Rand: r.Uint64})
		shares := b.Shares()
		for i, h := range b.Hosts() {
			l := slices.IndexFunc(localities, func(l conf.Locality) bool { return slices.Contains(l.Endpoints, h.Endpoint) })
			e := chance.Endpoints{Share: shares[i], Priority: uint32(l), Fails: r.IntN(2) == 0, Retried: r.IntN(3) > 0, Count: 1}
			e.Shunned = e.Fails && e.Retried && len(localities) == 1 && r.IntN(2) == 0 // how much other priorities take then is not computed
			all = append(all, e)
		}
		// As many failures as the proxy remembers.
		again := chance.Again{Times: r.IntN(5), SameHosts: r.IntN(3) == 0, Elsewhere: r.IntN(3) == 0}
		failed, ended := 0, make([]int, len(all))
		for range requests {
			if at, fails := end(b, all, again); fails {
				failed++
				ended[at]++
			}
		}
		share, at := chance.Failing(all, again)
		if got := float64(failed) / requests; math.Abs(got-share) > .02 {
			t.Errorf("%+v, %+v: the balancer's fail in %.3f, computed %.3f", all, again, got, share)
		}
		for i := range at {
			if got := float64(ended[i]) / requests; math.Abs(got-at[i]) > .02 || at[i] == 0 && ended[i] > 0 {
				t.Errorf("%+v, %+v: the balancer's end in %.3f at %d, computed %.3f", all, again, got, i, at[i])
			}
		}
	}
}

// end makes the attempts of one request, and says where the last one came, and whether it failed.
func end(b *balance.Cluster, all []chance.Endpoints, again chance.Again) (at int, failed bool) {
	choice := balance.Choice{SameHosts: again.SameHosts, Elsewhere: again.Elsewhere}
	for range again.Times + 1 {
		h := b.Pick(&choice)
		switch e := all[h.Index]; {
		case !e.Fails:
			return h.Index, false
		case !e.Retried:
			return h.Index, true
		case e.Shunned:
			b.Report(h, balance.ConnectFailed, 0, nil)
			defer b.Reached(h)
		}
		at = h.Index
		choice.Failed = append(choice.Failed, h)
	}
	return at, true
}
