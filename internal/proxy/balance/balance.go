// Package balance chooses an endpoint of a cluster: policy, weights, priorities, health as the control plane knows it, and
// health as the requests that went there have shown it. It knows nothing of connections.
package balance

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Options are what tests replace. The zero value is the real clock and chance.
type Options struct {
	Now  func() time.Time
	Rand func() uint64 // uniform over all of uint64
}

func (o Options) orDefault() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	return o
}

// Cluster chooses among the endpoints of one version of a conf.Cluster. All methods may be called from any goroutine.
type Cluster struct {
	// Set once.
	opt    Options
	conf   *conf.Cluster
	hosts  []*Host
	groups []group // by priority, most wanted first

	next atomic.Uint64 // round robin's position
	// flagged says that some host may be suspect or ejected: choices must look.
	flagged *atomic.Bool // shared by the versions of a cluster
}

// Host is an endpoint of a cluster, with what was learnt of it. What was learnt outlives the cluster's version.
type Host struct {
	*state
	Endpoint *conf.Endpoint
	// Index is the host's position in Cluster.Hosts.
	Index  int
	weight uint32
}

// New makes the balancer of a cluster. previous, which may be nil, is the one of the version before: hosts with the same
// address keep their state.
func New(c *conf.Cluster, previous *Cluster, opt Options) *Cluster {
	b := &Cluster{opt: opt.orDefault(), conf: c, flagged: new(atomic.Bool)}
	known := map[key]*state{}
	if previous != nil {
		b.flagged = previous.flagged
		b.next.Store(previous.next.Load())
		for _, h := range previous.hosts {
			known[keyOf(h.Endpoint)] = h.state
		}
	} else {
		// Proxies that start together must not all begin with the same endpoint.
		b.next.Store(b.opt.Rand() >> 32)
	}
	for _, l := range c.Localities {
		weights := effectiveWeights(&l)
		for i, e := range l.Endpoints {
			h := &Host{state: known[keyOf(e)], Endpoint: e, Index: len(b.hosts), weight: weights[i]}
			if h.state == nil {
				h.state = &state{}
			}
			b.hosts = append(b.hosts, h)
			b.group(l.Priority).add(h)
		}
	}
	for i := range b.groups {
		b.groups[i].seal()
	}
	return b
}

// NewHost makes a host outside any list: one that a client has addressed itself (original destination).
func NewHost(e *conf.Endpoint) *Host { return &Host{state: &state{}, Endpoint: e, weight: 1} }

type key struct {
	address string
	port    uint16
}

func keyOf(e *conf.Endpoint) key { return key{e.Address, e.Port} }

// Hosts lists all hosts; the caller must not change the slice.
func (c *Cluster) Hosts() []*Host { return c.hosts }

// Choice is what a request wants of its host.
type Choice struct {
	// Hash is the key of consistent hashing, if Hashed is set.
	Hash   uint64
	Hashed bool
	// Avoid are hosts on which this request has failed; they are chosen only when there is no other.
	Avoid []*Host
}

func (c *Choice) avoids(h *Host) bool {
	for _, a := range c.Avoid {
		if a.state == h.state {
			return true
		}
	}
	return false
}

// level is how far a choice lowers its demands.
type level uint8

const (
	sound    level = iota // healthy, not ejected, not suspect
	suspects              // and those that failed to connect lately: if there is no other, trying is better than refusing
	repeated              // and those the request wants to avoid
	anyone                // panic: whoever is listed
)

// Pick chooses a host, or gives nil if there is none that may be used. It does not allocate.
func (c *Cluster) Pick(ch *Choice) *Host {
	if len(c.groups) == 0 {
		return nil
	}
	if len(ch.Avoid) == 0 && !c.flagged.Load() {
		if g := &c.groups[0]; len(g.healthy.hosts) > 0 && !g.panics(len(g.healthy.hosts), c.conf.PanicThreshold) {
			return c.draw(&g.healthy, ch)
		}
	}
	return c.pickCarefully(ch)
}

func (c *Cluster) pickCarefully(ch *Choice) *Host {
	now := c.opt.Now().UnixNano()
	c.unflag(now)
	for lv := sound; lv <= repeated; lv++ {
		for i := range c.groups {
			g := &c.groups[i]
			if lv == sound && g.panics(g.countSound(now), c.conf.PanicThreshold) {
				return c.find(&g.all, ch, now, anyone)
			}
			if h := c.find(&g.healthy, ch, now, lv); h != nil {
				return h
			}
		}
	}
	return nil
}

// unflag looks whether anything is flagged still. The flag falls before the look, so that one raised meanwhile stays.
func (c *Cluster) unflag(now int64) {
	if !c.flagged.Load() {
		return
	}
	c.flagged.Store(false)
	for _, h := range c.hosts {
		if h.suspect.Load() != 0 || h.ejected.Load() > now {
			c.flagged.Store(true)
			return
		}
	}
}

// draws bounds how often chance is asked before the list is searched.
const draws = 4

// find draws until a host suits, then searches from a random place on.
func (c *Cluster) find(l *list, ch *Choice, now int64, lv level) *Host {
	if len(l.hosts) == 0 {
		return nil
	}
	for range draws {
		if h := c.draw(l, ch); c.suits(h, ch, now, lv) {
			return h
		}
		if ch.Hashed {
			break
		}
	}
	start := int(c.opt.Rand() % uint64(len(l.hosts)))
	for i := range l.hosts {
		if h := l.hosts[(start+i)%len(l.hosts)]; c.suits(h, ch, now, lv) {
			return h
		}
	}
	return nil
}

func (c *Cluster) suits(h *Host, ch *Choice, now int64, lv level) bool {
	switch {
	case lv == anyone:
		return true
	case h.ejected.Load() > now:
		return false
	case lv < repeated && ch.avoids(h):
		return false
	case lv == sound:
		return h.trust(now)
	}
	return true
}

// draw asks the policy, without regard to state.
func (c *Cluster) draw(l *list, ch *Choice) *Host {
	if len(l.hosts) == 1 {
		return l.hosts[0]
	}
	switch c.conf.Policy {
	case conf.LeastRequest:
		return least(l.random(c.opt.Rand()), l.random(c.opt.Rand()))
	case conf.Random:
		return l.random(c.opt.Rand())
	case conf.RingHash, conf.Maglev:
		if ch.Hashed {
			return l.rendezvous(ch.Hash)
		}
		return l.random(c.opt.Rand())
	}
	return l.turn(c.next.Add(1), c.opt.Rand)
}

// least prefers the host with fewer requests for its weight; the first one when equal.
func least(a, b *Host) *Host {
	if uint64(b.active.Load())*uint64(a.weight) < uint64(a.active.Load())*uint64(b.weight) {
		return b
	}
	return a
}
