package source

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/control/model"
)

// Source is a place that objects come from.
type Source interface {
	// Layer is that of its objects' origins.
	Layer() string
	// Run calls publish with everything that is there as soon as that is known (a Reset, even of nothing), and then with each
	// change, never concurrently and not after the context's end. It returns when the context ends. Nothing is served before all
	// sources have spoken.
	Run(ctx context.Context, publish func(Change)) error
}

// Layers are the parts of a Set, each overlaying those before it. Nil ones are left out.
type Layers struct {
	Files *Files
	// Others are further sources, in order, each with a layer of its own.
	Others  []Source
	Applied Keeper
	Runtime *Runtime
	// Memory keeps what files held over restarts; Applied when nil, if that is a Store.
	Memory *Store
}

// Set merges sources. Its methods may be called from any goroutine.
type Set struct {
	layers   Layers // fixed
	validate func([]*Object) []model.Finding
	sources  []Source
	ready    chan struct{} // closed with the first snapshot
	current  atomic.Pointer[Snapshot]
	applying sync.Mutex // makes validate-then-store one step

	mu         sync.Mutex
	overlays   []overlay                 // by source
	objects    model.Table[Key, *Object] // merged; shared with the current snapshot until it changes
	overridden map[Key]model.Finding
	generation uint64
	followers  map[*Follower]bool
}

// NewSet makes a set. Validate judges objects that are about to be set, before Apply accepts them: it gives the findings about them,
// and those about others that come with them. Nil accepts everything.
func NewSet(layers Layers, validate func([]*Object) []model.Finding) *Set {
	s := &Set{layers: layers, validate: validate, ready: make(chan struct{}), overridden: map[Key]model.Finding{}, followers: map[*Follower]bool{}}
	if layers.Files != nil {
		if store, ok := layers.Applied.(*Store); ok && layers.Memory == nil {
			layers.Memory = store
		}
		if layers.Files.memory == nil {
			layers.Files.memory = layers.Memory
		}
		s.sources = append(s.sources, layers.Files)
	}
	s.sources = append(s.sources, layers.Others...)
	if layers.Applied != nil {
		s.sources = append(s.sources, layers.Applied)
	}
	if layers.Runtime != nil {
		s.sources = append(s.sources, layers.Runtime)
	}
	s.overlays = make([]overlay, len(s.sources))
	return s
}

// Run runs the sources until the context ends or one of them fails.
func (s *Set) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, src := range s.sources {
		g.Go(func() error { return src.Run(ctx, func(ch Change) { s.update(i, ch) }) })
	}
	return g.Wait()
}

// Ready is closed when every source has spoken once and Snapshot is not nil any more.
func (s *Set) Ready() <-chan struct{} { return s.ready }

// Snapshot gives the current state; nil before Ready.
func (s *Set) Snapshot() *Snapshot { return s.current.Load() }

// update takes a change of one source and publishes a snapshot, when all have spoken and something is other than before.
func (s *Set) update(source int, ch Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.overlays[source]
	said := l.findings
	touched := l.take(ch)
	first := s.current.Load() == nil
	if first {
		if slices.ContainsFunc(s.overlays, func(l overlay) bool { return !l.spoken }) {
			return
		}
		touched = s.keys()
	}
	changed := s.merge(touched)
	if !first && len(changed) == 0 && slices.Equal(said, l.findings) {
		return
	}
	s.generation++
	s.current.Store(s.snapshot())
	if first {
		close(s.ready)
	}
	var refused []model.Finding
	if first {
		refused = s.refused()
	} else if !slices.Equal(said, l.findings) {
		refused = newErrors(said, l.findings)
	}
	for f := range s.followers {
		f.note(changed, refused)
	}
}

// refused gives the error findings of all sources.
func (s *Set) refused() (all []model.Finding) {
	for i := range s.overlays {
		all = append(all, newErrors(nil, s.overlays[i].findings)...)
	}
	return all
}

// newErrors gives the error findings that were not there before.
func newErrors(before, now []model.Finding) (fresh []model.Finding) {
	old := make(map[model.Finding]bool, len(before))
	for _, f := range before {
		old[f] = true
	}
	for _, f := range now {
		if f.Severity == model.Error && !old[f] {
			fresh = append(fresh, f)
		}
	}
	return fresh
}

// keys gives those of all sources, some perhaps twice.
func (s *Set) keys() (keys []Key) {
	for i := range s.overlays {
		keys = slices.AppendSeq(keys, maps.Keys(s.overlays[i].objects))
	}
	return keys
}

// merge overlays the sources' objects of some keys anew, and gives what came of it: nil for those that went.
func (s *Set) merge(keys []Key) map[Key]*Object {
	changed := make(map[Key]*Object, len(keys))
	objects := s.objects.Copy()
	for _, k := range keys {
		if _, done := changed[k]; done {
			continue
		}
		o, under := s.top(k, nil)
		if under == nil {
			delete(s.overridden, k)
		} else {
			s.overridden[k] = under.Finding(model.Warning, "Overridden", "",
				"this object is not in force, because `weft apply` has put another of the same name over it",
				"delete the applied one (`weft delete`) to let the file rule again")
		}
		if o == nil {
			objects.Delete(k)
		} else {
			objects.Put(k, o)
		}
		changed[k] = o
	}
	s.objects = objects
	return changed
}

// top gives the object of a key that is in force, nil for none, and the one that an applied object is over. Another applied object
// can be tried in place of the one that is there.
func (s *Set) top(k Key, applied *Object) (top, overridden *Object) {
	for i := range s.overlays {
		o := s.overlays[i].objects[k]
		if applied != nil && s.sources[i] == Source(s.layers.Applied) {
			o = applied
		}
		if o == nil {
			continue
		}
		if top != nil && o.Origin.Layer == LayerApplied {
			overridden = top
		}
		top = over(top, o)
	}
	return top, overridden
}

// Beneath gives the object that is in force once the applied one of its key is deleted; nil when there is none, or none is applied.
func (s *Set) Beneath(k Key) *Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, under := s.top(k, nil)
	return under
}

func (s *Set) snapshot() *Snapshot {
	all := make([]told, 0, len(s.overlays)+1)
	for i, src := range s.sources {
		all = append(all, told{src.Layer(), s.overlays[i].findings})
	}
	all = append(all, told{LayerApplied, slices.Collect(maps.Values(s.overridden))})
	return newSnapshot(s.generation, s.objects, all)
}

// over puts an object over one of the same key. The runtime only adds addresses to a Service that somebody wrote: ports and
// places in files stay the user's. The identity is the older one's.
func over(under, o *Object) *Object {
	if under == nil {
		return o
	}
	merged := *o
	if o.Origin.Layer == LayerRuntime {
		merged = *under
		merged.Kube = o.Kube
		from, ok1 := under.Kube.(*corev1.Service)
		to, ok2 := o.Kube.(*corev1.Service)
		if ok1 && ok2 {
			merged.Kube = withAddresses(from, to)
		}
	}
	if under.Born.Before(merged.Born) {
		merged.Born = under.Born
	}
	return &merged
}

func withAddresses(svc, addressed *corev1.Service) *corev1.Service {
	svc = svc.DeepCopy()
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = addressed.Spec.ClusterIP, addressed.Spec.ClusterIPs
	svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = addressed.Spec.IPFamilies, addressed.Spec.IPFamilyPolicy
	return svc
}
