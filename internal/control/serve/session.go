package serve

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
)

// session is what one stream subscribes to and was told.
type session struct {
	server    *Server // these are set once
	who       caller
	connected time.Time
	wake      func()      // has what the client has to be told looked for; it never blocks
	cut       func(error) // ends the stream, whether the client reads or not; it never blocks
	sotw      bool

	nonces   uint64    // used by who handles the stream alone
	lastWarn time.Time // as well

	// guarded by the cache's mu from here on
	claim    claim          // set by the first request
	node     *generate.Node // what the claim means in the newest mesh; nil before the first, never changed in place
	unplaced string         // why it, a gateway, gets nothing
	denied   error          // why it gets nothing any more: the name that it claims is another one's, or newer streams are in its place
	holding  *holding       // of its certificate; set by hold
	spare    int            // subscriptions, or what is left of them, that are not named: as many as count in holding
	wild     bool           // it is in holding's list of those with a wildcard
	watches  []*watch       // in the order of sending
	names    int            // subscriptions over all types
	changed  []*sub         // what may have to be told
	told     uint64         // the generation of which the client was told last
	touched  uint64         // the newest that had something for it
	unbound  []*sub         // what has no entry yet
	rebind   bool           // all entries have to be found anew
	behind   time.Time      // when the oldest of changed became so
	moved    time.Time      // when a new mesh came first that has something for the client; zero when it was told since
	sending  time.Time      // since when a send has been under way; zero when none is
	inFlight int            // subscriptions in responses that were not answered, over all types
	taken    bool           // there are updates that may not have been sent yet
	held     held
}

// watch is what a stream subscribes to of one type.
type watch struct {
	session  *session
	typeURL  string
	subs     []*sub // by name
	list     *sub   // of a wildcard, else nil
	explicit bool   // names were subscribed to, so that none no longer means all
	// force asks for a response even if nothing changed: the first one of a state-of-the-world client, or to a wildcard.
	force bool
	draft *update // while changes are collected
	answers
}

func newSession(s *Server, who caller, sotw bool, wake func(), cut func(error)) *session {
	return &session{server: s, who: who, connected: time.Now(), wake: wake, cut: cut, sotw: sotw}
}

// read takes a request of either form out of a message, and from the first one who the client is.
func (c *session) read(message []byte, into interface {
	proto.Message
	GetNode() *corev3.Node
}) error {
	if err := proto.Unmarshal(message, into); err != nil {
		return status.Errorf(codes.InvalidArgument, "the request cannot be read: %v", err)
	}
	return c.introduce(into.GetNode())
}

// introduce takes the node of the first request.
func (c *session) introduce(node *corev3.Node) error {
	if c.claim.id != "" {
		return nil
	}
	first := readClaim(node)
	if err := first.check(c.who); err != nil {
		c.server.options.Log.Warn("a discovery stream is refused", "peer", c.who.address, "error", err)
		return err
	}
	cache := &c.server.cache
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if err := first.foreign(c.who, cache.mesh()); err != nil {
		c.server.options.Log.Warn("a discovery stream is refused", "peer", c.who.address, "error", err)
		c.server.history.deny(c.who, first, err, time.Now())
		return err
	}
	c.claim = first
	c.rebind = true
	c.server.introduced(c)
	return nil
}

// maxTypes bounds the types of one stream, of which most would be unknown.
const maxTypes = 16

// watch finds or makes the watch of a type.
func (c *session) watch(typeURL string) (w *watch, first bool, err error) {
	for _, w := range c.watches {
		if w.typeURL == typeURL {
			return w, false, nil
		}
	}
	if len(c.watches) >= maxTypes || len(typeURL) > maxName {
		return nil, false, status.Errorf(codes.ResourceExhausted, "more than %d types on one stream", maxTypes)
	}
	w = &watch{session: c, typeURL: knownType(typeURL)}
	i, _ := slices.BinarySearchFunc(c.watches, rank(typeURL)+1, func(w *watch, r int) int { return rank(w.typeURL) - r })
	c.watches = slices.Insert(c.watches, i, w)
	return w, true, nil
}

