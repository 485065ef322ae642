package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedStoreIsAnError opens databases that were cut off, overwritten and scribbled on: each is one error that says what
// to do, or opens; none takes the process down.
func TestDamagedStoreIsAnError(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.db")
	s, err := OpenStore(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(name string, content []byte) {
		file := filepath.Join(t.TempDir(), "objects.db")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(file)
		if err == nil {
			s.Close()
			return
		}
		refused++
		if !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{1, 100, 4096, 9000, len(whole) / 2} {
		try("cut off", whole[:min(n, len(whole)-1)])
	}
	try("random", bytes.Repeat([]byte("weft"), 5000))
	for at := 0; at < len(whole); at += 4096 {
		scribbled := bytes.Clone(whole)
		copy(scribbled[at:], bytes.Repeat([]byte{0x55}, 64))
		try("scribbled on", scribbled)
	}
	if refused < 4 {
		t.Errorf("only %d of the damaged files were refused", refused)
	}
}
