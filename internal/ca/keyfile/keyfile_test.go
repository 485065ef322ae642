package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	read := func(want string) {
		t.Helper()
		got, err := Read(path)
		if err != nil || string(got) != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v; want mode 0600", info, err)
		}
	}
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, text := range []string{"first", "second"} {
		if err := Create(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		read("first")
	}
	if err := Replace(path, []byte("third"), 0o600); err != nil {
		t.Fatal(err)
	}
	read("third")
	for _, mode := range []fs.FileMode{0o601, 0o620, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); !errors.Is(err, ErrMode) {
			t.Errorf("mode %o: %v, want ErrMode", mode, err)
		}
	}
	if err := Replace(path, make([]byte, maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a file beyond the bound: no error")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}
