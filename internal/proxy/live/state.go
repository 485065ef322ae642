package live

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/ads"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// The resource types, in the order in which they lead to each other.
const (
	listenerType = decode.ListenerType
	routesType   = decode.RoutesType
	clusterType  = decode.ClusterType
	endpointType = decode.EndpointsType
	namesType    = decode.NamesType
)

// key names a resource.
type key struct{ typeURL, name string }

func (k key) String() string { return shortType(k.typeURL) + " " + k.name }

func shortType(t string) string {
	switch t {
	case listenerType:
		return "listener"
	case routesType:
		return "routes"
	case clusterType:
		return "cluster"
	case endpointType:
		return "endpoints"
	case namesType:
		return "dns"
	}
	return t
}

// resource is what is known of one resource. It exists as long as some root leads to it.
type resource struct {
	version string
	body    *anypb.Any // of value, for saving
	value   any        // decoded: *conf.Listener, *conf.RouteTable, *conf.Cluster, *conf.Assignment, *conf.Names
	absent  bool       // the control plane does not know it
	// withdrawn is set while value is kept for RemovalGrace after the resource was removed.
	withdrawn bool
	restored  bool  // from disk, and not subscribed yet
	err       error // why the last version was refused
	users     map[*root]struct{}
}

// settled reports whether there is an answer: a value, or that there is none, or that it is unusable.
func (r *resource) settled() bool { return r.value != nil || r.absent || r.err != nil }

type rootKind uint8

const (
	outboundRoot rootKind = iota
	inboundRoot
	gatewayRoot
	dnsRoot
)

// root is what the proxy itself asks for; all other resources are followed from roots.
type root struct {
	kind rootKind
	key  key
	used *atomic.Int64 // in Live.second

	// What was found last, complete.
	done     bool
	target   *conf.Target // also for inbound and gateway: the listener with its clusters
	tables   []*conf.RouteTable
	names    *conf.Names
	answer   *answer
	doneDeps map[key]struct{}

	// The state of the newest version.
	deps    map[key]struct{}
	missing []key
	err     error

	settled chan struct{} // closed when done or err is set
	waiting int           // waiters
	dropped bool          // out of its map
}

func (r *root) known() bool { return r.target != nil || r.names != nil }

// changes says which parts of the published state must be rebuilt.
type changes struct{ names, dns, listeners, clusters bool }

// addRoot is called with mu held.
func (l *Live) addRoot(kind rootKind, k key) *root {
	r := &root{kind: kind, key: k, used: new(atomic.Int64), settled: make(chan struct{})}
	r.used.Store(l.second.Load())
	l.evaluate(r)
	return r
}

// dropRoot is called with mu held; the caller takes the root out of its map.
func (l *Live) dropRoot(r *root) {
	r.dropped = true
	l.relink(r, nil)
	l.markRoot(r)
}

func (l *Live) markRoot(r *root) {
	switch r.kind {
	case outboundRoot:
		l.changes.names = true
	case dnsRoot:
		l.changes.dns = true
	default:
		l.changes.listeners = true
	}
}

// evaluate follows a root as far as the resources are there, asks for those that are not, and takes the result when it is
// complete. What was complete before stays until then. Called with mu held.
func (l *Live) evaluate(r *root) {
	w := &walk{live: l, deps: map[key]struct{}{}}
	found := w.root(r.key)
	deps := w.deps
	r.missing = w.missing
	complete := w.err == nil && len(w.missing) == 0
	if !complete {
		deps = maps.Clone(deps)
		maps.Copy(deps, r.doneDeps)
	}
	l.relink(r, deps)
	// What was just asked for may have been restored from disk and be there already, but then the walk has seen it.
	switch {
	case complete:
		l.finish(r, found, w)
	case w.err != nil:
		r.err = w.err
		r.settle()
	case r.err != nil:
		r.err = nil
		if !r.done {
			r.settled = make(chan struct{})
		}
	}
}

func (r *root) settle() {
	select {
	case <-r.settled:
	default:
		close(r.settled)
	}
}

// finish takes a complete result. A target whose listener and routes are the same stays the same: changes of clusters and endpoints
// below it do not touch it.
func (l *Live) finish(r *root, found any, w *walk) {
	target, names := targetOf(r.key.name, found, w.tables)
	same := r.done && names == r.names && sameTarget(target, r.target) && slices.Equal(w.tables, r.tables)
	r.done, r.err, r.doneDeps = true, nil, w.deps
	if !same {
		r.target, r.names, r.tables = target, names, w.tables
		r.answer = &answer{target: target, dns: names, used: r.used}
		l.markRoot(r)
	}
	r.settle()
}

func targetOf(name string, found any, tables []*conf.RouteTable) (*conf.Target, *conf.Names) {
	switch v := found.(type) {
	case *conf.Listener:
		t := &conf.Target{Name: name, Listener: v}
		if len(tables) > 0 {
			t.Routes = tables[0]
		}
		return t, nil
	case *conf.Names:
		return nil, v
	}
	return nil, nil
}

func sameTarget(a, b *conf.Target) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Listener == b.Listener && a.Routes == b.Routes
}

