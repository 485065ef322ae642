package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/admin"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/resolve"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// names are those of a cluster's endpoints. They are resolved while the cluster is used. clusters.mu guards all but the atomics.
type names struct {
	// touched: a request has wanted an endpoint since the last lookup. settled: there is nothing to wait for.
	touched, settled atomic.Bool

	dns     conf.DNS
	list    map[string]*name
	asking  bool          // the names are being resolved
	arrived chan struct{} // closed when settled; nil before anybody asked
	wanted  time.Time     // when the cluster was last seen to be used

	// found is a copy of the list for those who cannot wait for mu.
	found atomic.Pointer[map[string]name]

	attempts, successes, failures, empty atomic.Int64
}

// name is one of them and what is known of it.
type name struct {
	stop     context.CancelFunc // nil while nobody resolves it
	answered bool               // since that began
	known    bool               // ever
	addrs    []netip.Addr       // of the last answer; failures do not change them
	missing  bool
	err      error // of the last lookup
	at, next time.Time
}

// restAfter is how long the names of a cluster without requests are kept current.
const restAfter = 5 * time.Minute

func named(c *conf.Cluster) bool {
	return c.Discovery == conf.StrictDNS || c.Discovery == conf.LogicalDNS
}

// follow takes the names of the cluster's newest version.
func (s *names) follow(c *conf.Cluster) {
	again := s.dns != c.DNS
	s.dns = c.DNS
	present := map[string]bool{}
	for i := range c.Localities {
		for _, e := range c.Localities[i].Endpoints {
			if named(c) && !e.Addr.IsValid() {
				present[e.Address] = true
			}
		}
	}
	for text, n := range s.list {
		if again || !present[text] {
			n.halt()
		}
		if !present[text] {
			delete(s.list, text)
		}
	}
	for text := range present {
		if s.list == nil {
			s.list = map[string]*name{}
		}
		if s.list[text] == nil {
			s.list[text] = &name{}
		}
	}
	s.unsettle()
}

func (n *name) halt() {
	if n.stop != nil {
		n.stop()
	}
	n.stop, n.answered = nil, false
}

// halt ends all lookups. Their goroutines are waited for by clusters.close.
func (s *names) halt() {
	for _, n := range s.list {
		n.halt()
	}
	s.asking = false
	s.unsettle()
}

// tell makes what is known visible to those who cannot wait for mu.
func (s *names) tell() {
	found := make(map[string]name, len(s.list))
	for text, n := range s.list {
		found[text] = *n
	}
	s.found.Store(&found)
}

// done reports whether requests need not wait: some name has addresses, or all have been answered.
func (s *names) done() bool {
	all, some := true, false
	for _, n := range s.list {
		all = all && n.answered
		some = some || n.answered && len(n.addrs) > 0
	}
	return all || some
}

// unsettle makes requests wait where they have to.
func (s *names) unsettle() {
	if s.tell(); !s.done() && s.settled.Swap(false) {
		s.arrived = nil
	}
}

// settle lets requests go that need not wait any more. The cluster of those names has been published.
func (s *names) settle() {
	if s.done() && !s.settled.Swap(true) && s.arrived != nil {
		close(s.arrived)
	}
}

// ask begins to resolve the names that nobody resolves yet. It is called with mu held.
func (r *Set) ask(c *Cluster) {
	s := &c.names
	if !s.asking {
		s.asking, s.wanted = true, r.o.Now()
	}
	if s.arrived == nil && !s.settled.Load() {
		s.arrived = make(chan struct{})
	}
	for text, n := range s.list {
		if n.stop == nil {
			r.resolve(c, text, n)
		}
	}
}

// resolve keeps a name current until its stop is called or nobody wants it.
func (r *Set) resolve(c *Cluster, text string, n *name) {
	ctx, cancel := context.WithCancel(r.ctx)
	n.stop = cancel
	l, of, dns := c.lasting, c.Conf.Name, c.names.dns
	r.resolving.Go(func() {
		defer cancel()
		resolve.Run(ctx, dns, func(ctx context.Context) (resolve.Answer, error) {
			return r.o.Resolver.Lookup(ctx, text, dns.Family)
		}, func(a resolve.Answer, err error, next time.Duration) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return ctx.Err() == nil && r.learn(of, l, n, a, err, next)
		})
	})
}

