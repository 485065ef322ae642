package offline

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/compile/idle"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff"
	"github.com/weftmesh/weft/internal/explain/expect"
)

// Options are what a mesh is told at its start.
type Options struct {
	// RegistryOnly refuses destinations that the mesh does not know.
	RegistryOnly bool
	// MeshConfig is the file of settings that the mesh would be started with; nil for none.
	MeshConfig *api.Document
	// Color writes texts for a terminal.
	Color bool
}

// settings are those of the mesh, and what is wrong with the file of them.
func (o Options) settings() (model.Settings, []model.Finding) {
	s := model.Settings{}
	s.RegistryOnly = o.RegistryOnly
	if o.MeshConfig == nil {
		return s, nil
	}
	s, findings := compile.StartSettings(o.MeshConfig.Name, o.MeshConfig.Content, s)
	s.RegistryOnly = s.RegistryOnly || o.RegistryOnly
	return s, findings
}

// Analysis is what there is to say about documents.
type Analysis struct {
	Files    int           `json:"files"`
	Objects  int           `json:"objects"` // accepted by themselves
	Findings []api.Finding `json:"findings"`
}

// Count gives the number of findings of a severity.
func (a *Analysis) Count(severity string) (n int) {
	for _, f := range a.Findings {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

// Analyze judges documents as if they were a mesh. The findings are sorted by file and line.
func Analyze(docs []api.Document, o Options) Analysis {
	st := load(docs, o)
	found := source.SortFindings(append(st.findings, idle.Findings(st.objects, st.mesh, st.findings)...))
	return Analysis{Files: len(docs), Objects: len(st.objects), Findings: Findings(found)}
}

// RefusedError says that documents do not make a mesh that could be asked.
type RefusedError struct{ Findings []api.Finding }

func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the files have %d errors", len(e.Findings))
	if len(e.Findings) == 1 {
		b.Reset()
		b.WriteString("the files have an error")
	}
	for i, f := range e.Findings {
		if i == 10 {
			b.WriteString("\n  ...")
			break
		}
		b.WriteString("\n  " + f.Text)
	}
	return b.String()
}

// good gives the state of documents without errors.
func good(docs []api.Document, o Options) (*state, error) {
	st := load(docs, o)
	if errs := st.refused(); len(errs) > 0 {
		return nil, &RefusedError{errs}
	}
	return st, nil
}

// Explain says what would happen to a request in the mesh of the documents.
func Explain(docs []api.Document, req api.ExplainRequest, o Options) (api.ExplainReply, error) {
	st, err := good(docs, o)
	if err != nil {
		return api.ExplainReply{}, err
	}
	q := explain.Request{From: req.From, Method: req.Method, URL: req.URL, ServerName: req.ServerName}
	for _, h := range req.Headers {
		q.Headers = append(q.Headers, explain.Field{Name: h.Name, Value: h.Value})
	}
	report, err := explain.Mesh(st.mesh, q)
	if err != nil {
		return api.ExplainReply{}, err
	}
	var text strings.Builder
	if err := report.WriteText(&text, o.Color); err != nil {
		return api.ExplainReply{}, err
	}
	raw, err := json.Marshal(report)
	return api.ExplainReply{Report: raw, Text: text.String()}, err
}

// Diff says which requests two sets of documents treat differently.
func Diff(before, after []api.Document, o Options) (api.DiffReply, error) {
	b, err := good(before, o)
	if err != nil {
		return api.DiffReply{}, fmt.Errorf("before: %w", err)
	}
	a, err := good(after, o)
	if err != nil {
		return api.DiffReply{}, fmt.Errorf("after: %w", err)
	}
	return Compared(b.mesh, a.mesh, false, o.Color)
}

// Compared is the reply about two meshes. Virtual is that of explain.View.
func Compared(before, after *model.Mesh, virtual, color bool) (api.DiffReply, error) {
	r := diff.CompareServed(before, after, virtual)
	var text strings.Builder
	if err := r.WriteText(&text, color); err != nil {
		return api.DiffReply{}, err
	}
	raw, err := json.Marshal(r)
	return api.DiffReply{Different: r.Different(), Report: raw, Text: text.String()}, err
}

// Test runs the tests of a file whose names take accepts. Read gives the documents of the files and folders that the file names, as
// it names them.
func Test(file string, data []byte, read func(paths []string) ([]api.Document, error), take func(name string) bool, o Options) ([]expect.Result, error) {
	f, err := expect.Parse(file, data)
	if err != nil {
		return nil, err
	}
	if f.MeshConfig != "" {
		settings, err := read([]string{f.MeshConfig})
		if err != nil {
			return nil, fmt.Errorf("%s: meshConfig: %w", file, err)
		}
		o.MeshConfig = &settings[0]
	}
	o.RegistryOnly = o.RegistryOnly || f.RegistryOnly
	docs, err := read(f.Objects)
	if err != nil {
		return nil, fmt.Errorf("%s: objects: %w", file, err)
	}
	st, err := good(docs, o)
	if err != nil {
		return nil, fmt.Errorf("%s: objects: %w", file, err)
	}
	mesh := explain.Over(st.mesh)
	var out []expect.Result
	for _, t := range f.Tests {
		if take(t.Name) {
			out = append(out, t.Run(file, mesh, o.Color))
		}
	}
	return out, nil
}
