package source

import (
	"encoding/json"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// A draft is what a document that is refused for its shape says beside what is wrong with it. It is never in force: it is there to
// be judged, so that whoever puts the document right hears of everything at once.

// Drafts is Decode, and gives the drafts of refused documents too. Whole reports that there is one for each of them.
func (t Text) Drafts(data []byte) (objects, drafts []*Object, whole bool, findings []model.Finding) {
	whole = true
	for _, d := range t.decodeAll(data) {
		switch findings = append(findings, d.findings...); {
		case d.object != nil:
			objects = append(objects, d.object)
		case d.draft != nil:
			drafts = append(drafts, d.draft)
		default:
			whole = whole && !HasErrors(d.findings)
		}
	}
	return objects, drafts, whole, SortFindings(findings)
}

// gap is a place where a document does not have the right shape.
type gap struct {
	field   string // the one that is wrong, or the one that has an unknown one in it
	unknown bool   // it has, so that any other of its fields may be meant
}

// explains reports whether a finding may be there only because of the gap.
func (g gap) explains(f *model.Finding) bool {
	switch {
	case document.Within(g.field, f.Field):
		return true
	case !g.unknown:
		return document.Within(f.Field, g.field)
	case strings.HasSuffix(f.Code, "NotFound"):
		return true
	}
	name, ok := strings.CutPrefix(f.Field, g.field+".")
	return ok && !strings.ContainsAny(name, ".[")
}

// BesideShape leaves out what may be said of drafts only because of what is wrong with their shape.
func BesideShape(findings []model.Finding, drafts []*Object) []model.Finding {
	gaps := map[model.Ref][]gap{}
	for _, d := range drafts {
		gaps[d.Ref()] = append(gaps[d.Ref()], d.gaps...)
	}
	return slices.DeleteFunc(slices.Clone(findings), func(f model.Finding) bool {
		return slices.ContainsFunc(gaps[f.Object], func(g gap) bool { return g.explains(&f) })
	})
}

// draftOf fills in the draft from what a walk could take of a document; nil when that is too little.
func (w *reading) draftOf(root *yaml.Node, tree any, kind *Kind, origin Origin) *Object {
	if w.Full() {
		return nil
	}
	gaps := make([]gap, len(w.Findings))
	for i, f := range w.Findings {
		gaps[i] = gap{field: f.Field}
		if f.Code == "UnknownField" {
			gaps[i] = gap{f.Field[:max(strings.LastIndexByte(f.Field, '.'), 0)], true}
		}
	}
	value := kind.New()
	if !entire(tree) {
		return nil
	}
	breaches := judge(kind, tree, origin)
	data, err := json.Marshal(tree)
	if err != nil || json.Unmarshal(data, value) != nil {
		return nil
	}
	w.metadata(root, kind, value)
	if value.GetName() == "" {
		return nil
	}
	fillIn(value)
	return &Object{Kube: value, Kind: kind, Origin: origin, Born: value.GetCreationTimestamp().Time, places: document.OutlineOf(root), gaps: gaps,
		breaches: breaches}
}

// entire removes from a tree the fields that could not be taken, and reports whether its lists have all of their entries.
func entire(tree any) bool {
	switch t := tree.(type) {
	case map[string]any:
		for k, v := range t {
			if v == nil {
				delete(t, k)
			} else if !entire(v) {
				return false
			}
		}
	case []any:
		for _, v := range t {
			if v == nil || !entire(v) {
				return false
			}
		}
	}
	return true
}

// judgeDraft adds what check says of the draft of a refused document.
func (d *decoded) judgeDraft(check func(*Object) []model.Finding) {
	if d.draft != nil && check != nil {
		d.findings = append(d.findings, BesideShape(check(d.draft), []*Object{d.draft})...)
	}
}

// Keys says which objects documents name, each once, whatever else is in them: what is wrong with an object does not matter to who wants it
// gone. The findings are about documents that name none, or another namespace than they may.
func (t Text) Keys(data []byte) (keys []Key, findings []model.Finding) {
	for _, d := range t.decodeAll(data) {
		other := slices.DeleteFunc(slices.Clone(d.findings), func(f model.Finding) bool { return f.Code != codeOtherNamespace })
		switch {
		case d.key.Name == "":
			findings = append(findings, d.findings...)
		case len(other) > 0:
			findings = append(findings, other...)
		case !slices.Contains(keys, d.key):
			keys = append(keys, d.key)
		}
	}
	return keys, SortFindings(findings)
}
