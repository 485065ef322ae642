package source

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
	"github.com/weftmesh/weft/internal/control/source/schema"
)

// Text says where documents are from.
type Text struct {
	// Layer is that of the objects: LayerFile or LayerApplied.
	Layer string
	// File is the name shown to the user.
	File string
	// Namespace is that of objects which name none, and then no object may name another. Empty is DefaultNamespace, and any may be named.
	Namespace string
}

// Decode reads the documents of a file, YAML or JSON, as objects. See Text.Decode.
func Decode(layer, file string, data []byte) ([]*Object, []model.Finding) {
	return Text{Layer: layer, File: file}.Decode(data)
}

// Decode reads documents, YAML or JSON, as objects. Each document is taken whole or refused with findings that name file, line and
// field; the others are not affected. Born is the document's creationTimestamp, or zero.
func (t Text) Decode(data []byte) ([]*Object, []model.Finding) {
	var objects []*Object
	var findings []model.Finding
	for _, d := range t.decodeAll(data) {
		if d.object != nil {
			objects = append(objects, d.object)
		}
		findings = append(findings, d.findings...)
	}
	return objects, SortFindings(findings)
}

// decoded is what became of one document or of one item of a List.
type decoded struct {
	object   *Object // nil when it was refused
	key      Key     // as far as it could be read, for refused ones too; Name is empty when it could not
	findings []model.Finding

	root   *yaml.Node // of an AuthorizationPolicy, for denyAll: that of a large object is forty times its text
	draft  *Object    // of one that was refused for its shape; nil where too little can be read
	closed *Object    // stands in for it when it is refused; see denyAll

	foreign *foreign // of a kind that the mesh has nothing to do with: neither taken nor refused
}

// decodeAll decodes each document, marks repetitions of an object within the file, and says what is left out.
func (t Text) decodeAll(data []byte) []decoded {
	docs, problem := document.Split(t.File, data)
	if problem != nil {
		return []decoded{{findings: []model.Finding{*problem}}}
	}
	var all []decoded
	for _, doc := range docs {
		all = append(all, t.decodeDocument(doc.Text, doc.Line)...)
	}
	seen := map[Key]int{}
	for i := range all {
		o := all[i].object
		if o == nil {
			continue
		}
		if line, repeated := seen[o.Key()]; repeated {
			all[i].findings = append(all[i].findings, o.Finding(model.Error, "DuplicateObject", "metadata.name",
				fmt.Sprintf("the same object is already in this file at line %d", line), "keep one of them"))
			all[i].object = nil
			continue
		}
		seen[o.Key()] = o.Origin.Line
	}
	return append(all, leftOut(t.File, all)...)
}

// decodeDocument decodes text that starts at the given line of the file. It may hold several objects: a List, or JSON values in
// a row.
func (t Text) decodeDocument(text []byte, line int) []decoded {
	roots, problem := document.Parse(t.File, text, line)
	if problem != nil {
		return []decoded{{findings: []model.Finding{*problem}}}
	}
	var all []decoded
	for _, root := range roots {
		all = append(all, t.decodeRoot(text, line, root)...)
	}
	return all
}

// decodeRoot decodes what stands in a text that starts at the given line of the file, or (nil) in a list.
func (t Text) decodeRoot(text []byte, line int, root *yaml.Node) []decoded {
	w := &reading{document.Walker{File: t.File}}
	if root.Kind != yaml.MappingNode {
		w.Add(root, "NotAnObject", "", "want an object with apiVersion, kind and metadata, got "+document.Describe(root), "")
		return []decoded{{findings: w.Findings}}
	}
	if isList(root) {
		return t.decodeList(root)
	}
	placed := t.placed(root)
	if text == nil || placed != root {
		return []decoded{t.decodeObject(placed, nil)}
	}
	return []decoded{t.decodeObject(root, document.FromLine(text, root.Line-line))}
}

// isList reports whether an object is a list of others: List, or by the name of a kind, as API servers and clients of theirs write them.
func isList(root *yaml.Node) bool {
	kind, apiVersion := document.Field(root, "kind").Value, document.Field(root, "apiVersion").Value
	_, items := document.Entry(root, "items")
	return kind == "List" && apiVersion == "v1" || kind != "List" && strings.HasSuffix(kind, "List") && items != nil
}

// placed gives an object that names no namespace the one that it is to have: in a copy.
func (t Text) placed(root *yaml.Node) *yaml.Node {
	group, _, ok := strings.Cut(document.Field(root, "apiVersion").Value, "/")
	if !ok {
		group = ""
	}
	kind := LookupKind(group, document.Field(root, "kind").Value)
	meta := document.Field(root, "metadata")
	if t.Namespace == "" || kind == nil || kind.ClusterScoped || meta.Kind != yaml.MappingNode || document.Field(meta, "namespace").Value != "" {
		return root
	}
	return with(root, "metadata", with(meta, "namespace", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t.Namespace, Line: meta.Line, Column: meta.Column}))
}

