// Package istio proves that the configuration of Istio's Bookinfo sample, file by file and unchanged, is accepted and does what
// each file's name says: by requests through a whole mesh.
package istio

import (
	"io/fs"
	"maps"
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
	files := map[string]string{}
	err := filepath.WalkDir(fixtures, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[filepath.ToSlash(strings.TrimPrefix(path, fixtures+"/"))] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSample(t *testing.T) {
	files := sample(t)
	maps.Copy(files, scenario.ReadFiles(t, "../../examples/bookinfo/bookinfo.yaml"))
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
