package arch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryDependencyHasItsReason compares the modules that we require directly with docs/dependencies.md.
func TestEveryDependencyHasItsReason(t *testing.T) {
	root := filepath.Join("..", "..")
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	required := map[string]bool{}
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		required[r.Path] = true
		if !strings.Contains(string(text), "`"+r.Path+"`") {
			t.Errorf("docs/dependencies.md gives no reason for %s", r.Path)
		}
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for i, part := range strings.Split(strings.SplitN(line, "|", 3)[1], "`") {
			if i%2 == 1 && !required[part] {
				t.Errorf("docs/dependencies.md names %s, which is not required", part)
			}
		}
	}
}
