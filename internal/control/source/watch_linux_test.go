package source

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// slowly are Files that would be read an hour after a change, but for what is known to be complete.
func slowly(paths ...string) *Files {
	f := quick(paths...)
	f.Debounce, f.Rescan = time.Hour, time.Hour
	return f
}

// TestCompleteFilesAreReadAtOnce: a file that was renamed, closed by its writer, linked or removed is complete.
func TestCompleteFilesAreReadAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := listen(t, slowly(dir))
	l.await(t, "")
	write(t, dir, "a.yaml", service("a", "1"))
	l.await(t, "a=1")
	name := filepath.Join(dir, "b.yaml")
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return os.WriteFile(name, []byte(service("b", "1")), 0o644) }, "a=1 b=1"},
		{func() error { return os.WriteFile(name, []byte(service("b", "2")), 0o644) }, "a=1 b=2"},
		{func() error { return os.Link(name, filepath.Join(dir, "c.yaml")) }, "a=1 b=2 !DuplicateObject"},
		{func() error { return os.Remove(filepath.Join(dir, "c.yaml")) }, "a=1 b=2"},
		{func() error { return os.Symlink(name, filepath.Join(dir, "d.yaml")) }, "a=1 b=2 !DuplicateObject"},
		{func() error { return os.Remove(filepath.Join(dir, "d.yaml")) }, "a=1 b=2"},
		{func() error { return os.Rename(name, filepath.Join(dir, "b.bak")) }, "a=1"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		l.await(t, step.want)
	}
}

// TestHalfWrittenFilesAreNotRead: a file that is being written holds what it held before, whatever others do.
func TestHalfWrittenFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", service("a", "1"))
	write(t, dir, "b.yaml", service("b", "1"))
	l := listen(t, quick(dir))
	l.await(t, "a=1 b=1")
	f, err := os.Create(filepath.Join(dir, "a.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := service("a", "2")
	if _, err := f.WriteString(text[:len(text)/2]); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "b.yaml", service("b", "2"))
	l.await(t, "a=1 b=2")
	if _, err := f.WriteString(text[len(text)/2:]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=2 b=2")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.states {
		if len(s.Findings) > 0 {
			t.Errorf("read when it was half written: %v", s.Findings)
		}
	}
}
