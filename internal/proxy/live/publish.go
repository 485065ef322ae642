package live

import (
	"cmp"
	"maps"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// joined is a cluster with its endpoints, and what it was made of.
type joined struct {
	cluster    *conf.Cluster
	assignment *conf.Assignment
	out        *conf.Cluster
}

// join puts a cluster and its endpoints (nil: none) together, unless it has been done.
func (l *Live) join(name string, c *conf.Cluster, a *conf.Assignment) {
	old := l.clusters[name]
	if old.cluster == c && old.assignment == a && old.out != nil {
		return
	}
	out := *c
	if a != nil {
		out.Localities, out.Total, out.Overprovisioning = a.Localities, a.Total, a.Overprovisioning
		out.Version = c.Version + "/" + a.Version
	}
	l.clusters[name] = joined{c, a, &out}
	l.changes.clusters = true
}

// setCluster sets a cluster that has its endpoints in it; nil takes it out.
func (l *Live) setCluster(name string, c *conf.Cluster) {
	if c == nil {
		if _, had := l.clusters[name]; had {
			delete(l.clusters, name)
			l.changes.clusters = true
		}
		return
	}
	if l.clusters[name].out != c {
		l.clusters[name] = joined{c, nil, c}
		l.changes.clusters = true
	}
}

// publish makes a new snapshot when something changed. Parts that did not are shared with the one before. Called with mu held.
func (l *Live) publish() {
	if l.changes == (changes{}) {
		return
	}
	old := l.current.Load()
	s := *old.snapshot
	p := &published{snapshot: &s, names: old.names, dns: old.dns, ready: old.ready, replaced: make(chan struct{})}
	if l.changes.names {
		p.names = answers(l.names)
		s.Outbound = make(map[string]*conf.Target, len(p.names))
		for name, a := range p.names {
			s.Outbound[name] = a.target
		}
	}
	if l.changes.dns {
		p.dns = answers(l.dns)
	}
	if l.changes.listeners {
		p.ready = l.publishListeners(&s)
	}
	if l.changes.clusters {
		s.Clusters = make(map[string]*conf.Cluster, len(l.clusters))
		for name, j := range l.clusters {
			s.Clusters[name] = j.out
		}
	}
	l.changes = changes{}
	l.current.Store(p)
	close(old.replaced)
}

func answers(roots map[string]*root) map[string]*answer {
	m := make(map[string]*answer, len(roots))
	for name, r := range roots {
		if r.done {
			m[name] = r.answer
		}
	}
	return m
}

// publishListeners reports whether all that the node accepts on is there.
func (l *Live) publishListeners(s *conf.Snapshot) (ready bool) {
	if l.opts.Node.Role != wire.Gateway {
		if r := l.listeners[wire.InboundListener]; r != nil && r.target != nil {
			s.Inbound = r.target.Listener
			s.RouteTables = tables(nil, r)
		}
		known := l.publishUnknown(s)
		return s.Inbound != nil && known
	}
	s.Gateways, s.RouteTables, s.Concurrency = nil, map[string]*conf.RouteTable{}, 0
	ready = l.listed
	for _, name := range slices.SortedFunc(maps.Keys(l.listeners), cmp.Compare) {
		r := l.listeners[name]
		if r.target != nil {
			s.Gateways = append(s.Gateways, r.target.Listener)
			s.Concurrency = cmp.Or(r.target.Listener.Concurrency, s.Concurrency)
			s.RouteTables = tables(s.RouteTables, r)
		}
		ready = ready && (r.done || r.err != nil)
	}
	return ready
}

// publishUnknown takes what is said of destinations that the mesh does not know, and reports whether the control plane has spoken of
// them: an older one does not know the listener.
func (l *Live) publishUnknown(s *conf.Snapshot) bool {
	r := l.listeners[wire.OutboundListener]
	s.Unknown, s.Concurrency, s.Opened = nil, 0, nil
	if r != nil && r.target != nil {
		s.Concurrency, s.Opened = r.target.Listener.Concurrency, r.target.Listener.Opens
		if c := r.target.Listener.Default; c != nil {
			s.Unknown = c.TCP
		}
	}
	return r != nil && (r.done || r.err != nil)
}

func tables(m map[string]*conf.RouteTable, r *root) map[string]*conf.RouteTable {
	if m == nil {
		m = map[string]*conf.RouteTable{}
	}
	for _, t := range r.tables {
		m[t.Name] = t
	}
	return m
}
