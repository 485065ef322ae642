package balance

import (
	"math/bits"
	"slices"
)

// list is some hosts and what drawing from them by weight needs. It is immutable.
type list struct {
	hosts []*Host
	// sums are the running totals of the weights, and order a smooth schedule of one cycle; nil when all weights are equal.
	sums  []uint64
	order []uint16
}

// A schedule is made only where a cycle is short and making it is little work; elsewhere chance keeps the weights.
const (
	maxOrder = 4096
	maxWork  = 1 << 16
)

// newList makes the list of the hosts that takes accepts.
func newList(hosts []*Host, takes func(*Host) bool) list {
	l := list{hosts: make([]*Host, 0, len(hosts))}
	equal, total, divisor := true, uint64(0), uint64(0)
	for _, h := range hosts {
		if !takes(h) {
			continue
		}
		l.hosts = append(l.hosts, h)
		equal = equal && h.weight == l.hosts[0].weight
		total += uint64(h.weight)
		divisor = gcd(divisor, uint64(h.weight))
	}
	if equal {
		return l
	}
	sum := uint64(0)
	for _, h := range l.hosts {
		sum += uint64(h.weight)
		l.sums = append(l.sums, sum)
	}
	if cycle := total / divisor; cycle <= maxOrder && cycle*uint64(len(l.hosts)) <= maxWork {
		l.order = smooth(l.hosts, divisor, int(cycle))
	}
	return l
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
	return l.hosts[weighted(l.sums, r)]
}

// weighted finds the place of a uniform number among running totals.
func weighted(sums []uint64, r uint64) int {
	point, _ := bits.Mul64(r, sums[len(sums)-1])
	i, found := slices.BinarySearch(sums, point)
	if found {
		i++
	}
	return i
}
