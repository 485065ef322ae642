// Package offline answers questions about files of objects without a mesh: what is wrong with them (`weft analyze`), which way a
// request would take (`weft explain -f`), which requests two folders treat differently (`weft diff`), and whether what a file of
// tests expects is so (`weft test`). Deployments count as if they ran.
package offline

import (
	"fmt"
	"slices"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/document"
	"github.com/weftmesh/weft/internal/control/source/planned"
)

// MaxFileSize bounds a file of objects, in bytes: a larger one is refused.
const MaxFileSize = document.MaxFileSize

// IsTestName reports whether a file in a folder may be one of weft test.
func IsTestName(name string) bool { return document.IsTest(name) }

// IsTests reports whether a document holds tests, and no objects.
func IsTests(d api.Document) bool { return document.IsTest(d.Name) && document.HoldsTests(d.Content) }

// state is what documents come to.
type state struct {
	objects  []*source.Object // accepted by themselves, oldest first
	findings []model.Finding
	mesh     *model.Mesh
}

// load decodes and compiles documents; those of the wrong shape take part as far as they can be read, since their findings refuse the
// whole. Of objects that are written twice the first counts, as in folders that a mesh follows.
func load(docs []api.Document, o Options) *state {
	settings, findings := o.settings()
	st := &state{findings: findings}
	first := map[source.Key]*source.Object{}
	var drafts []*source.Object
	for _, d := range docs {
		objects, more, _, findings := source.Text{Layer: source.LayerFile, File: d.Name}.Drafts(d.Content)
		st.findings, drafts = append(st.findings, findings...), append(drafts, more...)
		for _, o := range objects {
			if before := first[o.Key()]; before != nil {
				st.findings = append(st.findings, o.Finding(model.Error, "DuplicateObject", "metadata.name",
					fmt.Sprintf("the same object is already in %s, line %d", before.Origin.File, before.Origin.Line),
					"keep one of them; the first, by order of files, is in force"))
				continue
			}
			first[o.Key()] = o
			st.objects = append(st.objects, o)
		}
	}
	slices.SortStableFunc(st.objects, source.Older)
	var found []model.Finding
	drafts = slices.DeleteFunc(drafts, func(d *source.Object) bool { return first[d.Key()] != nil })
	st.mesh, found = compile.Compile(compile.Input{Objects: planned.Complete(slices.Concat(st.objects, drafts)), Settings: settings})
	st.findings = source.SortFindings(append(st.findings, source.BesideShape(found, drafts)...))
	return st
}

// refused gives the errors among the findings; nil where there are none.
func (st *state) refused() []api.Finding {
	return Findings(slices.DeleteFunc(slices.Clone(st.findings), func(f model.Finding) bool { return f.Severity != model.Error }))
}

// Findings are findings as the API has them: as they are shown.
func Findings(fs []model.Finding) []api.Finding {
	out := make([]api.Finding, len(fs))
	for i := range fs {
		f := fs[i].Shown()
		out[i] = api.Finding{Severity: string(f.Severity), Code: f.Code, Object: api.Ref(f.Object), File: f.File, Line: f.Line,
			Field: f.Field, Message: f.Message, Hint: f.Hint, Text: f.String()}
	}
	return out
}
