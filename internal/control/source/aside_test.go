package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// bulk makes a file large without an object in it.
var bulk = strings.Repeat("# a file of many lines\n", asideSize/20)

// holding is a check of objects that lasts, for those of a name, until it is let go.
type holding struct {
	name     string
	under    chan struct{} // receives when one is being checked
	released chan struct{}
}

func (h *holding) check(o *Object) []model.Finding {
	if o.GetName() == h.name {
		h.under <- struct{}{}
		<-h.released
	}
	return nil
}

func holdingUp(name string) *holding {
	return &holding{name, make(chan struct{}, 10), make(chan struct{})}
}

// TestLargeFileIsReadAside: while a large file is judged, others' changes are published, and what may have moved into it stays.
func TestLargeFileIsReadAside(t *testing.T) {
	dir, h := t.TempDir(), holdingUp("large")
	write(t, dir, "a.yaml", service("a", "1")+"---\n"+service("moved", "1"))
	write(t, dir, "large.yaml", bulk+service("b", "1"))
	f := quick(dir)
	f.Check = h.check
	l := listen(t, f)
	l.await(t, "a=1 b=1 moved=1")

	write(t, dir, "large.yaml", bulk+service("large", "2")+"---\n"+service("moved", "2"))
	<-h.under
	write(t, dir, "a.yaml", service("a", "2"))
	l.await(t, "a=2 b=1 moved=1")
	settled := time.After(2 * f.Settle)
	<-settled // what is gone for longer would be believed to be
	write(t, dir, "a.yaml", service("a", "3"))
	l.await(t, "a=3 b=1 moved=1")
	close(h.released)
	l.await(t, "a=3 large=2 moved=2")
	l.always(t, 0, "moved=")
}

// TestLargeFileChangesWhileItIsRead: what it holds in the end is in force in the end, and what is removed meanwhile is not.
func TestLargeFileChangesWhileItIsRead(t *testing.T) {
	dir, h := t.TempDir(), holdingUp("large")
	write(t, dir, "a.yaml", service("a", "1"))
	f := quick(dir)
	f.Check = h.check
	l := listen(t, f)
	l.await(t, "a=1")
	write(t, dir, "large.yaml", bulk+service("large", "1"))
	<-h.under
	write(t, dir, "large.yaml", bulk+service("large", "2"))
	write(t, dir, "gone.yaml", bulk+service("large", "3"))
	if err := os.Remove(filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", service("a", "2"))
	l.await(t, "a=2")
	close(h.released)
	l.await(t, "a=2 large=2")
}

// TestUnchangedFilesAreNotRead: only a file that has stayed the same for long is taken for unchanged by its looks.
func TestUnchangedFilesAreNotRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	mark := markOf(name)
	for _, c := range []struct {
		name string
		file readFile
		want bool
	}{
		{"read long after it changed", readFile{mark: mark, at: mark.changed.Add(restless + 1)}, true},
		{"read when it had just changed", readFile{mark: mark, at: mark.changed.Add(restless)}, false},
		{"never read", readFile{mark: mark}, false},
		{"of another size", readFile{mark: fileMark{mark.size + 1, mark.changed, mark.info}, at: mark.changed.Add(time.Hour)}, false},
	} {
		if got := c.file.stays(mark); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMemoryOfFilesFollows(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "objects.db"))
	read := func(name, version string) *Object {
		objects, findings := Decode(LayerFile, "mesh.yaml", []byte(service(name, version)))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		return objects[0]
	}
	a, b := read("a", "1"), read("b", "1")
	for _, step := range []struct {
		known, objects []*Object
		want           string
	}{
		{nil, []*Object{a, b}, "a=1 b=1"},
		{[]*Object{a, b}, []*Object{a, read("c", "1")}, "a=1 c=1"},
		{nil, []*Object{b}, "b=1"},
		{[]*Object{b}, []*Object{read("b", "2")}, "b=2"},
	} {
		if err := s.remember(step.known, step.objects); err != nil {
			t.Fatal(err)
		}
		if got := summary(s.recall(), nil); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}
