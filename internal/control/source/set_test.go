package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

func openStore(t *testing.T, file string) *Store {
	t.Helper()
	s, err := OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start runs a set for the length of the test.
func start(t *testing.T, s *Set) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes := s.Follow(ctx).Changed()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return changes
}

func awaitSnapshot(t *testing.T, s *Set, changes <-chan struct{}, want string) *Snapshot {
	t.Helper()
	deadline := time.After(patience)
	for {
		snap := s.Snapshot()
		if snap != nil && summary(snap.Objects(), snap.Findings()) == want {
			return snap
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatalf("got %+v, want %q", snap, want)
		}
	}
}

func decode(t *testing.T, text string) []*Object {
	t.Helper()
	objects, findings := Decode(LayerApplied, "apply.yaml", []byte(text))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return objects
}

func TestSetWaitsForEverySource(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", service("a", "1"))
	layers := Layers{Files: quick(dir), Applied: openStore(t, filepath.Join(t.TempDir(), "db")), Runtime: NewRuntime()}
	s := NewSet(layers, nil)
	l := listen(t, layers.Files) // says when the file has been read
	start(t, s)
	l.await(t, "a=1")
	select {
	case <-s.Ready():
		t.Fatal("ready although the runtime has not spoken")
	default:
	}
	if _, _, err := s.Apply(decode(t, service("b", "1"))); !errors.Is(err, ErrNotReady) {
		t.Errorf("Apply before ready: %v", err)
	}
	if err := layers.Runtime.Set(nil); err != nil {
		t.Fatal(err)
	}
	<-s.Ready()
	if got := summary(s.Snapshot().Objects(), nil); got != "a=1" {
		t.Errorf("got %q", got)
	}
}

func TestSetOverlays(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "# first line\n"+service("a", "file")+"---\n"+service("b", "file"))
	layers := Layers{Files: quick(dir), Applied: openStore(t, filepath.Join(t.TempDir(), "db")), Runtime: NewRuntime()}
	s := NewSet(layers, nil)
	changes := start(t, s)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Labels: map[string]string{"v": "run"}}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b", Labels: map[string]string{"v": "run"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.78.0.1", ClusterIPs: []string{"10.78.0.1"}}}
	if err := layers.Runtime.Set([]Kube{pod, svc}); err != nil {
		t.Fatal(err)
	}
	snap := awaitSnapshot(t, s, changes, "a=file b=file p=run")
	b := snap.Get(Key{Kind: "Service", Namespace: "default", Name: "b"})
	if got := b.Kube.(*corev1.Service); got.Spec.ClusterIP != "10.78.0.1" || len(got.Spec.Ports) != 1 || b.Line("spec.ports") != 14 {
		t.Errorf("the runtime's address and the file's ports should both be there: %+v, line %d", got.Spec, b.Line("spec.ports"))
	}

	if _, _, err := s.Apply(decode(t, service("a", "applied"))); err != nil {
		t.Fatal(err)
	}
	snap = s.Snapshot() // at once: Apply waits for it
	if got := summary(snap.Objects(), snap.Findings()); got != "a=applied b=file p=run !Overridden" {
		t.Fatalf("got %q", got)
	}
	if f := snap.Findings()[0]; f.Severity != model.Warning || f.File != filepath.Join(dir, "a.yaml") || f.Line != 2 {
		t.Errorf("got %v", f)
	}
	if _, err := s.Delete([]Key{{Kind: "Service", Namespace: "default", Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	awaitSnapshot(t, s, changes, "a=file b=file p=run")
	_, err := s.Delete([]Key{{Kind: "Service", Namespace: "default", Name: "b"}})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "a.yaml, line 9") {
		t.Errorf("delete of a file's object: %v", err)
	}
	_, err = s.Delete([]Key{{Kind: "Pod", Namespace: "default", Name: "p"}})
	if not := (*NotAppliedError)(nil); !errors.As(err, &not) || !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "what runs in the mesh") {
		t.Errorf("delete of the runtime's object: %v", err)
	}
}

func TestRuntimeRefusesUnknownTypes(t *testing.T) {
	if err := NewRuntime().Set([]Kube{&corev1.Node{}}); err == nil {
		t.Error("a Node was taken")
	}
}