func (w *watch) find(name string) (int, bool) {
	return slices.BinarySearchFunc(w.subs, name, func(s *sub, name string) int { return strings.Compare(s.entry.name, name) })
}

// maxName bounds a resource name: a DNS name with what stands around it in cluster names.
const maxName = 512

// subscribe adds names. Asking again for a name that is subscribed asks for it to be sent again.
func (c *session) subscribe(w *watch, names []string) error {
	limit := c.server.share(c)
	if c.names+len(names) > limit && c.names+c.unknown(w, names) > limit {
		return status.Errorf(codes.ResourceExhausted, "more than %d subscriptions on one stream (many streams of one certificate may have less each)", limit)
	}
	var fresh []*sub
	for _, n := range names {
		if len(n) > maxName {
			return status.Errorf(codes.InvalidArgument, "resource name of %d bytes, more than %d", len(n), maxName)
		}
		i, found := w.find(n)
		if !found {
			fresh = append(fresh, newSub(w, n, named))
			continue
		}
		s := w.subs[i]
		if !s.is(named) {
			s.set(named)
			c.names++
		}
		s.set(again)
		s.note(time.Now())
	}
	c.insert(w, fresh)
	return nil
}

// newSub makes a subscription that has no entry yet. The name is a copy, because requests are large.
func newSub(w *watch, name string, f flags) *sub { return newListed(w, strings.Clone(name), f) }

// newListed is newSub for a name of a list.
func newListed(w *watch, name string, f flags) *sub {
	return &sub{entry: &entry{entryName: entryName{w.typeURL, name}}, watch: w, flags: f}
}

// subscriptions counts them over all types, those of lists too.
func (c *session) subscriptions() int {
	n := 0
	for _, w := range c.watches {
		n += len(w.subs)
	}
	return n
}

// unknown counts the names that are not subscribed yet.
func (c *session) unknown(w *watch, names []string) int {
	if len(names) > 2*c.server.options.MaxSubscriptions {
		return len(names) // whatever they are
	}
	seen := map[string]bool{}
	for _, n := range names {
		if i, found := w.find(n); !found || !w.subs[i].is(named) {
			seen[n] = true
		}
	}
	return len(seen)
}

// insert adds subscriptions that have no entry yet. A name that comes twice counts once.
func (c *session) insert(w *watch, fresh []*sub) {
	sortSubs(fresh)
	fresh = slices.CompactFunc(fresh, func(a, b *sub) bool { return a.entry.name == b.entry.name })
	for _, s := range fresh {
		if s.is(named) {
			c.names++
		}
	}
	c.unbound = append(c.unbound, fresh...)
	if len(fresh) == 1 {
		i, _ := w.find(fresh[0].entry.name)
		w.subs = slices.Insert(w.subs, i, fresh[0])
		return
	}
	if len(fresh) > 0 {
		w.subs = slices.Grow(w.subs, len(fresh))
		w.subs = append(w.subs, fresh...)
		sortSubs(w.subs)
	}
}

// unsubscribe takes names back. Under a wildcard the client is told what becomes of them: they may be in the list (xDS protocol,
// and what Envoy's on-demand discovery relies on).
func (c *session) unsubscribe(w *watch, names []string) {
	gone := map[*sub]bool{}
	for _, n := range names {
		i, found := w.find(n)
		if !found || !w.subs[i].is(named) {
			continue
		}
		s := w.subs[i]
		s.unset(named)
		c.names--
		if w.list != nil {
			s.set(again)
			s.note(time.Now())
		} else {
			gone[s] = true
		}
	}
	w.offerRest(gone)
	c.drop(w, gone)
}

// drop removes subscriptions for good.
func (c *session) drop(w *watch, gone map[*sub]bool) {
	if len(gone) == 0 {
		return
	}
	for s := range gone {
		c.server.cache.unlink(s)
		w.release(s)
	}
	w.lapse()
	is := func(s *sub) bool { return gone[s] }
	w.subs = slices.DeleteFunc(w.subs, is)
	c.changed = slices.DeleteFunc(c.changed, is)
	c.unbound = slices.DeleteFunc(c.unbound, is)
}

