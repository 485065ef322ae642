package status

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

var noon = time.Date(2024, 1, 1, 12, 0, 0, 0, time.UTC)

// TestGolden compiles the YAML at the top of each file of testdata and compares the statuses with those below, one file for each
// object.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := a.Files[0]
			want := map[string]string{}
			for _, f := range a.Files[1:] {
				want[f.Name] = string(f.Data)
			}
			got := map[string]string{}
			a.Files = a.Files[:1]
			for _, f := range statuses(t, in.Name, in.Data) {
				got[f.Name] = string(f.Data)
				a.Files = append(a.Files, f)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("run with -update to accept (-want +got):\n%s", diff)
			}
		})
	}
}

// statuses compiles objects and renders the status of each that has one, in their order. Nothing may change when it is merged again.
func statuses(t *testing.T, name string, data []byte) []txtar.File {
	t.Helper()
	objects, findings := source.Decode(source.LayerFile, name, data)
	mesh, found := compile.Compile(compile.Input{Objects: objects})
	all := Compute(Input{Objects: objects, Mesh: mesh, Findings: append(findings, found...)})
	var out []txtar.File
	for _, o := range objects {
		wanted, ok := all[o.Key()]
		if !ok {
			continue
		}
		merged, changed := Merge(Of(o.Kube), wanted, time.Time{}, noon)
		if !changed {
			t.Errorf("%s: nothing changed", o.Key())
		}
		if again, changed := Merge(merged, wanted, time.Time{}, noon.Add(time.Hour)); changed {
			t.Errorf("%s: changed again: %s", o.Key(), cmp.Diff(render(t, merged), render(t, again)))
		}
		out = append(out, txtar.File{Name: o.Key().String(), Data: []byte(render(t, merged))})
	}
	return out
}

func render(t *testing.T, s Status) string {
	t.Helper()
	b, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
