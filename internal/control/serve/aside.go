package serve

import (
	"runtime"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
)

// maxAtOnce is how many parts a resource may have that is made while others wait, see generate.Bound: some milliseconds' work.
const maxAtOnce = 1000

// aside is where large resources are made, one after the other, while meshes are published and others are told what changed. Until one is
// made, its clients have what they had; they are told what else changed, but of nothing that is gone, which what they have may refer to.
// The cache's mu guards it.
type aside struct {
	atOnce int    // maxAtOnce; set once, as the next
	pause  func() // lets others have their turn

	queue   []*entry
	working bool
	// overtaken are the deltas that were published since what is being made was begun.
	overtaken []model.Delta
}

func newAside() aside { return aside{atOnce: maxAtOnce, pause: runtime.Gosched} }

// overtake notes a delta.
func (a *aside) overtake(d model.Delta) {
	if a.working {
		a.overtaken = append(a.overtaken, d)
	}
}

// later has an entry made aside, from the newest mesh by then. The cache is locked.
func (c *cache) later(e *entry, now time.Time) {
	e.large = true
	if e.pending {
		return // it waits, or is found to be overtaken
	}
	e.pending, e.since = true, now
	for s := e.subs; s != nil; s = s.next {
		s.watch.session.held.add(e)
	}
	c.aside.queue = append(c.aside.queue, e)
	if !c.aside.working {
		c.aside.working = true
		go c.work() // ends when there is nothing left that a stream subscribes to
	}
}

// work makes what is to be made aside.
func (c *cache) work() {
	for {
		e, index := c.next()
		if e == nil {
			return
		}
		b := generate.Bound{Pause: c.aside.pause}
		m := build(index.For(*e.node).Under(&b), e.typeURL, e.name)
		m.large = b.Parts() > c.aside.atOnce
		for _, s := range c.put(e, m) {
			s.wake()
		}
	}
}

// next takes an entry that is to be made, and the index to make it from; nil when there is none.
func (c *cache) next() (*entry, generate.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.aside
	a.overtaken = nil
	for len(a.queue) > 0 {
		e := a.queue[0]
		a.queue = a.queue[1:]
		if e.subs != nil {
			return e, c.index
		}
	}
	a.queue, a.working = nil, false
	return nil, generate.Index{}
}

// put puts in place what was made aside, and gives the streams whose it is. What a mesh since then touches is made again; so that changes
// without end do not keep it from its clients, they get this one first.
func (c *cache) put(e *entry, m made) (woken []*session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.resets != c.resets {
		return nil // nobody will have it
	}
	differs := c.fill(e, m) || e.unmade
	e.large, e.unmade = m.large, false
	e.pending = slices.ContainsFunc(c.aside.overtaken, func(d model.Delta) bool { return c.touches(d, e) })
	if e.pending {
		c.aside.queue = append(c.aside.queue, e)
	}
	for s := e.subs; s != nil; s = s.next {
		if differs {
			s.note(e.since)
		}
		stream := s.watch.session
		stream.touched = c.generation
		if e.pending {
			stream.held.pass = true
		} else {
			stream.held.remove()
		}
		woken = append(woken, stream)
	}
	return woken
}

func (c *cache) touches(d model.Delta, e *entry) bool {
	for touched := range c.readers.Touched(d) {
		if touched == e {
			return true
		}
	}
	return false
}

// held is what a stream has to wait for that is being made aside.
type held struct {
	entries int       // that its subscriptions are of
	since   time.Time // when the first of them was touched
	// pass: one of them was made, and overtaken, so that the stream is told once of whatever there is.
	pass bool
}

func (h *held) add(e *entry) {
	if h.entries++; h.entries == 1 {
		h.since = e.since
	}
}

func (h *held) remove() { h.entries-- }

// holds reports whether what there is to say of a subscription has to wait. The cache is locked.
func (c *session) holds(s *sub) bool {
	wanted := s.is(named | listed)
	gone := s.sent != 0 && (!wanted || s.entry.value == nil)
	return wanted && s.entry.unmade || gone && c.held.entries > 0 && !c.held.pass
}

// holdsAll is for state-of-the-world streams, where what is gone is left out of what else is told. The cache is locked.
func (c *session) holdsAll() bool {
	if c.held.entries == 0 {
		return false
	}
	unmade := func(s *sub) bool { return s.entry.unmade }
	return !c.held.pass || slices.ContainsFunc(c.watches, func(w *watch) bool {
		return slices.ContainsFunc(w.subs, unmade) || w.list != nil && unmade(w.list)
	})
}
