package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// always checks that an object was in every state from one on.
func (l *listener) always(t *testing.T, from int, object string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.states[from:] {
		if !strings.Contains(summary(s.Objects, nil), object) {
			t.Errorf("%s was gone in %q", object, summary(s.Objects, s.Findings))
		}
	}
}

func TestFolderAway(t *testing.T) {
	root := t.TempDir()
	dir, aside := filepath.Join(root, "mesh"), filepath.Join(root, "aside")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", service("a", "1")+"---\n"+service("b", "1"))
	write(t, dir, "p.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {nonsense: 1}\n")
	l := listen(t, quick(dir))
	const there = "a=1 b=1 p= "
	l.await(t, there+"!PolicyFailsClosed !UnknownField")
	before := time.Now().Add(-time.Second)
	_, from := l.last()

	move(t, dir, aside)
	s := l.await(t, there+"!SourceUnreadable !PolicyFailsClosed !UnknownField")
	f := s.Findings[0]
	_, rest, _ := strings.Cut(f.Message, "since ")
	since, why, _ := strings.Cut(rest, ": ")
	if at, err := time.Parse(time.RFC3339, since); err != nil || at.Before(before.Truncate(time.Second)) || at.After(time.Now()) {
		t.Errorf("away since %q: %v", since, err)
	}
	if f.File != dir || why != "no such file or directory" || !strings.Contains(f.Hint, "stays in force") {
		t.Errorf("got %v", f)
	}
	// Back, and with another content.
	write(t, aside, "c.yaml", service("c", "1"))
	move(t, aside, dir)
	l.await(t, "a=1 b=1 c=1 p= !PolicyFailsClosed !UnknownField")
	l.always(t, from, "a=1")
	l.always(t, from, "p=")
	// In a folder that is there, what is deleted is gone.
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	l.await(t, "c=1 p= !PolicyFailsClosed !UnknownField")
}

// TestFolderUnmounted leaves an empty folder in the place of the one that was read.
func TestFolderUnmounted(t *testing.T) {
	root := t.TempDir()
	dir, aside := filepath.Join(root, "mesh"), filepath.Join(root, "aside")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", service("a", "1"))
	l := listen(t, quick(dir))
	l.await(t, "a=1")
	move(t, dir, aside)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=1 !SourceUnreadable")
	// A file says that it is the source now, and what it holds.
	write(t, dir, "none.yaml", "")
	l.await(t, "")
}

func TestFileAway(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "a.yaml")
	write(t, root, "a.yaml", service("a", "1"))
	l := listen(t, quick(file))
	l.await(t, "a=1")
	move(t, file, file+"~") // as some editors begin to save
	l.await(t, "a=1 !SourceUnreadable")
	write(t, root, "a.yaml", service("a", "2"))
	l.await(t, "a=2")
	write(t, root, "a.yaml", "")
	l.await(t, "")
}

// TestAwayAtStart has a folder that is away when the control plane starts hold what it held before.
func TestAwayAtStart(t *testing.T) {
	root := t.TempDir()
	dir, store := filepath.Join(root, "mesh"), openStore(t, filepath.Join(root, "objects.db"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", service("a", "1"))
	first := quick(dir)
	first.memory = store
	listen(t, first).await(t, "a=1")
	move(t, dir, filepath.Join(root, "aside"))
	again := quick(dir)
	again.memory = store
	l := listen(t, again)
	l.await(t, "a=1 !SourceUnreadable")
	l.always(t, 0, "a=1")
	move(t, filepath.Join(root, "aside"), dir)
	l.await(t, "a=1")
}

// TestMountedConfigMap changes files as a kubelet does: they are links through ..data, which is a link that is replaced.
func TestMountedConfigMap(t *testing.T) {
	dir := t.TempDir()
	put := func(version string, names ...string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, "..v"+version), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			write(t, filepath.Join(dir, "..v"+version), n+".yaml", service(n, version))
		}
		if err := os.Symlink("..v"+version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		move(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	put("1", "a", "b")
	for _, n := range []string{"a.yaml", "b.yaml"} {
		if err := os.Symlink(filepath.Join("..data", n), filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	l := listen(t, quick(dir))
	l.await(t, "a=1 b=1")
	linked := listen(t, quick(filepath.Join(dir, "..data")))
	linked.await(t, "a=1 b=1")
	put("2", "a")
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..v1")); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=2")
	linked.await(t, "a=2")
	l.always(t, 0, "a=")
}