// with gives a copy of a mapping in which a key has the value.
func with(n *yaml.Node, key string, value *yaml.Node) *yaml.Node {
	c := *n
	c.Content = slices.Clone(n.Content)
	for i := 0; i+1 < len(c.Content); i += 2 {
		if c.Content[i].Value == key {
			c.Content[i+1] = value
			return &c
		}
	}
	c.Content = append(c.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: value.Line, Column: value.Column}, value)
	return &c
}

// decodeList decodes the items of a List. Their Raw is written anew, since one may use another's anchors.
func (t Text) decodeList(root *yaml.Node) []decoded {
	w := &reading{document.Walker{File: t.File}}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if k := root.Content[i]; !slices.Contains([]string{"apiVersion", "kind", "metadata", "items", "status"}, k.Value) {
			w.Add(k, "UnknownField", k.Value, "a List has no such field", "")
		}
	}
	items := document.Field(root, "items")
	if items.Kind != yaml.SequenceNode {
		w.Add(items, "WrongType", "items", "want a list of objects", "")
	}
	if len(w.Findings) > 0 {
		return []decoded{{findings: w.Findings}}
	}
	var all []decoded
	for _, item := range items.Content {
		all = append(all, t.decodeRoot(nil, item.Line, itemOf(root, item))...)
	}
	return all
}

// itemOf gives an item of a list as an object: in the list of a kind it need not say its own.
func itemOf(list, item *yaml.Node) *yaml.Node {
	kind, ofKind := strings.CutSuffix(document.Field(list, "kind").Value, "List")
	if !ofKind || kind == "" || item.Kind != yaml.MappingNode || document.Field(item, "kind").Value != "" {
		return item
	}
	c := *item
	said := func(name, value string) []*yaml.Node {
		return []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: name, Line: item.Line}, {Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: item.Line}}
	}
	c.Content = slices.Concat(said("apiVersion", document.Field(list, "apiVersion").Value), said("kind", kind), without(item, "apiVersion", "kind").Content)
	return &c
}

