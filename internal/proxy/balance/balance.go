// Package balance chooses an endpoint of a cluster: policy, weights, localities, priorities, health as the control plane knows it,
// and health as requests and health checks have shown it. It knows nothing of connections.
//
// A choice reads a view, which is immutable and says which endpoints stand behind which share of the load. What is learnt of
// endpoints makes the view stale; the next choice builds a new one, but no more often than pays, and until then looks at the
// endpoints that it draws. So a choice does not get slower with the number of endpoints.
package balance

import (
	"math/rand/v2"
	"slices"
	"sync"
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
	levels []level // by priority, most wanted first
	shared *shared

	view     atomic.Pointer[view]
	building sync.Mutex // held by whoever builds the next view
}

// shared is what the versions of a cluster have in common.
type shared struct {
	ejections atomic.Int64  // since the cluster is known
	changes   atomic.Uint64 // counts whatever makes views stale
	next      atomic.Uint64 // round robin's position
	nextProbe atomic.Int64  // Unix nanoseconds from which a suspect may be tried; not later than any is due
	warmUntil atomic.Int64  // Unix nanoseconds from which no endpoint starts slowly
	mean      atomic.Uint64 // of latencies, float64 bits of nanoseconds
	busy      atomic.Uint64 // the number of requests under way that most endpoints do not exceed, float64 bits

	mu      sync.Mutex // guards ejecting, and what follows
	judged  time.Time  // when outlier detection last compared endpoints
	ejected int        // at present
}

// Host is an endpoint of a cluster, with what was learnt of it. What was learnt outlives the cluster's version.
type Host struct {
	*state
	Endpoint *conf.Endpoint
	// Index is the host's position in Cluster.Hosts.
	Index    int
	weight   uint32
	priority uint32
}

// New makes the balancer of a cluster. previous, which may be nil, is the one of the version before: hosts with the same
// address keep their state.
func New(c *conf.Cluster, previous *Cluster, opt Options) *Cluster {
	b := &Cluster{opt: opt.orDefault(), conf: c}
	known := map[key]*Host{}
	if previous != nil {
		b.shared = previous.shared
		for _, h := range previous.hosts {
			known[keyOf(h.Endpoint)] = h
		}
	} else {
		b.shared = &shared{}
		// Proxies that start together must not all begin with the same endpoint.
		b.shared.next.Store(b.opt.Rand() >> 32)
	}
	now := b.opt.Now()
	for i := range c.Localities {
		l := &c.Localities[i]
		for _, e := range l.Endpoints {
			h := b.adopt(e, known[keyOf(e)], previous != nil, now)
			h.priority = l.Priority
			b.hosts = append(b.hosts, h)
			b.level(l.Priority).add(l, h)
		}
	}
	b.takeBack()
	if c.Policy.Hashed() {
		b.makeTables(previous)
	}
	b.shared.changes.Add(1)
	b.view.Store(b.look(now))
	return b
}

// adopt makes the host of an endpoint; was is the host of the version before. An endpoint that comes later than the cluster, or
// becomes healthy, starts slowly if that is wanted; those that come with it are all alike.
func (c *Cluster) adopt(e *conf.Endpoint, was *Host, later bool, now time.Time) *Host {
	h := &Host{Endpoint: e, Index: len(c.hosts), weight: max(e.Weight, 1)}
	if was != nil {
		h.state = was.state
		if e.Healthy && !was.Endpoint.Healthy {
			c.warm(h, now)
		}
		return h
	}
	h.state = &state{}
	if later && e.Healthy {
		c.warm(h, now)
	}
	return h
}

// takeBack counts the ejected anew; where outlier detection has been switched off there are none.
func (c *Cluster) takeBack() {
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	c.shared.ejected = 0
	for _, h := range c.hosts {
		switch {
		case h.ejected.Load() == 0:
		case c.conf.Outlier == nil:
			h.ejected.Store(0)
		default:
			c.shared.ejected++
		}
	}
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
	// Failed are hosts on which this request has failed; they are chosen only when there is no other.
	Failed []*Host
	// Elsewhere avoids the priorities of those hosts too, as long as there are others.
	Elsewhere bool
	// SameHosts lets those hosts be chosen like all others, of the priorities that there are left.
	SameHosts bool
}

func (c *Choice) avoids(h *Host) bool {
	if c.SameHosts {
		return false
	}
	for _, a := range c.Failed {
		if a.state == h.state {
			return true
		}
	}
	return false
}

// Pick chooses a host, or gives nil if there is none that may be used. It does not allocate, but for a new view.
//
// Sound hosts come first, of the priority whose turn it is; then those of the other priorities; then hosts that could not be
// connected to lately, since trying is better than refusing; then those that the request wants to avoid.
func (c *Cluster) Pick(ch *Choice) *Host {
	v := c.current()
	if ch.Elsewhere && len(ch.Failed) > 0 {
		if h := c.elsewhere(ch); h != nil {
			return h
		}
	}
	if len(v.suspects) > 0 && !c.byHash(ch) {
		if h := c.retrial(v, ch); h != nil {
			return h
		}
	}
	first := v.share(c.roll(ch))
	if first != nil {
		if h := c.from(first, ch); h != nil {
			return h
		}
		for i := range v.shares {
			if s := &v.shares[i]; s.pool != first {
				if h := c.from(s.pool, ch); h != nil {
					return h
				}
			}
		}
	}
	return c.inNeed(v, ch)
}

