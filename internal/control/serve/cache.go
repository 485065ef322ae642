package serve

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
)

// cache holds the resources that somebody subscribes to, each made once for all nodes of a class, and knows who that is. It follows
// the mesh: what a delta touches is made again at once, and who has something that differs is told.
type cache struct {
	// moving keeps the index in place while something is made from it for a new subscription. It is taken before mu.
	moving sync.RWMutex

	mu         sync.Mutex // guards what follows, and all that entries and subscriptions say
	index      generate.Index
	generation uint64 // 0 before the first mesh
	published  time.Time
	entries    map[entryName][]*entry // those that are shared, by class
	readers    index.Readers[*entry]
	size       int // entries, the private ones included
	resets     int
	aside      aside
}

// mesh is the newest one, nil before the first. The cache is locked.
func (c *cache) mesh() *model.Mesh {
	if c.generation == 0 {
		return nil
	}
	return c.index.Mesh()
}

type entryName struct{ typeURL, name string }

// entry is one resource, for the nodes of one class or for one node.
type entry struct {
	entryName
	class string // empty for a node's own
	// node is one of the class, for which it is made.
	node  *generate.Node
	value *value // nil when there is none
	names []string
	reads index.Reads[*entry]
	subs  *sub // the first one; an entry without is forgotten

	// large: it had too many parts to be made while others wait. pending: it is being made aside, or going to be, since a time; unmade: and
	// never was. resets is the cache's when it was added.
	large, pending, unmade bool
	since                  time.Time
	resets                 int
}

// sub is a subscription: one name on one stream.
type sub struct {
	entry      *entry // has nothing but a name until it is bound
	watch      *watch
	next, prev *sub // with the same entry
	// sent is the version that the client was last sent, or had when it connected; acked the one that it last accepted. 0 stands for
	// none.
	sent, acked uint64
	held        *value // what was sent, on state-of-the-world streams
	flags       flags
}

// flags of a subscription.
type flags uint8

const (
	// named: the client asked for the name; listed: it is in the list of a wildcard.
	named flags = 1 << iota
	listed
	// answered: sent says what the client knows.
	answered
	// again: the client is to be told although nothing changed.
	again
	// changed: it waits in its session's list.
	changed
	// refused: it is in a refusal of its watch.
	refused
)

func (s *sub) is(f flags) bool { return s.flags&f != 0 }
func (s *sub) set(f flags)     { s.flags |= f }
func (s *sub) unset(f flags)   { s.flags &^= f }

// note puts the subscription on the list of what its session has to look at.
func (s *sub) note(now time.Time) {
	if s.is(changed) {
		return
	}
	s.set(changed)
	c := s.watch.session
	if len(c.changed) == 0 {
		c.behind = now
	}
	c.changed = append(c.changed, s)
}

// link makes an entry the one of a subscription, and gives up the one before.
func (c *cache) link(s *sub, e *entry) {
	if s.entry == e {
		return
	}
	c.unlink(s)
	s.entry, s.next = e, e.subs
	if e.subs != nil {
		e.subs.prev = s
	}
	e.subs = s
	if e.pending {
		s.watch.session.held.add(e)
	}
}

