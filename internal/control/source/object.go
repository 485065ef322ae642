// Package source brings in the objects that users write, in the shapes of Kubernetes, Istio and the Gateway API, whatever they
// come from: files, `weft apply`, the local runtime, further sources.
//
// A document becomes an Object by Decode, which refuses whatever it does not know, by line. Each Source publishes what it has and
// then what changes; a Set merges them into Snapshots, at the cost of what changed, and tells its Followers what that was. What was
// accepted stays in force until something better replaces it.
package source

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
	"github.com/weftmesh/weft/internal/control/source/schema"
)

// Kube is a typed Kubernetes object.
type Kube interface {
	metav1.Object
	runtime.Object
}

// Object is one object that a source accepted. It is immutable: readers share it and its typed value.
type Object struct {
	// Kube is the typed value: a pointer to the type that Kind.New makes.
	Kube
	Kind   *Kind
	Origin Origin
	// Raw is the YAML or JSON document; nil for objects of the runtime.
	Raw []byte
	// Born is when the mesh first knew the object: its creationTimestamp where it has one.
	Born time.Time

	places *document.Outline // nil for objects of the runtime; lines in it count from the start of the file
	gaps   []gap             // of a draft

	breaches []schema.Breach

	brings *atomic.Pointer[any] // see Bring; shared by copies, nil for nothing
}

// Origin says where an object was written.
type Origin struct {
	Layer string // "file", "applied", "runtime", or what another source calls its own
	File  string // name as the user gave it; empty for the runtime
	Line  int    // first line of the document, 1-based; 0 when there is none
}

// Layers that objects come from.
const (
	LayerFile    = "file"
	LayerApplied = "applied"
	LayerRuntime = "runtime"
	// LayerKubernetes is that of objects that an API server has judged.
	LayerKubernetes = "kubernetes"
)

// Key names an object among all. The version is not part of it: v1 and v1beta1 of a kind are the same object.
type Key struct{ Group, Kind, Namespace, Name string }

// String gives "Kind.group/namespace/name"; the group of Kubernetes' core is left out.
func (k Key) String() string {
	kind := k.Kind
	if k.Group != "" {
		kind += "." + k.Group
	}
	if k.Namespace == "" {
		return kind + "/" + k.Name
	}
	return kind + "/" + k.Namespace + "/" + k.Name
}

// Compare orders keys by group, kind, namespace and name.
func (k Key) Compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Group, l.Group), cmp.Compare(k.Kind, l.Kind),
		cmp.Compare(k.Namespace, l.Namespace), cmp.Compare(k.Name, l.Name))
}

// Key of the object.
func (o *Object) Key() Key {
	return Key{o.Kind.Group, o.Kind.Name, o.GetNamespace(), o.GetName()}
}

// Ref of the object, as findings and the model name it.
func (o *Object) Ref() model.Ref {
	return model.Ref{Kind: o.Kind.RefName(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Bring has an object bring along what was made of it while it was judged, for who needs that next. It comes before others have the
// object.
func (o *Object) Bring(made any) {
	o.brings = &atomic.Pointer[any]{}
	o.brings.Store(&made)
}

// Brought gives what the object brings along, once; nil for nothing.
func (o *Object) Brought() any {
	if o.brings == nil {
		return nil
	}
	if made := o.brings.Swap(nil); made != nil {
		return *made
	}
	return nil
}

// Line of a field ("spec.http[0].route[1].weight"), 1-based in Origin.File: that of its nearest ancestor when the field is not
// written, and 0 when there is no text.
func (o *Object) Line(path string) int {
	if o.places == nil {
		return o.Origin.Line
	}
	return o.places.Line(path)
}

// Written reports whether a field is written in the object's text, if only as an empty list; false where there is no text.
func (o *Object) Written(path string) bool { return o.places != nil && o.places.Written(path) }

// Breaches are the rules of the kind's definition that the object did not keep as it was written; none of objects without text.
func (o *Object) Breaches() []schema.Breach { return o.breaches }

// Finding makes a finding about a field of the object, with its place filled in.
func (o *Object) Finding(s model.Severity, code, field, message, hint string) model.Finding {
	return model.Finding{Severity: s, Code: code, Object: o.Ref(), File: o.Origin.File, Line: o.Line(field), Field: field,
		Message: message, Hint: hint}
}

// Older orders objects by age, then namespace, name and kind: the precedence of Istio and of the Gateway API.
func Older(a, b *Object) int {
	if c := cmp.Or(a.Born.Compare(b.Born), a.Ref().CompareName(b.Ref())); c != 0 {
		return c
	}
	return a.Key().Compare(b.Key())
}

// SortFindings orders findings by file, line, object, field (of a list, by place), code and message, and removes repetitions.
func SortFindings(f []model.Finding) []model.Finding {
	slices.SortStableFunc(f, func(a, b model.Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Object.String(), b.Object.String()),
			document.ComparePaths(a.Field, b.Field), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(f)
}

// HasErrors reports whether one of the findings is an error.
func HasErrors(f []model.Finding) bool {
	return slices.ContainsFunc(f, func(f model.Finding) bool { return f.Severity == model.Error })
}
