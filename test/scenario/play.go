// Package scenario plays scripts against a whole mesh in one process, in virtual time. README.md describes the language.
package scenario

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/test/mesh"
)

// settle is how long a change of configuration or of what runs may take until it is in force everywhere.
const settle = 500 * time.Millisecond

// limit bounds a scenario, in virtual time. A request that hangs fails it then.
const limit = 30 * 24 * time.Hour

// Play plays the scenario in an archive. Files are available to its script besides the archive's own, by name; a script that names
// no manifests starts with bookinfo.yaml of them.
func Play(t *testing.T, archive string, files map[string]string) {
	t.Helper()
	s, files, own := read(t, archive, files)
	for _, name := range own {
		if !slices.Contains(s.used, name) {
			t.Errorf("%s: no step uses %s", archive, name)
		}
	}
	if len(s.manifests) == 0 {
		s.manifests = []string{"bookinfo.yaml"}
	}
	synctest.Test(t, func(t *testing.T) { perform(t, s, files) })
}

// read parses an archive. It gives all files that its steps may name, and the names of its own.
func read(t *testing.T, archive string, files map[string]string) (s *script, all map[string]string, own []string) {
	t.Helper()
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	a := txtar.Parse(data)
	all = maps.Clone(files)
	for _, f := range a.Files {
		all[f.Name], own = string(f.Data), append(own, f.Name)
	}
	if s, err = parse(filepath.Base(archive), string(a.Comment), all); err != nil {
		t.Fatal(err)
	}
	return s, all, own
}

func perform(t *testing.T, s *script, files map[string]string) {
	o := mesh.Options{}
	for _, name := range s.manifests {
		o.Manifests = append(o.Manifests, mesh.File{Name: name, Text: files[name]})
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := &run{t: t, ctx: ctx, mesh: mesh.Start(t, o), files: files, past: map[string]int{}}
	pass(settle)
	r.play(s)
	if t.Failed() {
		r.showLogs()
	}
}

// shownLines is how much of each proxy's access log a failed scenario shows.
const shownLines = 10

func (r *run) showLogs() {
	pass(settle)
	for _, p := range r.mesh.Pods("") {
		text, err := r.mesh.Log(p.Name)
		lines := strings.Split(strings.TrimSpace(text), "\n")
		r.t.Logf("the end of the access log of %s (%v):\n%s", p.Name, err, strings.Join(lines[max(0, len(lines)-shownLines):], "\n"))
	}
}

// pass lets virtual time pass, and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Archives lists the scenarios of a folder.
func Archives(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no scenarios in %s", dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ReadTree reads the YAML files of a folder and its folders for Play, each under its path in it.
func ReadTree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	tree := os.DirFS(root)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".yaml" {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
