package balance

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// table maps hashes to the hosts of one priority. It depends on the addresses and weights of the hosts alone, not on their order,
// their health, the process or the time: every proxy has the same one. Hosts that cannot be used are passed over at lookup,
// which moves their own keys and no others.
type table struct {
	hosts []*Host // sorted by address
	share []float64
	// For Maglev: a host for each slot. For a ring: points, and the host of each.
	slots  []uint16
	points []uint64
}

// Envoy's defaults, but for the largest ring.
const (
	minRing, maxRing = 1024, 1 << 20
	maglevTable      = 65537
	// maxHashed is what a slot can name.
	maxHashed = math.MaxUint16
)

// makeTables builds the table of each priority; one of the previous version's that has the same hosts is used again.
func (c *Cluster) makeTables(previous *Cluster) {
	for i := range c.levels {
		g := &c.levels[i]
		t := newTable(g, c.conf.LocalityWeighted)
		if previous != nil && i < len(previous.levels) && previous.conf.Policy == c.conf.Policy && previous.conf.Balance == c.conf.Balance {
			if was := previous.levels[i].table; was != nil && t.alike(was) {
				t.slots, t.points = was.slots, was.points
			}
		}
		if t.slots == nil {
			t.fill(c.conf)
		}
		g.table = t
	}
}

const few, fewPoints = 32, 512

// newTable sorts the hosts and finds each one's share.
func newTable(g *level, byLocality bool) *table {
	type part struct {
		host   *Host
		weight float64
	}
	var parts []part
	total := 0.0
	for _, l := range g.places {
		sum := 0.0
		for _, h := range l.hosts {
			sum += float64(h.weight)
		}
		for _, h := range l.hosts {
			w := float64(h.weight)
			if byLocality {
				w *= float64(l.conf.Weight) / sum
			}
			if w > 0 {
				parts = append(parts, part{h, w})
				total += w
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.host.Endpoint.Address, b.host.Endpoint.Address), cmp.Compare(a.host.Endpoint.Port, b.host.Endpoint.Port))
	})
	parts = parts[:min(len(parts), maxHashed)]
	t := &table{}
	for _, p := range parts {
		t.hosts, t.share = append(t.hosts, p.host), append(t.share, p.weight/total)
	}
	return t
}

func (t *table) alike(o *table) bool {
	return slices.Equal(t.share, o.share) && slices.EqualFunc(t.hosts, o.hosts, func(a, b *Host) bool { return keyOf(a.Endpoint) == keyOf(b.Endpoint) })
}

func (t *table) fill(c *conf.Cluster) {
	switch {
	case len(t.hosts) == 0:
	case c.Policy == conf.RingHash:
		t.ring(cmp.Or(c.Balance.MinRing, minRing), cmp.Or(c.Balance.MaxRing, maxRing))
	default:
		t.maglev(int(cmp.Or(c.Balance.Table, maglevTable)))
	}
}

// ring gives each host points in proportion to its weight, in all at least low where high allows. The lightest gets a power of two,
// and in small clusters the same one whatever the number of hosts: a change moves keys between hosts that stay.
func (t *table) ring(low, high uint64) {
	least := slices.Min(t.share)
	if len(t.hosts) <= few {
		low = max(low, uint64(fewPoints/least))
	}
	scale := min(math.Exp2(math.Ceil(math.Log2(max(least*float64(low), 1))))/least, float64(high))
	type point struct {
		at   uint64
		host uint16
	}
	var points []point
	for i, h := range t.hosts {
		base := hashOf(h.Endpoint)
		for n := range max(1, uint64(math.Round(t.share[i]*scale))) {
			points = append(points, point{mix(base + n*0x9e3779b97f4a7c15), uint16(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.host, b.host)) })
	t.points, t.slots = make([]uint64, len(points)), make([]uint16, len(points))
	for i, p := range points {
		t.points[i], t.slots[i] = p.at, p.host
	}
}

// maglev lets the hosts take turns, as often as their weights say, in claiming the next free slot of their own permutation.
// Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", section 3.4. size is a prime.
func (t *table) maglev(size int) {
	const free = math.MaxUint16
	type walker struct {
		offset, skip, next uint64
		gain, credit       float64
	}
	m := uint64(size)
	most := slices.Max(t.share)
	walkers := make([]walker, len(t.hosts))
	for i, h := range t.hosts {
		base := hashOf(h.Endpoint)
		walkers[i] = walker{offset: mix(base^1) % m, skip: mix(base^2)%(m-1) + 1, gain: t.share[i] / most}
	}
	t.slots = slices.Repeat([]uint16{free}, size)
	for filled := 0; ; {
		for i := range walkers {
			w := &walkers[i]
			if w.credit += w.gain; w.credit < 1 {
				continue
			}
			w.credit--
			at := (w.offset + w.next*w.skip) % m
			for t.slots[at] != free {
				w.next++
				at = (w.offset + w.next*w.skip) % m
			}
			t.slots[at] = uint16(i)
			w.next++
			if filled++; filled == size {
				return
			}
		}
	}
}

// find gives the first host for a hash that suits; nil when none of those that it looked at does.
func (t *table) find(hash uint64, suits func(*Host) bool) *Host {
	if t == nil || len(t.slots) == 0 {
		return nil
	}
	hash = mix(hash)
	at := hash % uint64(len(t.slots))
	if t.points != nil {
		at = uint64(sort.Search(len(t.points), func(i int) bool { return t.points[i] >= hash }))
	}
	last := -1
	for range searches * 4 {
		i := t.slots[at%uint64(len(t.slots))]
		if int(i) != last {
			if h := t.hosts[i]; suits(h) {
				return h
			}
		}
		last = int(i)
		if at++; t.points == nil {
			hash = mix(hash + 0x9e3779b97f4a7c15)
			at = hash % uint64(len(t.slots))
		}
	}
	return t.search(hash, suits)
}

// search is for the case that most hosts are out.
func (t *table) search(hash uint64, suits func(*Host) bool) *Host {
	n := uint64(len(t.hosts))
	for i := range n {
		if h := t.hosts[(hash+i)%n]; suits(h) {
			return h
		}
	}
	return nil
}

// hashOf is that of the host's address: FNV-1a, finished by mix.
func hashOf(e *conf.Endpoint) uint64 {
	h := uint64(14695981039346656037)
	step := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(e.Address) {
		step(e.Address[i])
	}
	step(byte(e.Port >> 8))
	step(byte(e.Port))
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
