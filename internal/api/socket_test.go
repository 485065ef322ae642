package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListen: one process has the socket, takes over what a dead one has left, and leaves nothing.
func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "weft", "m")
	l, err := Listen("m", dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("m", dir); err == nil || !strings.Contains(err.Error(), `"m" runs here already`) {
		t.Errorf("a second one: %v", err)
	}
	if err := os.Link(filepath.Join(dir, "api.sock"), filepath.Join(dir, "left")); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.Rename(filepath.Join(dir, "left"), filepath.Join(dir, "api.sock")); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen("m", dir); err != nil {
		t.Fatalf("after one that was killed: %v", err)
	}
	l.Close()
	Leave(dir)
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", filepath.Dir(dir), err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("m", dir); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("in a folder that others may enter: %v", err)
	}
}
