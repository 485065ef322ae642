package compile

import (
	"flag"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/churn"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

var (
	steps = flag.Int("steps", 1000, "changes that the incremental test makes for each seed")
	seeds = flag.Int("seeds", 2, "worlds in which the incremental test makes them")
)

// TestIncremental makes random changes in a small world of objects that have much to do with each other, and after each compares
// the compiler that lives on with a fresh one: mesh, findings, and that the delta names whatever differs.
func TestIncremental(t *testing.T) {
	cert, key := pair(t)
	for seed := range *seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		w := newWalk(t, r, universe(t, r, cert, key))
		for step := range *steps {
			if !w.step(1 + r.IntN(3)) {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
		t.Logf("seed %d: %d objects of %d at the end, %d findings; of what deltas named, %.0f %% differed", seed, len(w.now), len(w.versions),
			len(w.compiler.Findings()), 100*float64(w.true)/float64(w.told))
	}
}

// TestIncrementalGolden walks through the objects of each golden file, and of all of them together.
func TestIncrementalGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	examples, err := filepath.Glob("../../../examples/bookinfo/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	everything := map[source.Key][]*source.Object{}
	walk := func(t *testing.T, versions map[source.Key][]*source.Object, steps int) {
		r := rand.New(rand.NewPCG(1, 2))
		w := newWalk(t, r, slices.Collect(maps.Values(versions)))
		for range steps {
			if !w.step(1 + r.IntN(4)) {
				t.FailNow()
			}
		}
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[source.Key][]*source.Object{}
		for _, f := range a.Files {
			if filepath.Ext(f.Name) != ".yaml" {
				continue
			}
			objects, _ := source.Decode(source.LayerFile, f.Name, f.Data)
			for _, o := range objects {
				versions[o.Key()] = append(versions[o.Key()], o)
				everything[o.Key()] = append(everything[o.Key()], o)
			}
		}
		t.Run(filepath.Base(file), func(t *testing.T) { walk(t, versions, 20) })
	}
	for _, o := range load(t, examples...) {
		everything[o.Key()] = append(everything[o.Key()], o)
	}
	t.Run("together", func(t *testing.T) { walk(t, everything, 150) })
}

// FuzzIncremental takes its random choices from the fuzzer.
func FuzzIncremental(f *testing.F) {
	f.Add(uint64(1), []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, seed uint64, choices []byte) {
		cert, key := pair(t)
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWalk(t, r, universe(t, r, cert, key))
		for _, c := range choices[:min(len(choices), 100)] {
			w.rand = rand.New(rand.NewPCG(seed, uint64(c)))
			if !w.step(1 + int(c)%5) {
				return
			}
		}
	})
}

// universe has objects of all kinds.
func universe(t *testing.T, r *rand.Rand, cert, key []byte) [][]*source.Object {
	t.Helper()
	versions, missing := churn.Objects(r, cert, key)
	if len(missing) > 0 {
		t.Errorf("nothing was made of %v", missing)
	}
	return versions
}

// walk is a compiler on its way through changes.
type walk struct {
	t        *testing.T
	rand     *rand.Rand
	versions [][]*source.Object // of each object
	compiler *Compiler
	now      map[source.Key]*source.Object
	mesh     *model.Mesh
	true     int // parts that differed
	told     int // parts that deltas named
}

func newWalk(t *testing.T, r *rand.Rand, versions [][]*source.Object) *walk {
	slices.SortFunc(versions, func(a, b []*source.Object) int { return a[0].Key().Compare(b[0].Key()) })
	return &walk{t: t, rand: r, versions: versions, compiler: New(model.Settings{}), now: map[source.Key]*source.Object{}, mesh: &model.Mesh{}}
}

// step changes some objects and compares everything; false when something is wrong.
func (w *walk) step(changes int) bool {
	w.t.Helper()
	next := maps.Clone(w.now)
	set, gone := map[source.Key]*source.Object{}, map[source.Key]bool{}
	for range changes {
		list := w.versions[w.rand.IntN(len(w.versions))]
		o := list[w.rand.IntN(len(list))]
		k := o.Key()
		delete(set, k)
		delete(gone, k)
		if w.rand.IntN(4) == 0 {
			gone[k] = true
			delete(next, k)
			continue
		}
		set[k], next[k] = o, o
	}
	if w.rand.IntN(8) == 0 && !w.try(set) {
		return false
	}
	before, beforeMark := w.mesh, fingerprint(w.mesh)
	mesh, delta := w.compiler.Apply(slices.Collect(maps.Values(set)), slices.Collect(maps.Keys(gone)))
	w.now, w.mesh = next, mesh
	fresh, findings := Compile(Input{Objects: slices.Collect(maps.Values(next))})
	ok := true
	fail := func(format string, args ...any) {
		ok = false
		w.t.Errorf(format, args...)
	}
	if fingerprint(before) != beforeMark {
		fail("the mesh before was changed; it is now\n%s", fullDump(before))
	}
	if differs := uncovered(compareMeshes(fresh, mesh), newDelta()); len(differs) > 0 || !w.sameOrder(mesh, fresh) {
		fail("the mesh differs from that of a fresh compilation in %q (-fresh +got):\n%s", differs, cmp.Diff(fullDump(fresh), fullDump(mesh)))
	}
	if got := w.compiler.Findings(); !slices.Equal(got, findings) {
		fail("the findings are not those of a fresh compilation (-fresh +got):\n%s", cmp.Diff(render(findings), render(got)))
	}
	if !delta.All && !reflect.DeepEqual(before.Settings, mesh.Settings) {
		fail("the delta does not tell of other settings")
	}
	truth := compareMeshes(before, mesh)
	if missing := uncovered(truth, delta); len(missing) > 0 {
		fail("the delta does not name %q", missing)
	}
	if !delta.All {
		w.true += count(truth)
		w.told += count(delta)
	}
	if !ok {
		w.t.Logf("changes: set %v, gone %v", slices.Collect(maps.Keys(set)), slices.Collect(maps.Keys(gone)))
		for _, o := range set {
			w.t.Logf("%s", o.Raw)
		}
	}
	return ok
}

// sameOrder compares lists as they stand.
func (w *walk) sameOrder(a, b *model.Mesh) bool {
	return reflect.DeepEqual(a.RouteSets, b.RouteSets) && reflect.DeepEqual(a.Gateways, b.Gateways) &&
		reflect.DeepEqual(a.PeerAuthentications, b.PeerAuthentications) && reflect.DeepEqual(a.AuthorizationPolicies, b.AuthorizationPolicies) &&
		reflect.DeepEqual(a.RateLimits, b.RateLimits) && reflect.DeepEqual(a.Sidecars, b.Sidecars) &&
		reflect.DeepEqual(a.ProxyConfigs, b.ProxyConfigs) && reflect.DeepEqual(a.Settings, b.Settings)
}

// try compares what a trial finds with two fresh compilations, and sees that it leaves everything as it was.
func (w *walk) try(set map[source.Key]*source.Object) bool {
	w.t.Helper()
	mark, said := fingerprint(w.mesh), w.compiler.Findings()
	objects := slices.Collect(maps.Values(set))
	got := w.compiler.Try(objects)
	next, own := maps.Clone(w.now), map[model.Ref]bool{}
	for k, o := range set {
		next[k] = o
		own[o.Ref()] = true
	}
	known := map[model.Finding]bool{}
	_, before := Compile(Input{Objects: slices.Collect(maps.Values(w.now))})
	for _, f := range before {
		f.Line = 0
		known[f] = true
	}
	_, after := Compile(Input{Objects: slices.Collect(maps.Values(next))})
	want := slices.DeleteFunc(after, func(f model.Finding) bool {
		placeless := f
		placeless.Line = 0
		return !own[f.Object] && known[placeless]
	})
	if diff := cmp.Diff(render(want), render(got)); diff != "" {
		w.t.Errorf("a trial finds (-want +got):\n%s", diff)
		return false
	}
	if fingerprint(w.mesh) != mark || !slices.Equal(w.compiler.Findings(), said) || w.compiler.mesh != w.mesh && w.mesh.Services.Len() > 0 {
		w.t.Error("a trial has changed something")
		return false
	}
	return true
}
