package source

import (
	"encoding/json"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// Embedded reads a document that a field of the object holds as text, such as an entry of a ConfigMap, into a message, as strictly
// as a document of its own. Findings name the document's own fields behind the path of the field, and the lines of the file where
// the text stands there as it is (a literal block); else that of the field. Where there are findings the message has what could be read
// beside what they are about, to be judged with BesideFields.
func (o *Object) Embedded(path, text string, into proto.Message) []model.Finding {
	root, problem := document.Embedded(o.places, o.Origin.File, path, text, o.Origin.Line)
	if problem != nil {
		problem.Object, problem.Field = o.Ref(), path
		return []model.Finding{*problem}
	}
	if root == nil {
		return nil
	}
	w := &document.Walker{File: o.Origin.File, Ref: o.Ref()}
	if root.Kind != yaml.MappingNode {
		w.Add(root, "NotAnObject", path, "want fields and their values, got "+document.Describe(root), "")
		return w.Findings
	}
	tree := w.Message(root, into.ProtoReflect().Descriptor(), path)
	if len(w.Findings) > 0 {
		if data, err := json.Marshal(tree); !entire(tree) || err != nil || json.Unmarshal(data, into) != nil {
			proto.Reset(into)
		}
		return w.Findings
	}
	data, err := json.Marshal(tree)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		w.Add(root, "InvalidValue", path, err.Error(), "")
	}
	return w.Findings
}

// BesideFields leaves out what may be said of a document only because some of its fields could not be read.
func BesideFields(findings, problems []model.Finding) []model.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f model.Finding) bool {
		return slices.ContainsFunc(problems, func(p model.Finding) bool {
			return p.Code != "UnknownField" && gap{field: p.Field}.explains(&f)
		})
	})
}

// Wrap makes of a file that holds one bare document the object that would hold it as text in the field of the given path, so that
// both are read by the same code; Embedded then reads the document with the file's own lines. The object is Kube with that field
// filled in by the caller.
func Wrap(file string, data []byte, kube Kube, path string) (*Object, []model.Finding) {
	places, problem := document.Wrap(file, data, path)
	if problem != nil {
		return nil, []model.Finding{*problem}
	}
	return &Object{Kube: kube, Kind: kindsByType[reflect.TypeOf(kube)], Origin: Origin{Layer: LayerFile, File: file, Line: 1}, places: places}, nil
}
