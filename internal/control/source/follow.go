package source

import (
	"context"
	"slices"
	"sync"

	"github.com/weftmesh/weft/internal/control/model"
)

// Snapshot is the merged state of all sources at one time. It is immutable, and shares with others what did not change between
// them; its lists are made when they are first asked for.
type Snapshot struct {
	Generation uint64

	byKey    model.Table[Key, *Object]
	objects  func() []*Object
	findings func() []model.Finding
}

// Get finds an object; nil when there is none.
func (s *Snapshot) Get(k Key) *Object { return s.byKey.Get(k) }

// Len is the number of objects.
func (s *Snapshot) Len() int { return s.byKey.Len() }

// Objects gives all objects by age, oldest first, then namespace and name. No two have the same Key. The list belongs to all who
// ask for it.
func (s *Snapshot) Objects() []*Object { return s.objects() }

// Findings gives those of the sources, sorted: refused documents and overridden objects. Those of the compiler come on top.
func (s *Snapshot) Findings() []model.Finding { return s.findings() }

// Follower gathers what changes in a Set. It is for one reader.
type Follower struct {
	set    *Set // fixed
	signal chan struct{}

	// These are guarded by the set's mu: the objects that changed since Take, nil for those that went; what was refused since.
	changed map[Key]*Object
	refused []model.Finding
}

// Changes are what happened between two snapshots.
type Changes struct {
	// Snapshot is the newer one; nil before Ready.
	Snapshot *Snapshot
	Set      []*Object
	Gone     []Key
	// Refused are the error findings of sources that are new, in no particular order.
	Refused []model.Finding
}

// Follow begins to gather changes; the objects that are there already are the first. It ends, and the channel of Changed closes,
// with the context.
func (s *Set) Follow(ctx context.Context) *Follower {
	f := &Follower{set: s, signal: make(chan struct{}, 1), changed: map[Key]*Object{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.current.Load(); now != nil {
		for k, o := range now.byKey.All() {
			f.changed[k] = o
		}
		f.refused = s.refused()
		f.signal <- struct{}{}
	}
	s.followers[f] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.followers, f)
		close(f.signal)
	})
	return f
}

// Changed gives a channel that receives after each new snapshot; those not yet received are merged.
func (f *Follower) Changed() <-chan struct{} { return f.signal }

// Take gives what changed since it was called last, in no particular order.
func (f *Follower) Take() Changes {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	c := Changes{Snapshot: f.set.current.Load(), Refused: f.refused}
	for k, o := range f.changed {
		if o == nil {
			c.Gone = append(c.Gone, k)
		} else {
			c.Set = append(c.Set, o)
		}
	}
	f.changed, f.refused = map[Key]*Object{}, nil
	return c
}

// note records changes; the caller holds the set's mu.
func (f *Follower) note(changed map[Key]*Object, refused []model.Finding) {
	for k, o := range changed {
		f.changed[k] = o
	}
	f.refused = append(f.refused, refused...)
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// newSnapshot makes one of a table, which must not change any more, and of lists of findings.
func newSnapshot(generation uint64, byKey model.Table[Key, *Object], findings [][]model.Finding) *Snapshot {
	s := &Snapshot{Generation: generation, byKey: byKey}
	s.objects = sync.OnceValue(s.list)
	s.findings = sync.OnceValue(func() []model.Finding {
		var all []model.Finding
		for _, list := range findings {
			all = append(all, list...)
		}
		return SortFindings(all)
	})
	return s
}

// list gives the objects by age.
func (s *Snapshot) list() []*Object {
	objects := make([]*Object, 0, s.byKey.Len())
	for _, o := range s.byKey.All() {
		objects = append(objects, o)
	}
	slices.SortFunc(objects, Older)
	return objects
}