// subscribeAll adds or removes the wildcard.
func (c *session) subscribeAll(w *watch, all bool) {
	switch {
	case all && w.list == nil:
		w.list = newSub(w, listName, 0)
		w.force = true
		c.unbound = append(c.unbound, w.list)
	case !all && w.list != nil:
		c.drop(w, map[*sub]bool{w.list: true})
		w.list = nil
		gone := map[*sub]bool{}
		for _, s := range w.subs {
			s.unset(listed)
			gone[s] = !s.is(named)
		}
		for s, is := range gone {
			if !is {
				delete(gone, s)
			}
		}
		c.drop(w, gone)
	}
}

// relist makes the list of a wildcard, which has changed, subscriptions.
func (c *session) relist(w *watch) {
	names := w.list.entry.names
	var fresh []*sub
	i := 0
	for _, s := range w.subs {
		for ; i < len(names) && names[i] < s.entry.name; i++ {
			fresh = append(fresh, newListed(w, names[i], listed))
		}
		if i < len(names) && names[i] == s.entry.name {
			s.set(listed)
			i++
		} else if s.is(listed) {
			s.unset(listed)
			s.note(time.Now())
		}
	}
	for ; i < len(names); i++ {
		fresh = append(fresh, newListed(w, names[i], listed))
	}
	c.insert(w, fresh)
}

// update is what is to be sent of one watch.
type update struct {
	watch   *watch
	values  []*sub // with the value that they have now
	bodies  []*value
	removed []*sub
	names   []string // of removed
	force   bool
	gone    map[*sub]bool // subscriptions that nobody wants any more

	// of state-of-the-world streams
	bodiesGone []*value // of removed
	changed    bool
}

// taken is what take gives.
type taken struct {
	updates []*update
	more    bool      // there may be more, also when there are no updates
	moved   time.Time // when the mesh came that they are of; zero when they answer requests
	denied  error     // why the stream ends
}

// bindATurn bounds the subscriptions that are bound in one go, so that a client that subscribes to very much shares the server with others.
const bindATurn = 256

// take gives all that the client has to be told now, in the order of sending, and counts it as told. It is nothing before the first
// mesh, whose publication wakes the stream.
func (c *session) take() taken {
	cache := &c.server.cache
	cache.mu.Lock()
	if c.settle() {
		node, subs := c.node, c.unbound[:min(bindATurn, len(c.unbound))]
		if c.unbound = c.unbound[len(subs):]; len(c.unbound) == 0 {
			c.unbound = nil
		}
		c.taken = true // until they are bound and looked at
		cache.mu.Unlock()
		cache.bind(node, subs)
		return taken{more: true}
	}
	defer cache.mu.Unlock()
	defer c.server.settled(c)
	if cache.generation == 0 {
		return taken{}
	}
	if c.denied != nil {
		return taken{denied: c.denied}
	}
	if c.sotw && c.holdsAll() {
		return taken{}
	}
	c.told = cache.generation
	t := taken{}
	if c.held.entries == 0 {
		t.moved, c.moved = c.moved, time.Time{}
	}
	if c.sotw {
		t.updates = c.collectWorld()
	} else {
		t.updates = c.collect()
	}
	c.held.pass = false
	_ = c.account(false) // which is no more than it was
	c.taken = len(t.updates) > 0
	return t
}

// settle brings the stream to the newest mesh; true when there are subscriptions to be bound.
func (c *session) settle() bool {
	cache := &c.server.cache
	if cache.generation == 0 {
		return false
	}
	if c.rebind {
		c.rebind = false
		if c.place(cache.index.Mesh()); c.denied != nil {
			c.unbound = nil
			return false
		}
		c.unbound = c.unbound[:0:0]
		for _, w := range c.watches {
			if w.list != nil {
				c.unbound = append(c.unbound, w.list)
			}
			c.unbound = append(c.unbound, w.subs...)
		}
	}
	for _, s := range c.changed {
		if w := s.watch; s == w.list {
			c.relist(w)
			s.unset(changed)
		}
	}
	c.changed = slices.DeleteFunc(c.changed, func(s *sub) bool { return !s.is(changed) })
	if err := c.account(false); err != nil {
		c.denied, c.unbound = err, nil
		c.holding.give(c)
	}
	return len(c.unbound) > 0
}

