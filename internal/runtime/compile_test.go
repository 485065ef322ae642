package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	env := func(n string) (string, bool) { v, ok := map[string]string{"A": "a", "E": ""}[n]; return v, ok }
	for in, want := range map[string]string{
		"$(A)": "a", "x$(A)y$(E)z": "xayz", "$$(A)": "$(A)", "$$$(A)": "$a", "$(B)": "$(B)", "$A $": "$A $", "$(A": "$(A", "$": "$", "": "",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B")
	f.Fuzz(func(t *testing.T, s string) {
		if got := expand(escape(s), func(string) (string, bool) { return "X", true }); got != s {
			t.Errorf("%q escaped gives %q", s, got)
		}
	})
}

func TestLookCommand(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "bin", "tool")
	if err := os.MkdirAll(filepath.Dir(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tool, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &Runtime{opt: Options{CommandDirs: []string{dir, filepath.Join(dir, "bin")}}}
	path := func(string) (string, bool) { return "/usr/bin:/bin", true }
	for name, want := range map[string]string{"tool": tool, "bin/tool": tool, "./bin/tool": tool, tool: tool, "sh": "sh"} {
		if got, err := r.lookCommand(name, "/", path); err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for _, name := range []string{"", "no-such-tool", "bin", dir, "/nonexistent"} {
		if got, err := r.lookCommand(name, "/", path); err == nil {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestNameServiceSwitch(t *testing.T) {
	if got := filesAndDNS("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"); got != "passwd: files\nhosts: files dns\n" {
		t.Error(got)
	}
}