// learn takes the result of a lookup and reports whether there shall be another. It is called with mu held.
func (r *Set) learn(of string, l *lasting, n *name, a resolve.Answer, err error, next time.Duration) bool {
	s, now := &l.names, r.o.Now()
	s.count(a, err)
	before := n.use(r.o.Outside)
	n.take(a, err)
	n.at, n.next = now, now.Add(next)
	c := (*r.byName.Load())[of]
	if c == nil || c.lasting != l {
		return false
	}
	if c.Conf.Discovery == conf.StrictDNS && !slices.Equal(before, n.use(r.o.Outside)) {
		r.rebuild(c)
	}
	s.tell()
	s.settle()
	if s.touched.Swap(false) || len(c.Conf.HealthChecks) > 0 {
		s.wanted = now
	}
	if now.Sub(s.wanted) < restAfter {
		return true
	}
	s.halt()
	return false
}

func (s *names) count(a resolve.Answer, err error) {
	s.attempts.Add(1)
	switch {
	case err != nil:
		s.failures.Add(1)
	case len(a.Addrs) == 0:
		s.empty.Add(1)
	default:
		s.successes.Add(1)
	}
}

// take keeps the last answer where there is none.
func (n *name) take(a resolve.Answer, err error) {
	n.answered, n.known, n.err = true, true, err
	if err == nil {
		n.addrs, n.missing = a.Addrs, a.Missing
	}
}

// use gives the addresses of endpoints, in an order of their own: name servers vary theirs. The zero address stands for the name
// itself: where the host's network is another, its resolver may know names that name servers do not.
func (n *name) use(outside bool) []netip.Addr {
	if len(n.addrs) == 0 && n.known && outside {
		return []netip.Addr{{}}
	}
	return slices.SortedFunc(slices.Values(n.addrs), netip.Addr.Compare)
}

// rebuild makes the cluster anew with the addresses of now. It is called with mu held.
func (r *Set) rebuild(c *Cluster) {
	old := *r.byName.Load()
	next := maps.Clone(old)
	n := r.build(c.source, c)
	next[c.Conf.Name] = n
	r.byName.Store(&next)
	r.retire(old, next)
	r.watch(n)
}

// expand puts the addresses that are known in the place of names.
func (s *names) expand(c *conf.Cluster, outside bool) *conf.Cluster {
	out := *c
	out.Localities, out.Total = slices.Clone(c.Localities), 0
	seen := map[reachKey]bool{}
	for i := range out.Localities {
		var list []*conf.Endpoint
		for _, e := range c.Localities[i].Endpoints {
			for _, a := range s.located(e, outside) {
				if key := keyOf(a); !seen[key] { // two names may mean the same
					seen[key] = true
					list = append(list, a)
				}
			}
		}
		out.Localities[i].Endpoints = list
		out.Total += len(list)
	}
	return &out
}

// located gives the endpoint at each of its addresses.
func (s *names) located(e *conf.Endpoint, outside bool) (list []*conf.Endpoint) {
	n := s.list[e.Address]
	if n == nil {
		return []*conf.Endpoint{e}
	}
	for _, a := range n.use(outside) {
		if !a.IsValid() {
			list = append(list, e)
			continue
		}
		at := *e
		at.Address, at.Host, at.Addr = a.String(), e.Address, netip.AddrPortFrom(a, e.Port)
		list = append(list, &at)
	}
	return list
}

// Resolved gives the newest version of the cluster, for a request that wants an endpoint now. It waits for the first answer about
// its names, within the time for connecting. until may be zero.
func (c *Cluster) Resolved(ctx context.Context, until time.Time) *Cluster {
	if !named(c.Conf) {
		return c
	}
	s := &c.names
	if !s.touched.Load() {
		s.touched.Store(true)
	}
	switch {
	case !s.settled.Load():
		c.await(ctx, until)
	case len(c.ends) > 0:
		return c
	}
	return c.Newest()
}

