package offline

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/api"
)

var update = flag.Bool("update", false, "rewrite the findings in testdata/analyze")

// TestAnalyze holds what is said of the objects at the top of each file of testdata/analyze.
func TestAnalyze(t *testing.T) {
	files, err := filepath.Glob("testdata/analyze/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var docs []api.Document
			var want string
			for _, f := range a.Files {
				if f.Name == "findings" {
					want = string(f.Data)
				} else {
					docs = append(docs, api.Document{Name: f.Name, Content: f.Data})
				}
			}
			var got strings.Builder
			for _, f := range Analyze(docs, Options{}).Findings {
				got.WriteString(f.Text + "\n")
			}
			if *update {
				a.Files = append(a.Files[:len(docs)], txtar.File{Name: "findings", Data: []byte(got.String())})
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("run with -update to accept (-want +got):\n%s", diff)
			}
		})
	}
}