// relink makes deps the resources that r uses: subscribes to new ones, unsubscribes from those that nobody uses any more.
func (l *Live) relink(r *root, deps map[key]struct{}) {
	for k := range deps {
		res := l.resources[k]
		if res == nil {
			res = &resource{users: map[*root]struct{}{}}
			l.resources[k] = res
			l.subscribe(k, res)
		} else if res.restored {
			l.subscribe(k, res)
		}
		res.users[r] = struct{}{}
	}
	for k := range r.deps {
		if _, still := deps[k]; still {
			continue
		}
		if res := l.resources[k]; res != nil {
			delete(res.users, r)
			if len(res.users) == 0 {
				l.forget(k)
			}
		}
	}
	r.deps = deps
}

func (l *Live) subscribe(k key, res *resource) {
	switch {
	case l.isWild(k):
		if res.restored && res.version != "" {
			l.ads.Hold(k.typeURL, k.name, res.version)
		}
	case res.restored && res.value != nil:
		l.ads.Hold(k.typeURL, k.name, res.version)
	default:
		l.ads.Subscribe(k.typeURL, k.name)
	}
	res.restored = false
}

// isWild reports whether a resource comes by the wildcard subscription of a gateway.
func (l *Live) isWild(k key) bool {
	return l.opts.Node.Role == wire.Gateway && k.typeURL == listenerType
}

func (l *Live) forget(k key) {
	delete(l.resources, k)
	if !l.isWild(k) {
		l.ads.Unsubscribe(k.typeURL, k.name)
	}
	if k.typeURL == clusterType {
		l.setCluster(k.name, nil)
	}
	l.unsaved()
}

// Apply takes an update from the stream. It is for the ads client.
func (l *Live) Apply(u ads.Update) []ads.Rejection {
	before := l.current.Load()
	rejected := l.apply(u)
	if l.opts.Follow != nil && l.current.Load() != before {
		l.opts.Follow()
	}
	return rejected
}

func (l *Live) apply(u ads.Update) []ads.Rejection {
	values := make([]any, len(u.Changed))
	failures := make([]error, len(u.Changed))
	for i, c := range u.Changed {
		values[i], failures[i] = decodeResource(c)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	var rejected []ads.Rejection
	affected := map[*root]struct{}{}
	for i, c := range u.Changed {
		k := key{u.Type, c.Name}
		res := l.resources[k]
		if res == nil {
			if res = l.admit(k); res == nil {
				continue
			}
		}
		if err := failures[i]; err != nil {
			res.err = err
			rejected = append(rejected, ads.Rejection{Name: c.Name, Err: err})
		} else {
			*res = resource{version: c.Version, body: c.Body, value: values[i], users: res.users}
		}
		maps.Copy(affected, res.users)
	}
	for _, name := range u.Removed {
		maps.Copy(affected, l.remove(key{u.Type, name}))
	}
	for r := range affected {
		if !r.dropped {
			l.evaluate(r)
		}
	}
	if u.Type == listenerType && l.opts.Node.Role == wire.Gateway && !l.listed {
		l.listed, l.changes.listeners = true, true
	}
	l.publish()
	l.unsaved()
	return rejected
}

// decodeResource decodes, and checks that the resource is the one that it was announced as.
func decodeResource(r ads.Resource) (any, error) {
	v, err := decode.Resource(r.Body)
	if err != nil {
		return nil, err
	}
	var name string
	switch v := v.(type) {
	case *conf.Listener:
		name = v.Name
	case *conf.RouteTable:
		name, v.Version = v.Name, r.Version
	case *conf.Cluster:
		name, v.Version = v.Name, r.Version
	case *conf.Assignment:
		name, v.Version = v.Name, r.Version
	case *conf.Names:
		name = r.Name
	}
	if name != r.Name {
		return nil, fmt.Errorf("name: is %q inside", name)
	}
	return v, nil
}

// admit makes room for a gateway's listener that came by the wildcard subscription; nil for what nobody asked for.
func (l *Live) admit(k key) *resource {
	if !l.isWild(k) {
		return nil
	}
	l.listeners[k.name] = l.addRoot(gatewayRoot, k)
	return l.resources[k]
}

// remove takes a removal and gives the roots to evaluate again.
func (l *Live) remove(k key) map[*root]struct{} {
	if r := l.listeners[k.name]; r != nil && r.kind == gatewayRoot && k.typeURL == listenerType {
		delete(l.listeners, k.name)
		l.dropRoot(r)
	}
	res := l.resources[k]
	if res == nil {
		return nil
	}
	if res.value != nil && (k.typeURL == clusterType || k.typeURL == endpointType) {
		if !res.withdrawn {
			res.withdrawn = true
			l.after(l.opts.RemovalGrace, func() { l.expire(k, res) })
		}
		return nil
	}
	*res = resource{absent: true, users: res.users}
	return res.users
}

// after runs f, with mu held, when d has passed, unless it was cancelled or Run has ended by then. It and cancel are called with mu
// held.
func (l *Live) after(d time.Duration, f func()) (cancel func()) {
	if l.stopped {
		return func() {}
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, due := l.timers[t]; due && !l.stopped {
			delete(l.timers, t)
			f()
		}
	})
	l.timers[t] = struct{}{}
	return func() {
		t.Stop()
		delete(l.timers, t)
	}
}