// place finds out what the client is in the mesh. The cache is locked.
func (c *session) place(mesh *model.Mesh) {
	if err := c.claim.foreign(c.who, mesh); err != nil && c.denied == nil {
		c.denied = err
		c.server.options.Log.Warn("a discovery stream is ended", "peer", c.who.address, "error", err)
		c.server.history.deny(c.who, c.claim, err, time.Now())
	}
	node := c.claim.node(c.who, mesh)
	c.node = &node
	why := c.claim.unplaced(node, mesh)
	if why != "" && why != c.unplaced {
		c.server.options.Log.Warn("a gateway is not known to the mesh", "node", c.claim.id, "reason", why)
	}
	c.unplaced = why
}

// collect finds out what has to be told of the changed subscriptions.
func (c *session) collect() []*update {
	var kept []*sub
	for _, s := range c.changed {
		if c.holds(s) {
			kept = append(kept, s)
			continue
		}
		s.unset(changed)
		w := s.watch
		if w.draft == nil {
			w.draft = &update{watch: w}
		}
		wanted := s.is(named | listed)
		w.draft.add(s, wanted)
		if !wanted {
			w.draft.drop(s)
		}
	}
	c.changed = kept
	var out []*update
	for _, w := range c.watches {
		u := w.draft
		if w.draft = nil; u == nil {
			if !w.force || w.list != nil && w.list.entry.unmade {
				continue
			}
			u = &update{watch: w}
		}
		c.drop(w, u.gone)
		if w.force || len(u.values)+len(u.removed) > 0 {
			u.force, w.force = w.force, false
			u.sort()
			out = append(out, u)
		}
	}
	return out
}

// add says of a subscription what the client does not know yet.
func (u *update) add(s *sub, wanted bool) {
	v := s.entry.value
	if !wanted {
		v = nil
	}
	force := s.is(again)
	switch {
	case v != nil && (force || s.sent != v.version):
		u.values, u.bodies = append(u.values, s), append(u.bodies, v)
	case v == nil && (force || s.sent != 0 || !s.is(answered) && s.is(named)):
		u.removed, u.names = append(u.removed, s), append(u.names, s.entry.name)
	}
	s.unset(again)
	s.set(answered)
	s.sent = v.versionOf()
}

// response is the update in one piece.
func (u *update) response() response {
	return response{watch: u.watch, values: u.values, bodies: u.bodies, removed: u.removed, names: u.names, force: u.force}
}

func (u *update) drop(s *sub) {
	if u.gone == nil {
		u.gone = map[*sub]bool{}
	}
	u.gone[s] = true
}

func (u *update) sort() {
	if len(u.values)+len(u.removed) == 1 {
		return
	}
	order := make([]int, len(u.values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(u.values[a].entry.name, u.values[b].entry.name) })
	values, bodies := make([]*sub, len(order)), make([]*value, len(order))
	for to, from := range order {
		values[to], bodies[to] = u.values[from], u.bodies[from]
	}
	u.values, u.bodies = values, bodies
	sortSubs(u.removed)
	slices.Sort(u.names)
}

func (c *session) nonce() uint64 {
	c.nonces++
	return c.nonces
}

// leave gives up all that the stream holds.
func (c *session) leave() {
	cache := &c.server.cache
	cache.mu.Lock()
	defer cache.mu.Unlock()
	for _, w := range c.watches {
		if w.list != nil {
			cache.unlink(w.list)
		}
		for _, s := range w.subs {
			cache.unlink(s)
		}
	}
	c.watches, c.changed, c.unbound = nil, nil, nil
}
