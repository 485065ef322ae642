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
	refused  func() map[model.Ref]Origin
}

// told is what a source has to say of what it did not accept.
type told struct {
	layer    string
	findings []model.Finding
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

// Refused gives what was refused, whether an earlier version of it is in force or not, and where the first thing that is wrong with it
// is written. Of several sources that refused it, it is the one that overlays the others. The map belongs to all who ask for it.
func (s *Snapshot) Refused() map[model.Ref]Origin { return s.refused() }

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

// newSnapshot makes one of a table, which must not change any more, and of what the sources said, in order.
func newSnapshot(generation uint64, byKey model.Table[Key, *Object], said []told) *Snapshot {
	s := &Snapshot{Generation: generation, byKey: byKey}
	s.objects = sync.OnceValue(s.list)
	s.findings = sync.OnceValue(func() []model.Finding {
		var all []model.Finding
		for _, t := range said {
			all = append(all, t.findings...)
		}
		return SortFindings(all)
	})
	s.refused = sync.OnceValue(func() map[model.Ref]Origin { return refusals(said) })
	return s
}

func refusals(said []told) map[model.Ref]Origin {
	all := map[model.Ref]Origin{}
	for _, t := range slices.Backward(said) {
		for i := range t.findings {
			f := &t.findings[i]
			if _, known := all[f.Object]; !known && f.Severity == model.Error && f.Object.Name != "" {
				all[f.Object] = Origin{Layer: t.layer, File: f.File, Line: f.Line}
			}
		}
	}
	return all
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