func TestApplyIsAllOrNone(t *testing.T) {
	refuse := func(objects []*Object) []model.Finding {
		var f []model.Finding
		for _, o := range objects {
			if o.GetLabels()["v"] == "bad" {
				f = append(f, o.Finding(model.Error, "Bad", "metadata.labels", "bad", ""))
			}
			if o.GetLabels()["v"] == "hurts" {
				other := *o
				other.Kube = o.Kube.DeepCopyObject().(Kube)
				other.SetName("other")
				f = append(f, other.Finding(model.Error, "Hurt", "", "hurt", ""))
			}
			f = append(f, o.Finding(model.Warning, "Meh", "", "meh "+o.GetLabels()["v"], ""))
		}
		return f
	}
	s := NewSet(Layers{Applied: openStore(t, filepath.Join(t.TempDir(), "db"))}, refuse)
	changes := start(t, s)
	<-s.Ready()
	apply := func(text, wantFindings, wantState string) []Result {
		t.Helper()
		results, findings, err := s.Apply(decode(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if got := summary(nil, findings); got != wantFindings {
			t.Errorf("findings %q, want %q", got, wantFindings)
		}
		awaitSnapshot(t, s, changes, wantState)
		return results
	}
	results := apply(service("a", "1")+"---\n"+service("b", "1"), "!Meh !Meh", "a=1 b=1")
	if len(results) != 2 || results[0].Action != Created {
		t.Errorf("got %v", results)
	}
	if results := apply(service("a", "2")+"---\n"+service("c", "bad"), "!Meh !Meh !Bad", "a=1 b=1"); results != nil {
		t.Errorf("got %v", results)
	}
	apply(service("a", "hurts"), "!Meh !Hurt", "a=1 b=1")
	results = apply(service("a", "1")+"---\n"+service("b", "2")+"---\n"+service("c", "1"), "!Meh !Meh !Meh", "a=1 b=2 c=1")
	if results[0].Action != Unchanged || results[1].Action != Changed || results[2].Action != Created {
		t.Errorf("got %v", results)
	}
	twice := append(decode(t, service("d", "1")), decode(t, service("d", "2"))...)
	if results, findings, err := s.Apply(twice); results != nil || !HasErrors(findings) || err != nil {
		t.Errorf("twice in a request: %v %v %v", results, findings, err)
	}
	if _, err := s.Delete([]Key{twice[0].Key(), decode(t, service("a", "1"))[0].Key()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete of what is not there: %v", err)
	}
	awaitSnapshot(t, s, changes, "a=1 b=2 c=1")
}

func TestStoreSurvivesReopen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	first, err := OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	text := "# note\n---\n" + service("z", "1") + "---\n" + service("a", "1")
	objects, _ := Decode(LayerApplied, "mine.yaml", []byte(text))
	if _, err := first.Put(objects[:1], first.Mark()); err != nil {
		t.Fatal(err)
	}
	first.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := first.Put(objects[1:], first.Mark()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Remove(nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	s := NewSet(Layers{Applied: openStore(t, file)}, nil)
	changes := start(t, s)
	snap := awaitSnapshot(t, s, changes, "a=1 z=1")
	if snap.Objects()[0].GetName() != "z" {
		t.Error("ages were lost")
	}
	z := snap.Objects()[0]
	if z.Origin != (Origin{Layer: LayerApplied, File: "mine.yaml", Line: 3}) || z.Line("metadata.labels.v") != 7 {
		t.Errorf("origin %+v, line of the label %d", z.Origin, z.Line("metadata.labels.v"))
	}
}

func TestStoreReportsWhatItCannotReadAnyMore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	s := openStore(t, file)
	objects := decode(t, service("a", "1"))
	broken := *objects[0]
	broken.Raw = []byte(service("a", "1") + "later: 1\n")
	if _, err := s.Put([]*Object{&broken}, s.Mark()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, file)
	l := listen(t, again)
	l.await(t, "!UnknownField")
	if _, err := again.Put(objects, again.Mark()); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=1")
}

func TestStoreIsExclusive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	openStore(t, file)
	if _, err := OpenStore(file); err == nil {
		t.Error("opened twice")
	}
}

// TestBrokenFileAtRestart starts with a file that broke, and one that was taken away, while nothing ran.
func TestBrokenFileAtRestart(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "db")
	write(t, dir, "a.yaml", service("a", "1"))
	write(t, dir, "b.yaml", service("b", "1")+"---\n"+service("b2", "1"))
	write(t, dir, "c.yaml", service("c", "1"))
	store, err := OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := NewSet(Layers{Files: quick(dir), Applied: store}, nil)
	changes, done := s.Follow(ctx).Changed(), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	awaitSnapshot(t, s, changes, "a=1 b2=1 b=1 c=1")
	cancel()
	if err := errors.Join(<-done, store.Close()); err != nil {
		t.Fatal(err)
	}

	write(t, dir, "a.yaml", service("a", "2")+"spek: {}\n")
	write(t, dir, "b.yaml", "not: [yaml")
	if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	again := NewSet(Layers{Files: quick(dir), Applied: openStore(t, file)}, nil)
	start(t, again)
	<-again.Ready()
	want := "a=1 b2=1 b=1 !PreviousKept !UnknownField !SyntaxError !PreviousKept !PreviousKept"
	if got := summary(again.Snapshot().Objects(), again.Snapshot().Findings()); got != want {
		t.Errorf("got %q, want %q: %v", got, want, again.Snapshot().Findings())
	}
}

// TestFollower gives what changed since it was asked last: each object once, and nothing that came again as it was.
func TestFollower(t *testing.T) {
	s := NewSet(Layers{Runtime: NewRuntime(), Applied: openStore(t, filepath.Join(t.TempDir(), "db"))}, nil)
	f := s.Follow(t.Context())
	start(t, s)
	pod := func(name, version string) Kube {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"v": version}}}
	}
	take := func(want string, gone ...string) {
		t.Helper()
		select {
		case <-f.Changed():
		case <-time.After(patience):
			t.Fatal("no change")
		}
		c := f.Take()
		var names []string
		for _, k := range c.Gone {
			names = append(names, k.Name)
		}
		slices.Sort(names)
		if got := summary(c.Set, nil); got != want || !slices.Equal(names, gone) {
			t.Errorf("got %q and without %q, want %q and without %q", got, names, want, gone)
		}
		for _, o := range c.Set {
			if c.Snapshot.Get(o.Key()) != o {
				t.Errorf("%s is not the snapshot's", o.Key())
			}
		}
	}
	runtime := s.layers.Runtime
	if err := runtime.Set([]Kube{pod("a", "1"), pod("b", "1")}); err != nil {
		t.Fatal(err)
	}
	take("a=1 b=1")
	if err := runtime.Set([]Kube{pod("a", "1"), pod("b", "2")}); err != nil { // b alone differs
		t.Fatal(err)
	}
	take("b=2")
	for _, version := range []string{"3", "4"} {
		if err := runtime.Change([]Kube{pod("b", version), pod("c", version)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	take("b=4 c=4")
	if err := runtime.Change([]Kube{pod("d", "1")}, []Key{{Kind: "Pod", Namespace: "default", Name: "c"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Apply(decode(t, service("svc", "1"))); err != nil {
		t.Fatal(err)
	}
	take("d=1 svc=1", "c")
	generation := s.Snapshot().Generation
	if err := runtime.Set([]Kube{pod("a", "1"), pod("b", "4"), pod("d", "1")}); err != nil {
		t.Fatal(err)
	}
	if s.Snapshot().Generation != generation {
		t.Error("what came again as it was made a snapshot")
	}
	late := s.Follow(t.Context())
	if got := summary(late.Take().Set, nil); got != "a=1 b=4 d=1 svc=1" {
		t.Errorf("a late follower got %q", got)
	}
}

// speaker is a source that says what it is given.
type speaker chan Change

func (s speaker) Layer() string { return "speaker" }

func (s speaker) Run(ctx context.Context, publish func(Change)) error {
	for {
		select {
		case c := <-s:
			publish(c)
		case <-ctx.Done():
			return nil
		}
	}
}

// TestRefusedAreTold once to each follower, those from before it as well.
func TestRefusedAreTold(t *testing.T) {
	wrong := func(names ...string) (all []model.Finding) {
		for _, n := range names {
			all = append(all, model.Finding{Severity: model.Error, Message: n}, model.Finding{Severity: model.Info, Message: "about " + n})
		}
		return all
	}
	say := make(speaker)
	set := NewSet(Layers{Others: []Source{say}}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	early := set.Follow(ctx)
	start(t, set)
	refused := func(f *Follower, want string) {
		t.Helper()
		<-f.Changed()
		var got []string
		for _, r := range f.Take().Refused {
			got = append(got, r.Message)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	say <- Change{Reset: true, Findings: wrong("a")}
	refused(early, "a")
	say <- Change{Findings: wrong("a", "b")}
	refused(early, "b")
	say <- Change{Findings: wrong("b")}
	refused(early, "")
	refused(set.Follow(ctx), "b")
}