// unlink takes a subscription out of its entry's list. An entry that nobody needs any more is forgotten.
func (c *cache) unlink(s *sub) {
	e := s.entry
	switch {
	case s.prev != nil:
		s.prev.next = s.next
	case e.subs == s:
		e.subs = s.next
	default:
		return // not bound
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
	if e.pending {
		s.watch.session.held.remove()
	}
	if e.subs == nil {
		c.forget(e)
	}
}

func (c *cache) forget(e *entry) {
	c.size--
	c.readers.Set(e, &e.reads, nil)
	if e.class == "" {
		return
	}
	list := c.entries[e.entryName]
	i := slices.Index(list, e)
	switch {
	case i < 0: // of before a reset
	case len(list) == 1:
		delete(c.entries, e.entryName)
	default:
		c.entries[e.entryName] = slices.Delete(slices.Clone(list), i, i+1)
	}
}

func (c *cache) find(name entryName, class string) *entry {
	for _, e := range c.entries[name] {
		if e.class == class {
			return e
		}
	}
	return nil
}

// add files a new entry.
func (c *cache) add(name entryName, class string, node *generate.Node, m made) *entry {
	e := &entry{entryName: name, class: class, node: node, large: m.large, unmade: m.large, resets: c.resets}
	c.size++
	if m.large {
		c.later(e, time.Now())
	} else {
		c.fill(e, m)
	}
	if class != "" {
		c.entries[name] = append(c.entries[name], e)
	}
	return e
}

// fill gives an entry its content, and reports whether it is another than before.
func (c *cache) fill(e *entry, m made) (differs bool) {
	c.readers.Set(e, &e.reads, m.seen)
	if e.name == listName {
		differs = !slices.Equal(e.names, m.names)
		e.names = m.names
		return differs
	}
	if e.value.versionOf() == m.value.versionOf() {
		return false
	}
	e.value = c.shared(e, m.value)
	return true
}

// shared gives the equal value that another class has, so that there is one for all.
func (c *cache) shared(e *entry, v *value) *value {
	for _, other := range c.entries[e.entryName] {
		if other.value.versionOf() == v.versionOf() {
			return other.value
		}
	}
	return v
}

// publish follows the mesh: it makes again what the delta touches, and tells whom it concerns. Publishing is one at a time.
func (c *cache) publish(mesh *model.Mesh, d model.Delta, now time.Time) publication {
	before := c.index
	if c.generation == 0 || d.All {
		return c.reset(generate.NewIndex(mesh), now)
	}
	next := before.Next(mesh, d)
	if !next.SameClasses(before.Index) {
		return c.reset(next, now)
	}
	return c.advance(next, d, now)
}

// publication is what publishing did.
type publication struct {
	everything bool
	remade     int // entries
	differing  int
	told       []*session
}

// reset forgets everything that was made: every stream binds its subscriptions anew.
func (c *cache) reset(next generate.Index, now time.Time) publication {
	c.moving.Lock()
	defer c.moving.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.published = next, now
	c.generation++
	c.resets++
	c.aside.queue = nil
	c.entries, c.readers = map[entryName][]*entry{}, index.Readers[*entry]{}
	return publication{everything: true}
}

// advance makes again what is touched, and then puts all of it in place at once, so that no stream sees parts of two meshes. What is large
// follows: see aside.
func (c *cache) advance(next generate.Index, d model.Delta, now time.Time) publication {
	c.mu.Lock()
	var touched []*entry
	results := map[*entry]made{}
	for e := range c.readers.Touched(d) {
		if _, ok := results[e]; !ok {
			results[e] = made{large: e.large}
			touched = append(touched, e)
		}
	}
	c.mu.Unlock()
	maker := maker{cache: c, index: next}
	for _, e := range touched {
		if !results[e].large {
			results[e] = maker.attempt(e)
		}
	}

	c.moving.Lock()
	defer c.moving.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was added meanwhile was made from the index before.
	for e := range c.readers.Touched(d) {
		if _, ok := results[e]; !ok {
			results[e] = maker.attempt(e)
			touched = append(touched, e)
		}
	}
	c.index, c.published = next, now
	c.generation++
	c.aside.overtake(d)
	p := publication{remade: len(touched)}
	for _, e := range touched {
		switch {
		case e.subs == nil: // forgotten meanwhile
		case results[e].large:
			c.later(e, now)
			p.told = c.tell(e, now, p.told)
		case c.fill(e, results[e]):
			p.differing++
			for s := e.subs; s != nil; s = s.next {
				s.note(now)
			}
			p.told = c.tell(e, now, p.told)
		}
	}
	return p
}

// tell marks the streams that an entry is of, and adds those to a list that the newest mesh has had nothing for so far.
func (c *cache) tell(e *entry, now time.Time, told []*session) []*session {
	for s := e.subs; s != nil; s = s.next {
		stream := s.watch.session
		if stream.moved.IsZero() {
			stream.moved = now
		}
		if stream.touched != c.generation {
			stream.touched = c.generation
			told = append(told, stream)
		}
	}
	return told
}

// maker makes entries from one index; entries of one node follow each other as a rule.
type maker struct {
	cache     *cache
	index     generate.Index
	node      *generate.Node
	generator *generate.Generator
}

func (m *maker) attempt(e *entry) made {
	if m.generator == nil || m.node != e.node {
		m.node, m.generator = e.node, m.index.For(*e.node)
	}
	return m.cache.attempt(m.generator, e.typeURL, e.name)
}

// bindAtOnce bounds what is made while publishing waits.
const bindAtOnce = 32

// bind gives subscriptions of one stream their entries in the newest index, and notes them. What nobody had yet is made here, in
// the goroutine of who wants it first, unless it is large.
func (c *cache) bind(node *generate.Node, subs []*sub) {
	for part := range slices.Chunk(subs, bindAtOnce) {
		c.bindPart(node, part)
	}
}

func (c *cache) bindPart(node *generate.Node, subs []*sub) {
	c.moving.RLock()
	defer c.moving.RUnlock()
	g := c.index.For(*node) // it moves under both locks only
	fresh := map[*sub]made{}
	c.mu.Lock()
	for _, s := range subs {
		if class := g.Class(s.entry.typeURL, s.entry.name); class == "" || c.find(s.entry.entryName, class) == nil {
			fresh[s] = made{}
		}
	}
	c.mu.Unlock()
	for s := range fresh {
		fresh[s] = c.attempt(g, s.entry.typeURL, s.entry.name)
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range subs {
		name, class := s.entry.entryName, g.Class(s.entry.typeURL, s.entry.name)
		e := (*entry)(nil)
		if class != "" {
			e = c.find(name, class)
		}
		if e == nil {
			m, ok := fresh[s]
			if !ok { // forgotten meanwhile
				m = c.attempt(g, name.typeURL, name.name)
			}
			e = c.add(name, class, node, m)
		}
		c.link(s, e)
		s.note(now)
	}
}

// sortSubs sorts by name, in which order watches keep them.
func sortSubs(subs []*sub) {
	slices.SortFunc(subs, func(a, b *sub) int { return strings.Compare(a.entry.name, b.entry.name) })
}
