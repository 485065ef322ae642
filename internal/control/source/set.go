package source

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/control/model"
)

// Source is a place that objects come from.
type Source interface {
	// Run calls publish with the whole state, as soon as it is known and after each change, never concurrently, and returns
	// when the context ends. The first call says that the source has seen everything there is; an empty state counts.
	Run(ctx context.Context, publish func(State)) error
}

// State is all that a source has accepted, and what it has to say about the rest.
type State struct {
	Objects  []*Object
	Findings []model.Finding
}

// Snapshot is the merged state of all sources at one time. It is immutable.
type Snapshot struct {
	Generation uint64
	// Objects by age, oldest first, then namespace and name. No two have the same Key.
	Objects []*Object
	// Findings of the sources, sorted: refused documents and overridden objects. Those of the compiler come on top.
	Findings []model.Finding
}

// Get finds an object; nil when there is none.
func (s *Snapshot) Get(k Key) *Object {
	for _, o := range s.Objects {
		if o.Kind.Name == k.Kind && o.GetName() == k.Name && o.Key() == k {
			return o
		}
	}
	return nil
}

// Layers are the parts of a Set, each overlaying those before it. Nil ones are left out.
type Layers struct {
	Files   *Files
	Applied *Store
	Runtime *Runtime
}

// Set merges sources. Its methods may be called from any goroutine.
type Set struct {
	layers   Layers // fixed
	validate func([]*Object) []model.Finding
	sources  []Source
	ready    chan struct{} // closed with the first snapshot
	current  atomic.Pointer[Snapshot]
	applying sync.Mutex // makes validate-then-store one step

	mu          sync.Mutex
	states      []*State // by source; nil until it has spoken
	generation  uint64
	subscribers map[chan struct{}]bool
}

// NewSet makes a set. Validate (compile.Validate) judges all objects of a would-be snapshot before Apply accepts it; nil accepts
// everything.
func NewSet(layers Layers, validate func([]*Object) []model.Finding) *Set {
	s := &Set{layers: layers, validate: validate, ready: make(chan struct{}), subscribers: map[chan struct{}]bool{}}
	if layers.Files != nil {
		if layers.Files.memory == nil {
			layers.Files.memory = layers.Applied
		}
		s.sources = append(s.sources, layers.Files)
	}
	if layers.Applied != nil {
		s.sources = append(s.sources, layers.Applied)
	}
	if layers.Runtime != nil {
		s.sources = append(s.sources, layers.Runtime)
	}
	s.states = make([]*State, len(s.sources))
	return s
}

// Run runs the sources until the context ends or one of them fails.
func (s *Set) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, src := range s.sources {
		g.Go(func() error { return src.Run(ctx, func(st State) { s.update(i, st) }) })
	}
	return g.Wait()
}

// Ready is closed when every source has spoken once and Snapshot is not nil any more.
func (s *Set) Ready() <-chan struct{} { return s.ready }

// Snapshot gives the current state; nil before Ready.
func (s *Set) Snapshot() *Snapshot { return s.current.Load() }

// Changes gives a channel that receives after each new snapshot; those not yet received are merged. The subscription ends, and
// the channel closes, with the context.
func (s *Set) Changes(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.subscribers[c] = true
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, c)
		close(c)
	})
	return c
}

// update takes the state of one source and publishes a snapshot once all have spoken.
func (s *Set) update(source int, st State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[source] = &st
	if slices.Contains(s.states, nil) {
		return
	}
	s.generation++
	snap := merge(s.states)
	snap.Generation = s.generation
	first := s.current.Load() == nil
	s.current.Store(snap)
	if first {
		close(s.ready)
	}
	for c := range s.subscribers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// merge overlays the states, later ones on earlier ones.
func merge(states []*State) *Snapshot {
	snap := &Snapshot{}
	byKey := map[Key]*Object{}
	for _, st := range states {
		snap.Findings = append(snap.Findings, st.Findings...)
		for _, o := range st.Objects {
			k := o.Key()
			under := byKey[k]
			byKey[k] = overlay(under, o)
			if under != nil && o.Origin.Layer == LayerApplied {
				snap.Findings = append(snap.Findings, under.Finding(model.Warning, "Overridden", "",
					"this object is not in force, because `weft apply` has put another of the same name over it",
					"delete the applied one (`weft delete`) to let the file rule again"))
			}
		}
	}
	snap.Objects = make([]*Object, 0, len(byKey))
	for _, o := range byKey {
		snap.Objects = append(snap.Objects, o)
	}
	slices.SortFunc(snap.Objects, Older)
	snap.Findings = SortFindings(snap.Findings)
	return snap
}

// overlay puts an object over one of the same key. The runtime only adds addresses to a Service that somebody wrote: ports and
// places in files stay the user's. The identity is the older one's.
func overlay(under, over *Object) *Object {
	if under == nil {
		return over
	}
	merged := *over
	if over.Origin.Layer == LayerRuntime {
		merged = *under
		merged.Kube = over.Kube
		from, ok1 := under.Kube.(*corev1.Service)
		to, ok2 := over.Kube.(*corev1.Service)
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
