package compile

import (
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/source"
)

// FuzzCompile compiles whatever the decoder lets through, drafts too: it never panics, says the same twice, and every finding has its place.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range a.Files {
			if filepath.Ext(part.Name) == ".yaml" {
				f.Add(part.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, drafts, _, _ := source.Text{Layer: source.LayerFile, File: "in.yaml"}.Drafts(data)
		Compile(Input{Objects: append(drafts, objects...)})
		mesh, findings := Compile(Input{Objects: objects})
		again, foundAgain := Compile(Input{Objects: objects})
		if dump(mesh) != dump(again) || render(findings) != render(foundAgain) {
			t.Error("two compilations of the same objects differ")
		}
		for _, f := range findings {
			if f.File == "" || f.Line < 1 || f.Code == "" || f.Message == "" {
				t.Errorf("incomplete: %+v", f)
			}
		}
		for _, rs := range mesh.RouteSets {
			if len(rs.Hosts) == 0 && (rs.Mesh || len(rs.Gateways) == 0) {
				t.Errorf("%s: a route set without hosts", rs.Ref)
			}
		}
	})
}
