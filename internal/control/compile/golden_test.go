package compile

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestGolden compiles the YAML at the top of each file of testdata and compares mesh and findings with what is below. A file "ask"
// names a workload (NAMESPACE/NAME) and resources that its proxy asks for, each on a line; the messages it gets are below too.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, a)
		})
	}
}

func golden(t *testing.T, file string, a *txtar.Archive) {
	var objects []*source.Object
	var findings []model.Finding
	var inputs []txtar.File
	ask := ""
	want := map[string]string{}
	for _, f := range a.Files {
		if f.Name == "ask" {
			inputs, ask = append(inputs, f), string(f.Data)
			continue
		}
		if filepath.Ext(f.Name) != ".yaml" {
			want[f.Name] = string(f.Data)
			continue
		}
		inputs = append(inputs, f)
		o, found := source.Decode(source.LayerFile, f.Name, f.Data)
		objects, findings = append(objects, o...), append(findings, found...)
	}
	mesh, found := Compile(Input{Objects: objects})
	got := map[string]string{"mesh": dump(mesh), "findings": render(append(findings, found...))}
	if ask != "" {
		got["messages"] = messages(t, mesh, ask)
	}
	if *update {
		a.Files = append(inputs, txtar.File{Name: "mesh", Data: []byte(got["mesh"])}, txtar.File{Name: "findings", Data: []byte(got["findings"])})
		if ask != "" {
			a.Files = append(a.Files, txtar.File{Name: "messages", Data: []byte(got["messages"])})
		}
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run with -update to accept (-want +got):\n%s", diff)
	}
	again, foundAgain := Compile(Input{Objects: objects})
	if dump(again) != got["mesh"] || render(append(findings, foundAgain...)) != got["findings"] {
		t.Error("two compilations of the same objects differ")
	}
}

func render(f []model.Finding) string {
	var b strings.Builder
	for _, f := range source.SortFindings(f) {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}
