package balance

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// level is the hosts of one priority. It is set once.
type level struct {
	priority uint32
	hosts    []*Host
	places   []locality
	table    *table // for hashing policies
}

type locality struct {
	conf  *conf.Locality
	hosts []*Host
}

// level gives the level of a priority, in its place.
func (c *Cluster) level(priority uint32) *level {
	i, ok := slices.BinarySearchFunc(c.levels, priority, func(g level, p uint32) int { return cmp.Compare(g.priority, p) })
	if !ok {
		c.levels = slices.Insert(c.levels, i, level{priority: priority})
	}
	return &c.levels[i]
}

func (g *level) add(l *conf.Locality, h *Host) {
	g.hosts = append(g.hosts, h)
	if n := len(g.places); n == 0 || g.places[n-1].conf != l {
		g.places = append(g.places, locality{conf: l})
	}
	p := &g.places[len(g.places)-1]
	p.hosts = append(p.hosts, h)
}

// view is who gets which share of the load, as of one moment. It is immutable.
type view struct {
	changes  uint64 // value of shared.changes that it reflects
	built    time.Time
	shares   []share
	total    uint64
	spare    list    // hosts that may be used in need, of the most wanted priority that has any
	suspects []*Host // of all priorities
}

// share is a part of the load: up to a running total.
type share struct {
	upTo uint64
	pool *pool
}

// pool is hosts of one priority, by locality where these are weighed.
type pool struct {
	level            int  // index in Cluster.levels
	panics, degraded bool // whom it takes besides sound hosts
	places           []list
	sums             []uint64 // running totals of the places' weights; nil for a single place
}

// share finds the pool for a uniform number.
func (v *view) share(r uint64) *pool {
	switch len(v.shares) {
	case 0:
		return nil
	case 1:
		return v.shares[0].pool
	}
	point, _ := bits.Mul64(r, v.total)
	for i := range v.shares {
		if point < v.shares[i].upTo {
			return v.shares[i].pool
		}
	}
	return v.shares[len(v.shares)-1].pool
}

// place draws a locality by weight.
func (p *pool) place(r uint64) *list {
	switch {
	case len(p.places) == 0:
		return nil
	case p.sums == nil:
		return &p.places[0]
	}
	return &p.places[weighted(p.sums, r)]
}

// Views of large clusters are built no more often than costs a hundredth of the time.
const (
	small      = 64
	gapForEach = 5 * time.Microsecond
)

// current gives the view, a new one if it is stale and pays.
func (c *Cluster) current() *view {
	v := c.view.Load()
	if v.changes == c.shared.changes.Load() || !c.building.TryLock() {
		return v
	}
	defer c.building.Unlock()
	now := c.opt.Now()
	if len(c.hosts) > small && now.Sub(v.built) < time.Duration(len(c.hosts))*gapForEach {
		return v
	}
	v = c.look(now)
	c.view.Store(v)
	return v
}

// tally is how the hosts of a level stand.
type tally struct{ total, sound, degraded int }

// look builds the view of now.
func (c *Cluster) look(now time.Time) *view {
	v := &view{changes: c.shared.changes.Load(), built: now}
	tallies := make([]tally, len(c.levels))
	for i := range c.levels {
		t := &tallies[i]
		var spare []*Host
		for _, h := range c.levels[i].hosts {
			if h.Endpoint.Draining {
				continue // it goes by plan: that is no sign of ill health
			}
			t.total++
			switch st := h.standing(); st {
			case sound:
				t.sound++
			case degraded:
				t.degraded++
			case suspected:
				v.suspects = append(v.suspects, h)
			default:
				continue
			}
			spare = append(spare, h)
		}
		if len(v.spare.hosts) == 0 {
			v.spare.hosts = spare
		}
	}
	c.divide(v, tallies)
	return v
}

// divide gives each priority its share of the load. Source: Envoy's documentation of priority levels, degraded endpoints and the
// panic threshold.
func (c *Cluster) divide(v *view, tallies []tally) {
	factor := c.overprovisioning()
	sound, degraded, sum := make([]uint64, len(tallies)), make([]uint64, len(tallies)), uint64(0)
	for i, t := range tallies {
		if t.total > 0 {
			sound[i] = min(100, factor*uint64(t.sound)/uint64(t.total))
			degraded[i] = min(100, factor*uint64(t.degraded)/uint64(t.total))
		}
		sum += sound[i] + degraded[i]
	}
	if sum == 0 {
		for i, t := range tallies {
			if c.conf.PanicThreshold > 0 && t.total > 0 {
				v.add(c.pool(i, factor, true, false), uint64(t.total))
			}
		}
		return
	}
	sum = min(sum, 100)
	left := uint64(100)
	for pass, available := range [][]uint64{sound, degraded} {
		for i, t := range tallies {
			load := min(left, (available[i]*100+sum-1)/sum)
			if left -= load; load == 0 {
				continue
			}
			panics := sum < 100 && float64(t.sound+t.degraded) < c.conf.PanicThreshold*float64(t.total)
			v.add(c.pool(i, factor, panics, pass == 1), load)
		}
	}
}

// overprovisioning is the factor in percent, Envoy's where none is given.
func (c *Cluster) overprovisioning() uint64 {
	if f := c.conf.Overprovisioning; f != 0 {
		return uint64(f)
	}
	return 140
}

func (v *view) add(p *pool, load uint64) {
	v.total += load
	v.shares = append(v.shares, share{v.total, p})
}

// pool gathers the hosts of a level that may be used: all, the degraded, or the sound.
func (c *Cluster) pool(i int, factor uint64, panics, second bool) *pool {
	g := &c.levels[i]
	p := &pool{level: i, panics: panics, degraded: second}
	takes := func(h *Host) bool {
		if panics {
			return !h.Endpoint.Draining
		}
		st := h.standing()
		return st == sound && !second || st == degraded && second
	}
	if c.conf.Policy.Hashed() {
		// Hashes choose from the table; the list serves requests without one.
		p.places = []list{newList(g.hosts, takes)}
		return p
	}
	if !c.conf.LocalityWeighted || !slices.ContainsFunc(g.places, func(l locality) bool { return l.conf.Weight > 0 }) {
		p.places = []list{newList(g.hosts, takes)}
		return p
	}
	sum := uint64(0)
	for _, l := range g.places {
		in := newList(l.hosts, takes)
		if len(in.hosts) == 0 || l.conf.Weight == 0 {
			continue
		}
		// A locality keeps its whole weight while enough of its hosts are left.
		part := min(1000, 10*factor*uint64(len(in.hosts))/uint64(len(l.hosts)))
		sum += uint64(l.conf.Weight) * part
		p.places, p.sums = append(p.places, in), append(p.sums, sum)
	}
	if len(p.places) == 0 { // those with weight have no host that can be used
		p.places, p.sums = []list{newList(g.hosts, takes)}, nil
	}
	return p
}
