package diff_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/planned"
	"github.com/weftmesh/weft/internal/explain/diff"
)

var update = flag.Bool("update", false, "write the reports into the golden files")

const bookinfo = "../../../examples/bookinfo"

// TestGolden compares two meshes. The comment of a file names files of the example that both have, after "before:" and "after:" those
// that one has; its own files are in before/ or after/, or else in both.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var sides [2][]*source.Object
	add := func(side int, name string, data []byte) {
		objects, findings := source.Decode(source.LayerFile, name, data)
		for _, f := range findings {
			t.Errorf("decode: %s", f)
		}
		sides[side] = append(sides[side], objects...)
	}
	for line := range strings.Lines(string(a.Comment)) {
		names := strings.Fields(line)
		if len(names) == 0 || names[0] == "#" {
			continue
		}
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(bookinfo, strings.TrimPrefix(strings.TrimPrefix(name, "before:"), "after:")))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(name, "after:") {
				add(0, name, data)
			}
			if !strings.HasPrefix(name, "before:") {
				add(1, name, data)
			}
		}
	}
	want, at := "", -1
	for i, f := range a.Files {
		switch {
		case f.Name == "want":
			want, at = string(f.Data), i
			continue
		case !strings.HasPrefix(f.Name, "after/"):
			add(0, f.Name, f.Data)
		}
		if !strings.HasPrefix(f.Name, "before/") {
			add(1, f.Name, f.Data)
		}
	}
	before, after := mesh(t, sides[0]), mesh(t, sides[1])
	r := diff.Compare(before, after)
	var b strings.Builder
	if err := r.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(diff.CompareAll(before, after).Groups, r.Groups); d != "" {
		t.Errorf("what was left out differs (-all +got):\n%s", d)
	}
	for _, g := range r.Groups {
		for _, c := range g.Changes {
			if g.From[0] != "every workload" && c.Example.From != g.From[0] || c.Example.From == "" {
				t.Errorf("example from %q of a difference for %q", c.Example.From, g.From)
			}
		}
	}
	if *update {
		if at < 0 {
			a.Files = append(a.Files, txtar.File{Name: "want"})
			at = len(a.Files) - 1
		}
		a.Files[at].Data = []byte(b.String())
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := b.String(); got != want {
		t.Errorf("reports differ (run with -update to accept):\n%s\nwant\n%s", got, want)
	}
}

func mesh(t *testing.T, objects []*source.Object) *model.Mesh {
	t.Helper()
	m, findings := compile.Compile(compile.Input{Objects: planned.Complete(objects)})
	for _, f := range findings {
		if f.Severity == model.Error {
			t.Errorf("compile: %s", f)
		}
	}
	return m
}

// TestNamesThatAreHidden: where only the mesh knows the addresses of services, what a Sidecar hides has no name.
func TestNamesThatAreHidden(t *testing.T) {
	const narrow = `apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: n0}
spec: {egress: [{hosts: ["./*"]}]}
`
	for virtual, want := range map[bool]string{
		true:  "the name does not resolve: Sidecar/n0/narrow does not import it",
		false: "passed through: the mesh does not know it",
	} {
		r := diff.CompareServed(large(t, 2, narrow), large(t, 2, ""), virtual)
		var b strings.Builder
		if err := r.WriteText(&b, false); err != nil || !strings.Contains(b.String(), "before  "+want) {
			t.Errorf("virtual %v: %v, %s", virtual, err, b.String())
		}
	}
}
