package scenario

import (
	"fmt"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/offline"
)

// offlineTests runs files of tests as `weft test` does: what a scenario proves with requests, they have to say beforehand. Objects
// that they name are files of the scenario.
func offlineTests(files []string) action {
	return func(r *run) (*outcome, error) {
		for _, file := range files {
			results, err := offline.Test(file, []byte(r.files[file]), r.documents, func(string) bool { return true }, offline.Options{})
			if err != nil {
				return nil, err
			}
			for i := range results {
				if t := &results[i]; !t.Passed() {
					return nil, fmt.Errorf("%s:%d: %s: %s%v\n%s", t.File, t.Line, t.Name, t.Error, t.Failures, t.Text)
				}
			}
		}
		return nil, nil
	}
}

// documents gives files of the scenario by name.
func (r *run) documents(names []string) ([]api.Document, error) {
	var docs []api.Document
	for _, name := range names {
		text, ok := r.files[name]
		if !ok {
			return nil, fmt.Errorf("there is no file %s", name)
		}
		docs = append(docs, api.Document{Name: name, Content: []byte(text)})
	}
	return docs, nil
}