func (l *Live) stopTimers() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for t := range l.timers {
		t.Stop()
	}
}

// expire ends the grace of a withdrawn resource, unless it came back.
func (l *Live) expire(k key, res *resource) {
	if l.resources[k] != res || !res.withdrawn {
		return
	}
	*res = resource{absent: true, users: res.users}
	for r := range maps.Clone(res.users) {
		l.evaluate(r)
	}
	l.publish()
	l.unsaved()
}

// Connected is for the ads client.
func (l *Live) Connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link.cancel()
	lost := l.link.lost
	if l.link.isLost() {
		lost = make(chan struct{})
	}
	l.link = link{up: true, since: l.clock(), lost: lost, cancel: func() {}, connected: true}
}

// Disconnected is for the ads client.
func (l *Live) Disconnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.link.up
	l.link.up, l.link.err = false, err
	switch {
	case was:
		l.link.since = l.clock()
		l.awaitReturn()
	case !l.link.connected:
		l.giveUp()
	}
}

// awaitReturn gives the control plane UnreachableWait to come back.
func (l *Live) awaitReturn() { l.link.cancel = l.after(l.opts.UnreachableWait, l.giveUp) }

// giveUp lets those fail who wait for a control plane that is down.
func (l *Live) giveUp() {
	l.link.cancel()
	if !l.link.isLost() {
		close(l.link.lost)
	}
}

func (k *link) isLost() bool {
	select {
	case <-k.lost:
		return true
	default:
		return false
	}
}

// walk follows one root through the resources.
type walk struct {
	live    *Live
	deps    map[key]struct{}
	missing []key
	tables  []*conf.RouteTable
	err     error
}

// root gives the *conf.Listener or *conf.Names of the root; nil when the mesh does not know it.
func (w *walk) root(k key) any {
	switch v := w.need(k).(type) {
	case *conf.Listener:
		w.listener(v)
		return v
	case *conf.Names:
		return v
	}
	return nil
}

// need gives a resource's value. A refused resource without an older version is an error.
func (w *walk) need(k key) any {
	res := w.look(k)
	if res != nil && res.value == nil && res.err != nil {
		w.err = errors.Join(w.err, fmt.Errorf("%w: %w", ErrRefused, res.err))
	}
	if res == nil {
		return nil
	}
	return res.value
}

// look notes that a resource is used; nil when it is not there yet.
func (w *walk) look(k key) *resource {
	w.deps[k] = struct{}{}
	res := w.live.resources[k]
	if res == nil || !res.settled() {
		w.missing = append(w.missing, k)
		return nil
	}
	return res
}

func (w *walk) listener(ln *conf.Listener) {
	if ln.Datagrams != nil {
		w.split(ln.Datagrams.Clusters)
	}
	for _, ch := range slices.Concat(ln.Chains, []*conf.Chain{ln.Default}) {
		if ch == nil {
			continue
		}
		if ch.TCP != nil {
			w.split(ch.TCP.Clusters)
		}
		if ch.HTTP != nil {
			w.http(ch.HTTP)
		}
	}
}

func (w *walk) http(h *conf.HTTP) {
	for _, l := range h.GlobalLimits {
		w.cluster(l.Cluster)
	}
	if h.RouteName == "" {
		w.table(h.Routes)
		return
	}
	k := key{routesType, h.RouteName}
	_, seen := w.deps[k]
	t, ok := w.need(k).(*conf.RouteTable)
	if !ok {
		t = &conf.RouteTable{Name: h.RouteName} // withdrawn: a table without hosts answers every request with 404
	}
	w.table(t)
	if !seen {
		w.tables = append(w.tables, t)
	}
}

func (w *walk) table(t *conf.RouteTable) {
	for _, h := range t.Hosts {
		for _, r := range h.Routes {
			if r.Forward == nil {
				continue
			}
			w.split(r.Forward.Clusters)
			for _, m := range r.Forward.Mirrors {
				w.cluster(m.Cluster)
			}
		}
	}
}

func (w *walk) split(cs []conf.WeightedCluster) {
	for i := range cs {
		w.cluster(cs[i].Cluster)
	}
}

// cluster follows a cluster to its endpoints. One that is absent or refused is left out of the snapshot: its requests fail with
// flag NC, those to other clusters do not.
func (w *walk) cluster(name string) {
	k := key{clusterType, name}
	if _, seen := w.deps[k]; seen {
		return
	}
	res := w.look(k)
	if res == nil {
		return
	}
	c, ok := res.value.(*conf.Cluster)
	if !ok {
		w.live.setCluster(name, nil)
		return
	}
	if c.Discovery != conf.EDS {
		w.live.setCluster(name, c)
		return
	}
	eds := w.look(key{endpointType, c.EndpointsName})
	if eds == nil {
		return
	}
	a, _ := eds.value.(*conf.Assignment)
	w.live.join(name, c, a)
}
