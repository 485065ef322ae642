package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// service is the text of a Service with a label that tells its versions apart.
func service(name, version string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n  labels: {v: %q}\nspec: {ports: [{port: 80}]}\n", name, version)
}

// patience bounds the wait for something that must happen.
const patience = 3 * time.Minute

// state is all that a source has said so far.
type state struct {
	Objects  []*Object
	Findings []model.Finding
}

// listener collects what a source publishes.
type listener struct {
	t      *testing.T
	mu     sync.Mutex
	held   overlay
	states []state
	signal chan struct{}
}

func (l *listener) publish(ch Change) {
	l.mu.Lock()
	if !l.held.spoken && !ch.Reset {
		l.t.Error("the first change is no Reset")
	}
	l.held.take(ch)
	l.states = append(l.states, state{sorted(l.held.objects), l.held.findings})
	l.mu.Unlock()
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

func (l *listener) last() (state, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.states) == 0 {
		return state{}, 0
	}
	return l.states[len(l.states)-1], len(l.states)
}

// listen runs a source for the length of the test.
func listen(t *testing.T, s Source) *listener {
	t.Helper()
	l := &listener{t: t, signal: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.publish) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

// await waits for a published state that looks as wanted: "a=1 b=2", with "!" and codes of findings that are there.
func (l *listener) await(t *testing.T, want string) state {
	t.Helper()
	return l.awaitState(t, func(s state) bool { return summary(s.Objects, s.Findings) == want }, want)
}

func (l *listener) awaitState(t *testing.T, is func(state) bool, want string) state {
	t.Helper()
	deadline := time.After(patience)
	for {
		s, n := l.last()
		if n > 0 && is(s) {
			return s
		}
		select {
		case <-l.signal:
		case <-deadline:
			t.Fatalf("got %q after %d states, want %q: %v", summary(s.Objects, s.Findings), n, want, s.Findings)
		}
	}
}

func summary(objects []*Object, findings []model.Finding) string {
	var out []string
	for _, o := range objects {
		out = append(out, o.GetName()+"="+o.GetLabels()["v"])
	}
	slices.Sort(out)
	for _, f := range findings {
		out = append(out, "!"+f.Code)
	}
	return strings.Join(out, " ")
}

// TestContract holds every source to the same promises: all that is there comes first and at once, changes follow, what is
// removed goes.
func TestContract(t *testing.T) {
	type place struct {
		source Source
		set    func(objects map[string]string) // all objects, by name: the version
	}
	kube := func(name, version string) Kube {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"v": version}}}
	}
	for name, open := range map[string]func(t *testing.T) place{
		"files": func(t *testing.T) place {
			dir := t.TempDir()
			return place{quick(dir), func(objects map[string]string) {
				entries, _ := os.ReadDir(dir)
				for _, e := range entries {
					if name := strings.TrimSuffix(e.Name(), ".yaml"); objects[name] == "" {
						os.Remove(filepath.Join(dir, e.Name()))
					}
				}
				for name, version := range objects {
					write(t, dir, name+".yaml", service(name, version))
				}
			}}
		},
		"store": func(t *testing.T) place {
			s := openStore(t, filepath.Join(t.TempDir(), "objects.db"))
			return place{s, func(objects map[string]string) {
				var gone []Key
				for _, o := range s.List() {
					if objects[o.GetName()] == "" {
						gone = append(gone, o.Key())
					}
				}
				if _, err := s.Remove(gone); err != nil {
					t.Error(err)
				}
				for name, version := range objects {
					decoded, _ := Decode(LayerApplied, "x.yaml", []byte(service(name, version)))
					if _, err := s.Put(decoded, s.Mark()); err != nil {
						t.Error(err)
					}
				}
			}}
		},
		"runtime": func(t *testing.T) place {
			r := NewRuntime()
			return place{r, func(objects map[string]string) {
				var list []Kube
				for name, version := range objects {
					list = append(list, kube(name, version))
				}
				if err := r.Set(list); err != nil {
					t.Error(err)
				}
			}}
		},
		"runtime by changes": func(t *testing.T) place {
			r, there := NewRuntime(), map[string]string{}
			return place{r, func(objects map[string]string) {
				var set []Kube
				var gone []Key
				for name, version := range objects {
					if there[name] != version {
						set = append(set, kube(name, version))
					}
				}
				for name := range there {
					if objects[name] == "" {
						gone = append(gone, Key{Kind: "Service", Namespace: "default", Name: name})
					}
				}
				there = objects
				if err := r.Change(set, gone); err != nil {
					t.Error(err)
				}
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			p.set(map[string]string{"a": "1", "b": "1"})
			l := listen(t, p.source)
			l.await(t, "a=1 b=1")
			l.mu.Lock()
			if first := summary(l.states[0].Objects, nil); first != "a=1 b=1" {
				t.Errorf("the first state was %q", first)
			}
			l.mu.Unlock()
			p.set(map[string]string{"a": "1", "b": "1", "c": "1"})
			l.await(t, "a=1 b=1 c=1")
			p.set(map[string]string{"a": "2", "b": "1", "c": "1"})
			l.await(t, "a=2 b=1 c=1")
			p.set(map[string]string{"a": "2", "c": "1"})
			l.await(t, "a=2 c=1")
			p.set(map[string]string{})
			l.await(t, "")
		})
		t.Run(name+" empty", func(t *testing.T) {
			p := open(t)
			p.set(map[string]string{})
			listen(t, p.source).await(t, "")
		})
	}
}

func quick(paths ...string) *Files {
	return &Files{Paths: paths, Debounce: time.Millisecond, Settle: 50 * time.Millisecond}
}