// without gives a copy of a mapping that lacks some keys.
func without(n *yaml.Node, keys ...string) *yaml.Node {
	c := *n
	c.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !slices.Contains(keys, n.Content[i].Value) {
			c.Content = append(c.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &c
}

// decodeObject decodes one object whose nodes hold no aliases. Raw is its text, nil to have it written anew.
func (t Text) decodeObject(root *yaml.Node, raw []byte) decoded {
	w := &reading{document.Walker{File: t.File}}
	kind, foreign := w.kind(root)
	if kind == nil {
		return decoded{findings: w.Findings, foreign: foreign}
	}
	d := decoded{key: keyOf(kind, root)}
	if d.key.Kind == "AuthorizationPolicy" {
		d.root = root
	}
	w.Ref = model.Ref{Kind: kind.RefName(), Namespace: d.key.Namespace, Name: d.key.Name}
	w.within(t.Namespace, root)
	value := kind.New()
	tree := w.Object(judged(kind, root), value)
	origin := Origin{Layer: t.Layer, File: t.File, Line: root.Line}
	if len(w.Findings) > 0 {
		d.draft = w.draftOf(root, tree, kind, origin)
	} else {
		w.unmarshal(root, tree, value)
	}
	if len(w.Findings) == 0 {
		w.metadata(root, kind, value)
	}
	if d.findings = w.Findings; len(d.findings) > 0 {
		return d
	}
	fillIn(value)
	d.object = &Object{Kube: value, Kind: kind, Origin: origin, Raw: w.plain(root, raw, kind, tree),
		Born: value.GetCreationTimestamp().Time, places: document.OutlineOf(root), breaches: judge(kind, tree, origin)}
	return d
}

// judge holds an object to its definition.
func judge(kind *Kind, tree any, origin Origin) []schema.Breach {
	fields, _ := tree.(map[string]any)
	apiVersion, _ := fields["apiVersion"].(string)
	_, version, _ := strings.Cut(apiVersion, "/")
	return schema.Judge(kind.RefName(), version, tree, origin.Layer == LayerKubernetes)
}

// judged gives what of an object is its author's to get right. Statuses, which dumps of clusters bring, are others' reports, in the shape of
// whichever version wrote them: only those that the mesh goes by are read.
func judged(kind *Kind, root *yaml.Node) *yaml.Node {
	if kind.Group == "" && (kind.Name == "Pod" || kind.Name == "Service") {
		return root
	}
	if k, _ := document.Entry(root, "status"); k == nil {
		return root
	}
	return without(root, "status")
}

// reading is one document on its way to an object.
type reading struct{ document.Walker }

// kind finds the document's kind, or says why it has none that we read: nil, and what it is if it is none of the mesh's business.
func (w *reading) kind(root *yaml.Node) (*Kind, *foreign) {
	apiVersion, name := document.Field(root, "apiVersion"), document.Field(root, "kind")
	for _, f := range []struct {
		node *yaml.Node
		name string
	}{{apiVersion, "apiVersion"}, {name, "kind"}} {
		if f.node.Kind != yaml.ScalarNode || f.node.Value == "" {
			w.Add(root, "MissingField", f.name, "missing: every object starts with apiVersion and kind", "")
		}
	}
	if len(w.Findings) > 0 {
		return nil, nil
	}
	group, version, ok := strings.Cut(apiVersion.Value, "/")
	if !ok {
		group, version = "", apiVersion.Value
	}
	kind, said := LookupKind(group, name.Value), groupKind{group, name.Value}
	if kind != nil && slices.Contains(kind.Versions, version) {
		return kind, nil
	}
	if kind == nil && said.isForeign() {
		return nil, foreignAt(root, said)
	}
	w.Ref = said.ref(root)
	what := name.Value + " (" + apiVersion.Value + ")"
	switch {
	case kind != nil:
		w.Ref.Kind = kind.RefName()
		w.Add(apiVersion, "UnsupportedVersion", "apiVersion", fmt.Sprintf("version %q of %s is not supported", version, name.Value),
			"use one of: "+strings.Join(kind.Versions, ", "))
	case notYet[said] != "":
		w.Add(name, "UnsupportedKind", "kind", what+" is not supported yet: "+notYet[said], "remove it from what the mesh reads")
	default:
		w.Add(name, "UnknownKind", "kind", what+" is not one that the mesh reads", said.likely())
	}
	return nil, nil
}

// unmarshal fills the typed object from the checked tree. The walk has found what is wrong by place; this reports the rest.
func (w *reading) unmarshal(root *yaml.Node, tree any, into Kube) {
	if err := fill(into, tree); err != nil {
		w.Add(root, "InvalidValue", "", err.Error(), "")
	}
}

// fill has the type's own decoder take the tree. A spec that is a message goes to protobuf's decoder: the one that the type's JSON
// method uses takes several times as long.
func fill(into Kube, tree any) error {
	fields, _ := tree.(map[string]any)
	spec, message := fields["spec"], specOf(into)
	if spec == nil || message == nil {
		return fromJSON(tree, func(data []byte) error { return json.Unmarshal(data, into) })
	}
	rest := maps.Clone(fields)
	delete(rest, "spec")
	if err := fromJSON(rest, func(data []byte) error { return json.Unmarshal(data, into) }); err != nil {
		return err
	}
	return fromJSON(spec, func(data []byte) error {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, message)
	})
}

// specOf gives the spec of an object where that is a message.
func specOf(o Kube) proto.Message {
	spec := reflect.ValueOf(o).Elem().FieldByName("Spec")
	if !spec.IsValid() || !spec.CanAddr() {
		return nil
	}
	message, _ := spec.Addr().Interface().(proto.Message)
	return message
}

func fromJSON(tree any, take func([]byte) error) error {
	data, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return take(data)
}

// codeOtherNamespace is that of findings about objects that name another namespace than the one they are to be in.
const codeOtherNamespace = "OtherNamespace"

// within refuses an object that names another namespace than the one that was said for all.
func (w *reading) within(namespace string, root *yaml.Node) {
	const path = "metadata.namespace"
	if named := document.Field(document.Field(root, "metadata"), "namespace").Value; namespace != "" && named != "" && named != namespace {
		w.Add(document.Locate(root, path), codeOtherNamespace, path, fmt.Sprintf("the object is of namespace %q, and %q was asked for", named, namespace), "leave out one of them")
	}
}

// fillIn does what the API server does when it takes an object.
func fillIn(o Kube) {
	if s, ok := o.(*corev1.Secret); ok && len(s.StringData) > 0 {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		for k, v := range s.StringData {
			s.Data[k] = []byte(v)
		}
		s.StringData = nil
	}
}

// keyOf reads the object's key from the nodes, leniently: it serves documents that are going to be refused, too.
func keyOf(kind *Kind, root *yaml.Node) Key {
	meta := document.Field(root, "metadata")
	k := Key{Group: kind.Group, Kind: kind.Name, Namespace: document.Field(meta, "namespace").Value, Name: document.Field(meta, "name").Value}
	if k.Namespace == "" && !kind.ClusterScoped {
		k.Namespace = DefaultNamespace
	}
	return k
}

// bornNow gives objects without a creationTimestamp their age.
func bornNow(objects []*Object, births map[Key]time.Time, now time.Time) {
	for _, o := range objects {
		if !o.Born.IsZero() {
			continue
		}
		if t, ok := births[o.Key()]; ok {
			o.Born = t
			continue
		}
		o.Born = now
	}
}