// elsewhere gives a host of the most wanted priority in which the request has not failed yet and which has sound hosts. Source: Envoy's
// retry priority previous_priorities, which begins anew when all have been tried. It allocates, as it is for repetitions alone.
func (c *Cluster) elsewhere(ch *Choice) *Host {
	for i := range c.levels {
		if slices.ContainsFunc(ch.Failed, func(h *Host) bool { return h.priority == c.levels[i].priority }) {
			continue
		}
		if p := c.pool(i, c.overprovisioning(), false, false); p.place(0) != nil && len(p.place(0).hosts) > 0 {
			if h := c.from(p, ch); h != nil {
				return h
			}
		}
	}
	return nil
}

// byHash reports whether the request's hash decides.
func (c *Cluster) byHash(ch *Choice) bool { return ch.Hashed && c.conf.Policy.Hashed() }

// roll gives the number that decides about priorities and localities; for hashed requests always the same.
func (c *Cluster) roll(ch *Choice) uint64 {
	if c.byHash(ch) {
		return mix(ch.Hash ^ 0x9e3779b97f4a7c15)
	}
	return c.opt.Rand()
}

// retrial gives a suspect whose time has come to one request.
func (c *Cluster) retrial(v *view, ch *Choice) *Host {
	now := c.opt.Now().UnixNano()
	if now < c.shared.nextProbe.Load() {
		return nil
	}
	const most = 16 // looked at in one choice
	start, next := int(c.opt.Rand()%uint64(len(v.suspects))), int64(0)
	for i := range min(most, len(v.suspects)) {
		h := v.suspects[(start+i)%len(v.suspects)]
		if h.standing() == suspected && !ch.avoids(h) && h.trial(now) {
			return h
		}
		if at := h.suspect.Load(); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	if len(v.suspects) <= most && next != 0 {
		c.shared.nextProbe.Store(next)
	}
	return nil
}

// draws bounds how often the policy is asked before the list is searched, and searches how far.
const (
	draws    = 8
	searches = 64
)

// from draws from a pool until a host suits, then searches from a random place on.
func (c *Cluster) from(p *pool, ch *Choice) *Host {
	if c.byHash(ch) {
		return c.levels[p.level].table.find(ch.Hash, func(h *Host) bool { return c.suits(h, p, ch) })
	}
	l := p.place(c.opt.Rand())
	if l == nil {
		return nil
	}
	for range draws {
		if h := c.draw(l); c.suits(h, p, ch) {
			return h
		}
	}
	start := int(c.opt.Rand() % uint64(len(l.hosts)))
	for i := range min(len(l.hosts), searches) {
		if h := l.hosts[(start+i)%len(l.hosts)]; c.suits(h, p, ch) {
			return h
		}
	}
	return nil
}

func (c *Cluster) suits(h *Host, p *pool, ch *Choice) bool {
	if len(ch.Failed) > 0 && ch.avoids(h) {
		return false
	}
	if p.panics {
		return !h.Endpoint.Draining
	}
	switch h.standing() {
	case sound:
		return true
	case degraded:
		return p.degraded
	case suspected:
		return c.byHash(ch) && h.trial(c.opt.Now().UnixNano())
	}
	return false
}

// inNeed chooses where no sound host is left that the request would take.
func (c *Cluster) inNeed(v *view, ch *Choice) *Host {
	if len(v.spare.hosts) == 0 {
		return nil
	}
	start := c.opt.Rand()
	if c.byHash(ch) {
		start = ch.Hash
	}
	var avoided *Host
	for i := range min(len(v.spare.hosts), searches) {
		h := v.spare.hosts[(start+uint64(i))%uint64(len(v.spare.hosts))]
		switch st := h.standing(); {
		case st == down || st == ejected:
		case ch.avoids(h):
			avoided = h
		default:
			return h
		}
	}
	return avoided
}

// draw asks the policy, without regard to state. Endpoints that start slowly are turned down in proportion.
func (c *Cluster) draw(l *list) *Host {
	if len(l.hosts) == 1 {
		return l.hosts[0]
	}
	switch c.conf.Policy {
	case conf.LeastRequest:
		best := c.lot(l)
		for range c.choices() - 1 {
			best = least(best, c.another(l, best))
		}
		return best
	case conf.PeakEWMA:
		now := c.opt.Now().UnixNano()
		best := c.lot(l)
		for range c.choices() - 1 {
			best = cheaper(best, c.another(l, best), now)
		}
		return best
	case conf.Probing:
		return c.coldest(l)
	case conf.RoundRobin:
		if c.shared.warmUntil.Load() == 0 {
			return l.turn(c.shared.next.Add(1), c.opt.Rand)
		}
		return c.patiently(func() *Host { return l.turn(c.shared.next.Add(1), c.opt.Rand) })
	}
	return c.lot(l)
}

func (c *Cluster) choices() uint32 {
	if n := c.conf.Balance.Choices; n > 0 {
		return n
	}
	return 2
}

// lot draws by weight.
func (c *Cluster) lot(l *list) *Host {
	if c.shared.warmUntil.Load() == 0 {
		return l.random(c.opt.Rand())
	}
	return c.patiently(func() *Host { return l.random(c.opt.Rand()) })
}

// another draws again when it draws the same.
func (c *Cluster) another(l *list, than *Host) *Host {
	if h := c.lot(l); h != than {
		return h
	}
	return c.lot(l)
}

// least prefers the host with fewer requests for its weight; the first one when equal.
func least(a, b *Host) *Host {
	if uint64(b.active.Load())*uint64(a.weight) < uint64(a.active.Load())*uint64(b.weight) {
		return b
	}
	return a
}
