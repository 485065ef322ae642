package source

import (
	"encoding/json"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Embedded reads a document that a field of the object holds as text, such as an entry of a ConfigMap, into a message, as strictly
// as a document of its own. Findings name the document's own fields behind the path of the field, and the lines of the file where
// the text stands there as it is (a literal block); else that of the field.
func (o *Object) Embedded(path, text string, into proto.Message) []model.Finding {
	root, problem := o.embedded(path, text)
	if problem != nil {
		problem.Object, problem.Field = o.Ref(), path
		return []model.Finding{*problem}
	}
	if root == nil {
		return nil
	}
	w := &walker{file: o.Origin.File, ref: o.Ref()}
	if root.Kind != yaml.MappingNode {
		w.add(root, "NotAnObject", path, "want fields and their values, got "+describe(root), "")
		return w.findings
	}
	tree := w.message(root, into.ProtoReflect().Descriptor(), path)
	if len(w.findings) > 0 {
		return w.findings
	}
	data, err := json.Marshal(tree)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		w.add(root, "InvalidValue", path, err.Error(), "")
	}
	return w.findings
}

// embedded parses a text with the lines that it has in the file; nil when it is empty.
func (o *Object) embedded(path, text string) (*yaml.Node, *model.Finding) {
	line, placed := o.Line(path), false
	if o.places != nil {
		if in, ok := o.places.innardsOf(path); ok && in.root != nil {
			return in.root, nil // see Wrap
		} else if ok {
			line, placed = in.line, true
		}
	}
	roots, problem := parse(o.Origin.File, []byte(text), max(line, 1))
	if problem != nil || len(roots) == 0 {
		if problem != nil && !placed {
			problem.Line = line
		}
		return nil, problem
	}
	if !placed {
		flatten(roots[0], line)
	}
	return roots[0], nil
}

// isLiteral reports whether a scalar's lines are lines of the file.
func isLiteral(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Style&yaml.LiteralStyle != 0 }

// flatten puts a whole tree on one line.
func flatten(n *yaml.Node, line int) {
	n.Line = line
	for _, c := range n.Content {
		flatten(c, line)
	}
}

// Wrap makes of a file that holds one bare document the object that would hold it as text in the field of the given path, so that
// both are read by the same code; Embedded then reads the document with the file's own lines. The object is Kube with that field
// filled in by the caller.
func Wrap(file string, data []byte, kube Kube, path string) (*Object, []model.Finding) {
	roots, problem := parse(file, data, 1)
	if problem != nil {
		return nil, []model.Finding{*problem}
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}
	if len(roots) > 0 {
		root = roots[0]
	}
	outer := &yaml.Node{Kind: yaml.ScalarNode, Line: 1}
	for _, step := range slices.Backward(steps(path)) {
		key, _ := step.(string)
		outer = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1,
			Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: 1}, outer}}
	}
	places := outlineOf(outer)
	places.hold(len(places.spots)-1, innards{root: root}) // the innermost is the last
	return &Object{Kube: kube, Kind: kindsByType[reflect.TypeOf(kube)], Origin: Origin{Layer: LayerFile, File: file, Line: 1}, places: places}, nil
}
