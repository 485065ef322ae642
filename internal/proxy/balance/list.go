package balance

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// group is the hosts of one priority.
type group struct {
	priority     uint32
	all, healthy list
}

// group gives the group of a priority, in its place.
func (c *Cluster) group(priority uint32) *group {
	i, ok := slices.BinarySearchFunc(c.groups, priority, func(g group, p uint32) int { return cmp.Compare(g.priority, p) })
	if !ok {
		c.groups = slices.Insert(c.groups, i, group{priority: priority})
	}
	return &c.groups[i]
}

func (g *group) add(h *Host) {
	g.all.hosts = append(g.all.hosts, h)
	if h.Endpoint.Healthy {
		g.healthy.hosts = append(g.healthy.hosts, h)
	}
}

func (g *group) seal() {
	g.all.seal()
	g.healthy.seal()
}

// panics reports whether so few hosts are sound that all are used. Source: Envoy's healthy_panic_threshold.
func (g *group) panics(sound int, threshold float64) bool {
	return threshold > 0 && len(g.all.hosts) > 0 && float64(sound) < threshold*float64(len(g.all.hosts))
}

func (g *group) countSound(now int64) int {
	n := 0
	for _, h := range g.healthy.hosts {
		if h.ejected.Load() <= now {
			n++
		}
	}
	return n
}

// list is some hosts and what drawing from them by weight needs. It is immutable once sealed.
type list struct {
	hosts []*Host
	// sums are the running totals of the weights, and order a smooth schedule of one cycle; nil when all weights are equal.
	sums  []uint64
	order []uint16
}

// maxOrder bounds a schedule; where a cycle is longer, chance keeps the weights.
const maxOrder = 4096

func (l *list) seal() {
	equal, total, divisor := true, uint64(0), uint64(0)
	for _, h := range l.hosts {
		equal = equal && h.weight == l.hosts[0].weight
		total += uint64(h.weight)
		divisor = gcd(divisor, uint64(h.weight))
	}
	if equal {
		return
	}
	sum := uint64(0)
	for _, h := range l.hosts {
		sum += uint64(h.weight)
		l.sums = append(l.sums, sum)
	}
	if cycle := total / divisor; cycle <= maxOrder {
		l.order = smooth(l.hosts, divisor, int(cycle))
	}
}

// smooth spreads each host's turns over the cycle: at every turn each gains its weight, the richest is chosen and pays the
// cycle.
func smooth(hosts []*Host, divisor uint64, cycle int) []uint16 {
	credit := make([]int, len(hosts))
	order := make([]uint16, cycle)
	for turn := range order {
		best := 0
		for i, h := range hosts {
			if credit[i] += int(uint64(h.weight) / divisor); credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= cycle
		order[turn] = uint16(best)
	}
	return order
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// turn is round robin.
func (l *list) turn(n uint64, random func() uint64) *Host {
	switch {
	case l.order != nil:
		return l.hosts[l.order[n%uint64(len(l.order))]]
	case l.sums != nil:
		return l.random(random())
	}
	return l.hosts[n%uint64(len(l.hosts))]
}

// random draws by weight.
func (l *list) random(r uint64) *Host {
	if l.sums == nil {
		hi, _ := bits.Mul64(r, uint64(len(l.hosts)))
		return l.hosts[hi]
	}
	point, _ := bits.Mul64(r, l.sums[len(l.sums)-1])
	i, found := slices.BinarySearch(l.sums, point)
	if found {
		i++
	}
	return l.hosts[i]
}

// rendezvous is highest-random-weight hashing: a host that leaves moves its own keys and no others.
func (l *list) rendezvous(key uint64) *Host {
	var best *Host
	highest := math.Inf(-1)
	for _, h := range l.hosts {
		// -weight/ln(u) of a uniform u orders weighted draws.
		u := (float64(mix(key^h.hash(h.Endpoint))>>11) + 0.5) / (1 << 53)
		if score := -float64(h.weight) / math.Log(u); score > highest {
			best, highest = h, score
		}
	}
	return best
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// effectiveWeights scales the weights of a locality's endpoints to the locality's own weight, if it has one.
func effectiveWeights(l *conf.Locality) []uint32 {
	weights := make([]uint32, len(l.Endpoints))
	total := uint64(0)
	for i, e := range l.Endpoints {
		weights[i] = max(e.Weight, 1)
		total += uint64(weights[i])
	}
	if l.Weight == 0 {
		return weights
	}
	const scale = 1 << 10
	for i, w := range weights {
		weights[i] = uint32(max(1, min(uint64(w)*uint64(l.Weight)*scale/total, math.MaxUint32)))
	}
	return weights
}