// write puts a file in place at once, as editors do.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	tmp := filepath.Join(dir, "."+name+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestFilesKeepWhatWasAccepted(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.yaml", service("a", "1")+"---\n"+service("b", "1"))
	write(t, dir, "y.yaml", service("z", "1"))
	write(t, dir, "notes.txt", "not a manifest")
	write(t, dir, ".hidden.yaml", service("hidden", "1"))
	write(t, dir, "x_test.yaml", "tests:\n- {from: a, request: http://b/, expect: {to: b}}\n")
	l := listen(t, quick(dir))
	l.await(t, "a=1 b=1 z=1")

	// One document broken: its own object stays, the other changes.
	write(t, dir, "x.yaml", service("a", "2")+"---\n"+service("b", "2")+"nonsense: 1\n")
	s := l.await(t, "a=2 b=1 z=1 !PreviousKept !UnknownField")
	if f := s.Findings[1]; f.Line != 14 || f.File != filepath.Join(dir, "x.yaml") || f.Field != "nonsense" {
		t.Errorf("got %v", f)
	}
	// Not YAML at all: everything stays.
	write(t, dir, "x.yaml", "{{ template }}: [")
	l.await(t, "a=2 b=1 z=1 !SyntaxError !PreviousKept !PreviousKept")
	// Put right.
	write(t, dir, "x.yaml", service("a", "3"))
	l.await(t, "a=3 z=1")
	// A document that was never good brings nothing.
	write(t, dir, "w.yaml", service("w", "1")+"bad: 1\n")
	l.await(t, "a=3 z=1 !UnknownField")
	if err := os.Remove(filepath.Join(dir, "w.yaml")); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=3 z=1")
}

func TestFilesCheckRefuses(t *testing.T) {
	dir := t.TempDir()
	f := quick(dir)
	f.Check = func(o *Object) []model.Finding {
		if o.GetLabels()["v"] == "bad" {
			return []model.Finding{o.Finding(model.Error, "Bad", "metadata.labels.v", "bad", "")}
		}
		return []model.Finding{o.Finding(model.Warning, "Meh", "", "left to the compiler", "")}
	}
	write(t, dir, "a.yaml", service("a", "1"))
	l := listen(t, f)
	l.await(t, "a=1")
	write(t, dir, "a.yaml", service("a", "bad"))
	l.await(t, "a=1 !PreviousKept !Bad")
	write(t, dir, "a.yaml", service("a", "2"))
	l.await(t, "a=2")
}

// TestFilesSurviveTruncation writes a file as `cp` does: empty first. The objects are never gone in between.
func TestFilesSurviveTruncation(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write(t, dir, "a.yaml", service("a", "1"))
	f := quick(dir)
	f.Settle = time.Hour
	l := listen(t, f)
	l.await(t, "a=1")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "b.yaml", service("b", "1")) // seen after the truncation
	l.await(t, "a=1 b=1")
	if err := os.WriteFile(file, []byte(service("a", "2")), 0o644); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=2 b=1")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.states {
		if !strings.Contains(summary(s.Objects, nil), "a=") {
			t.Errorf("a was gone in %q", summary(s.Objects, nil))
		}
	}
}

func TestFilesMoveBetweenFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", service("a", "1"))
	l := listen(t, quick(dir))
	l.await(t, "a=1")
	write(t, dir, "b.yaml", service("a", "2"))
	s := l.await(t, "a=1 !DuplicateObject")
	if s.Findings[0].File != filepath.Join(dir, "b.yaml") {
		t.Errorf("got %v", s.Findings)
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=2")
}

func TestFilesWaitForPaths(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sub", "config")
	l := listen(t, quick(dir, filepath.Join(root, "one.conf")))
	l.await(t, "!FileMissing !FileMissing")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.json", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"v": "1"}}}`)
	l.await(t, "a=1 !FileMissing")
	write(t, root, "one.conf", service("b", "1"))
	l.await(t, "a=1 b=1")
	if err := os.RemoveAll(filepath.Join(root, "sub")); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=1 b=1 !SourceUnreadable")
}

func TestFilesSeeChangesWithoutEvents(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, "real.yaml", service("a", "1"))
	if err := os.Symlink(filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	f := quick(dir)
	f.Rescan = 20 * time.Millisecond
	l := listen(t, f)
	l.await(t, "a=1")
	write(t, elsewhere, "real.yaml", service("a", "22")) // no event: only the link's directory is watched
	l.await(t, "a=22")
}

// TestAgesSurviveRestart makes an object that was written first stay the older one, whatever their names.
func TestAgesSurviveRestart(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "objects.db")
	store := openStore(t, file)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	store.now = func() time.Time { at = at.Add(time.Minute); return at }
	f := quick(dir)
	f.Births = store.Births
	write(t, dir, "z.yaml", service("z", "1"))
	l := listen(t, f)
	born := l.await(t, "z=1").Objects[0].Born
	write(t, dir, "a.yaml", service("a", "1"))
	l.await(t, "a=1 z=1")
	write(t, dir, "z.yaml", service("z", "2"))
	l.await(t, "a=1 z=2")

	again := quick(dir)
	again.Births = store.Births
	s := listen(t, again).await(t, "a=1 z=2")
	slices.SortFunc(s.Objects, Older)
	if s.Objects[0].GetName() != "z" || !s.Objects[0].Born.Equal(born) {
		t.Errorf("oldest is %s, born %s, want z, %s", s.Objects[0].GetName(), s.Objects[0].Born, born)
	}
}