func (c *Cluster) await(ctx context.Context, until time.Time) {
	r := c.set
	r.mu.Lock()
	if now := (*r.byName.Load())[c.Conf.Name]; now != nil && now.lasting == c.lasting && !r.ended && !c.names.settled.Load() {
		r.ask(now)
	}
	arrived := c.names.arrived
	r.mu.Unlock()
	if arrived == nil {
		return
	}
	wait := c.Conf.ConnectTimeout
	if wait <= 0 {
		wait = upstream.DefaultConnectTimeout
	}
	if !until.IsZero() {
		wait = min(wait, until.Sub(r.o.Now()))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-arrived:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// dialFirst connects to the first address of a name, whatever it is at that time.
func (c *Cluster) dialFirst(host string, port uint16) upstream.Dial {
	return func(ctx context.Context, address string) (net.Conn, error) {
		n := (*c.names.found.Load())[host] // set by build
		switch {
		case len(n.addrs) > 0:
			address = netip.AddrPortFrom(n.addrs[0], port).String()
		case !c.set.o.Outside || !n.known:
			return nil, errors.New(n.why(host))
		}
		return c.set.o.Dialer.DialNamed(ctx, address)
	}
}

// dialLookedUp looks an endpoint's name up for each connection, where the proxy has name servers of its own, and connects to the first address
// that takes it. Otherwise it leaves the name to dial, as where they do not know it but the network behind dial may, or the machine itself, of
// a destination that is no service.
func (c *Cluster) dialLookedUp(e *conf.Endpoint, dial upstream.Dial) upstream.Dial {
	r := c.set.o.Resolver
	if _, err := netip.ParseAddr(e.Address); err == nil || r == nil || r.Exchange == nil {
		return dial
	}
	elsewhere := c.set.o.Outside || c.Conf.Name == wire.PassthroughCluster
	return func(ctx context.Context, address string) (net.Conn, error) {
		found, err := r.Lookup(ctx, e.Address, conf.AllFamilies)
		if len(found.Addrs) == 0 {
			if elsewhere {
				return dial(ctx, address)
			}
			n := name{addrs: found.Addrs, missing: found.Missing, err: err, answered: err == nil}
			return nil, errors.New(n.why(e.Address))
		}
		var failed []error
		for i, a := range found.Addrs {
			nc, err := dialFor(ctx, len(found.Addrs)-i, dial, netip.AddrPortFrom(a, e.Port).String())
			if err == nil {
				return nc, nil
			}
			failed = append(failed, err)
		}
		return nil, errors.Join(failed...)
	}
}

// dialFor leaves as much of the time for each of the other addresses.
func dialFor(ctx context.Context, addresses int, dial upstream.Dial, address string) (net.Conn, error) {
	if until, ok := ctx.Deadline(); ok {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Until(until)/time.Duration(addresses))
		defer cancel()
	}
	return dial(ctx, address)
}

// why says what is wrong with a name; empty for nothing.
func (n *name) why(text string) string {
	switch {
	case n.err != nil && len(n.addrs) > 0:
		return fmt.Sprintf("name %s is not resolved any more, its last addresses are kept: %s", text, failure.PlainCause(n.err))
	case n.err != nil:
		return fmt.Sprintf("name %s is not resolved: %s", text, failure.PlainCause(n.err))
	case n.missing:
		return fmt.Sprintf("name %s does not exist", text)
	case !n.answered && len(n.addrs) == 0:
		return fmt.Sprintf("name %s has not been resolved yet", text)
	case len(n.addrs) == 0:
		return fmt.Sprintf("name %s has no addresses", text)
	}
	return ""
}

// whyUnresolved says what is wrong with the names of the cluster; empty for nothing.
func (c *Cluster) whyUnresolved() string {
	var all []string
	c.eachName(func(text string, n *name) {
		if why := n.why(text); why != "" {
			all = append(all, why)
		}
	})
	return strings.Join(all, ", ")
}

// eachName calls f for the names in their order, as they were found last.
func (c *Cluster) eachName(f func(text string, n *name)) {
	found := c.names.found.Load()
	if found == nil {
		return
	}
	for _, text := range slices.Sorted(maps.Keys(*found)) {
		n := (*found)[text]
		f(text, &n)
	}
}

// describeNames tells operators about the names.
func (c *Cluster) describeNames() (list []admin.Name) {
	c.eachName(func(text string, n *name) {
		d := admin.Name{Name: text, Asked: n.at, Trouble: n.why(text)}
		if n.stop != nil {
			d.Next = n.next
		}
		for _, a := range n.addrs {
			d.Addresses = append(d.Addresses, a.String())
		}
		list = append(list, d)
	})
	return list
}
