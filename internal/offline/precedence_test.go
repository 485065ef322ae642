package offline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/expect"
)

// TestPrecedence asks who answers where objects want the same thing. Each file of testdata/precedence begins with the left cell of a
// row of "Which one counts" in docs/configuration.md, and holds objects and tests in the form of `weft test`; base.yaml is in every
// mesh. Objects that lose may be refused, so findings do not matter here.
func TestPrecedence(t *testing.T) {
	documented, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile("testdata/precedence/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/precedence/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			row := strings.TrimSpace(string(a.Comment))
			if !strings.Contains(string(documented), "\n| "+row+" | ") {
				t.Errorf("docs/configuration.md has no row %q", row)
			}
			counts(t, file, a, api.Document{Name: "base.yaml", Content: base})
		})
	}
}

// TestPrecedenceIsHeld has every row of the two tables in one of the files of TestPrecedence, or, where the answer is no request's, of
// the golden files of package compile.
func TestPrecedenceIsHeld(t *testing.T) {
	documented, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	for _, pattern := range []string{"testdata/precedence/*.txtar", "../control/compile/testdata/precedence/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			held[strings.TrimSpace(string(a.Comment))] = true
		}
	}
	_, rows, _ := strings.Cut(string(documented), "## Which one counts")
	rows, _, _ = strings.Cut(rows, "\n## ")
	for line := range strings.Lines(rows) {
		row, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if strings.HasPrefix(line, "| ") && ok && row != "in conflict" && row != "what is wrong" && !held[row] {
			t.Errorf("no test holds the row %q", row)
		}
	}
}

// TestMeaning holds what Istio's and the Gateway API's references say of single fields, in corner cases. Each file of testdata/meaning
// holds objects and tests in the form of `weft test`; base.yaml is in every mesh.
func TestMeaning(t *testing.T) {
	base, err := os.ReadFile("testdata/meaning/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/meaning/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			counts(t, file, a, api.Document{Name: "base.yaml", Content: base})
		})
	}
}

// counts runs the tests of an archive over its objects.
func counts(t *testing.T, file string, a *txtar.Archive, base api.Document) {
	docs := []api.Document{base}
	var tests *expect.File
	var settings *api.Document
	for _, f := range a.Files {
		switch f.Name {
		case "tests.yaml":
			var err error
			if tests, err = expect.Parse(file, f.Data); err != nil {
				t.Fatal(err)
			}
		case "mesh-config.yaml":
			settings = &api.Document{Name: f.Name, Content: f.Data}
		default:
			docs = append(docs, api.Document{Name: f.Name, Content: f.Data})
		}
	}
	st := load(docs, Options{RegistryOnly: tests.RegistryOnly, MeshConfig: settings})
	mesh := explain.Over(st.mesh)
	for _, test := range tests.Tests {
		if r := test.Run(file, mesh, false); !r.Passed() {
			t.Errorf("%s: %s %+v\nfindings: %v", r.Name, r.Error, r.Failures, st.findings)
		}
	}
}
