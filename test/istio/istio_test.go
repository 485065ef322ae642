package istio

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weftmesh/weft/test/scenario"
)

// fixtures is where the sample's files are in our continuous integration; they are no part of the repository.
const fixtures = "../../../shared/fixtures/istio-bookinfo"

// sample reads the sample's files, by their path in it, or skips the test.
func sample(t *testing.T) map[string]string {
	t.Helper()
	if _, err := os.Stat(fixtures); os.IsNotExist(err) {
		t.Skipf("Istio's sample is not at %s", fixtures)
	}
	return scenario.ReadTree(t, fixtures)
}

func TestSample(t *testing.T) {
	files := sample(t)
	files["bookinfo.yaml"] = scenario.ReadTree(t, "../../examples/bookinfo")["bookinfo.yaml"]
	for _, archive := range scenario.Archives(t, "testdata") {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".txtar"), func(t *testing.T) {
			t.Parallel()
			scenario.Play(t, archive, files)
		})
	}
}

// TestEveryFileIsProven finds files of the sample that no scenario applies.
func TestEveryFileIsProven(t *testing.T) {
	scripts := ""
	for _, archive := range scenario.Archives(t, "testdata") {
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		scripts += string(data)
	}
	for name := range sample(t) {
		if !strings.Contains(scripts, name) {
			t.Errorf("no scenario applies %s", name)
		}
	}
}
