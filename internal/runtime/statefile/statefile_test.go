package statefile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteAndRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.json")
	got := map[string]int{"kept": 1}
	if err := Read(file, &got); err != nil || got["kept"] != 1 {
		t.Fatalf("missing file: %v %v", got, err)
	}
	for i := range 2 {
		if err := Write(file, map[string]int{"n": i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Read(file, &got); err != nil || got["n"] != 1 {
		t.Errorf("%v %v", got, err)
	}
	fi, err := os.Stat(file)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if rest, _ := filepath.Glob(filepath.Dir(file) + "/.*"); len(rest) > 0 {
		t.Errorf("left %v", rest)
	}
	if err := Write("/nonexistent/f", 1); err == nil {
		t.Error("written nowhere")
	}
}
