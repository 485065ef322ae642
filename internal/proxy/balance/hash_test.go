package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func owners(c *Cluster, keys int) []string {
	list := make([]string, keys)
	for k := range list {
		list[k] = c.Pick(&Choice{Hash: uint64(k) * 0x9e3779b97f4a7c15, Hashed: true}).Endpoint.Address
	}
	return list
}

var hashing = map[string]conf.Balancing{"ring": conf.RingHash, "maglev": conf.Maglev}

func TestHashingKeepsShares(t *testing.T) {
	for name, policy := range hashing {
		opt, _ := options()
		weights := []uint32{1, 2, 3, 4}
		conf0 := cluster(policy, weights...)
		conf0.Balance.MinRing = 100_000 // points enough for narrow bounds
		count := map[string]float64{}
		for _, o := range owners(New(conf0, nil, opt), 20000) {
			count[o] += 1. / 20000
		}
		for i, w := range weights {
			if got, want := count[conf0.Localities[0].Endpoints[i].Address], float64(w)/10; math.Abs(got-want) > 0.02 {
				t.Errorf("%s: host %d has %.3f of the keys, want %.3f", name, i, got, want)
			}
		}
	}
}

// Of n hosts one leaves: its keys move, and few others.
func TestHashingMovesLittle(t *testing.T) {
	const keys, hosts = 20000, 20
	for name, policy := range hashing {
		opt, _ := options()
		all := cluster(policy, slices.Repeat([]uint32{1}, hosts)...)
		less := cluster(policy, slices.Repeat([]uint32{1}, hosts)...)
		gone := less.Localities[0].Endpoints[7].Address
		less.Localities[0].Endpoints = slices.Delete(less.Localities[0].Endpoints, 7, 8)
		before, after := owners(New(all, nil, opt), keys), owners(New(less, nil, opt), keys)
		moved := 0
		for k := range before {
			if before[k] != gone && before[k] != after[k] {
				moved++
			}
		}
		// A ring moves nothing else. Maglev's tables move a few percent (its section 5.3).
		limit := map[string]int{"ring": 0, "maglev": keys * 3 / 100}[name]
		if moved > limit {
			t.Errorf("%s: %d of %d keys of other hosts moved, want at most %d", name, moved, keys, limit)
		}
	}
}

// A host that is only out of use moves its own keys, under both policies, and gets them back.
func TestHashingPassesOver(t *testing.T) {
	for name, policy := range hashing {
		opt, _ := options()
		c := New(cluster(policy, slices.Repeat([]uint32{1}, 10)...), nil, opt)
		before := owners(c, 5000)
		out := c.Hosts()[3]
		c.Check(out, false, nil)
		for k, o := range owners(c, 5000) {
			if o == out.Endpoint.Address || before[k] != out.Endpoint.Address && before[k] != o {
				t.Fatalf("%s: key %d went from %s to %s while %s was out", name, k, before[k], o, out.Endpoint.Address)
			}
		}
		c.Check(out, true, nil)
		if !slices.Equal(before, owners(c, 5000)) {
			t.Errorf("%s: keys did not come back", name)
		}
	}
}

func TestTablesAreTheSameEverywhere(t *testing.T) {
	want := map[string]string{"ring": "10.0.0.1 10.0.0.2 10.0.0.4 10.0.0.4 10.0.0.5 10.0.0.1", "maglev": "10.0.0.2 10.0.0.1 10.0.0.4 10.0.0.5 10.0.0.3 10.0.0.1"}
	for name, policy := range hashing {
		one := cluster(policy, 1, 1, 1, 1, 1)
		other := cluster(policy, 1, 1, 1, 1, 1)
		slices.Reverse(other.Localities[0].Endpoints)
		a, b := owners(New(one, nil, Options{}), 5000), owners(New(other, nil, Options{}), 5000)
		if !slices.Equal(a, b) {
			t.Errorf("%s: the table depends on the order of the endpoints", name)
		}
		// Written down, so that it is the same tomorrow and in another process.
		got := fmt.Sprint(a[:6])
		if got != "["+want[name]+"]" {
			t.Errorf("%s: got %s, want [%s]: proxies of different versions would disagree", name, got, want[name])
		}
	}
}

func TestSizesAreKept(t *testing.T) {
	opt, _ := options()
	ring := cluster(conf.RingHash, 1, 1, 1)
	ring.Balance.MinRing = 5000
	if n := len(New(ring, nil, opt).levels[0].table.points); n < 5000 || n > 4*5000 {
		t.Errorf("ring of %d, want 5000", n)
	}
	table := cluster(conf.Maglev, 1, 1, 1)
	table.Balance.Table = 251
	if n := len(New(table, nil, opt).levels[0].table.slots); n != 251 {
		t.Errorf("table of %d, want 251", n)
	}
}

func BenchmarkMaglevTable(b *testing.B) {
	conf0 := cluster(conf.Maglev, slices.Repeat([]uint32{1}, 1000)...)
	for b.Loop() {
		New(conf0, nil, Options{})
	}
}
