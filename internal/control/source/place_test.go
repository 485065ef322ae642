package source

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weftmesh/weft/internal/control/model"
)

// misfits are values of which most fields take few.
var misfits = []any{nil, true, "x", "", "\x00", 1, -1, 1.5, 1e300, 1e19, "99999999999999999999", "1h", "999999h", "2020-01-01T00:00:00Z",
	[]any{}, []any{nil}, []any{"x"}, map[string]any{}, map[string]any{"a": nil}, map[string]any{"": "x"}, map[string]any{"1": map[string]any{}}}

// TestEveryMisfitHasAPlace writes values that do not fit into every field of Istio's kinds: what is said of them names field and line,
// and is never what protobuf's decoder says of a whole object.
func TestEveryMisfitHasAPlace(t *testing.T) {
	for _, kind := range kinds {
		spec := specOf(kind.New())
		if spec == nil {
			continue
		}
		try := func(spec any) {
			document, err := json.Marshal(map[string]any{"apiVersion": kind.Group + "/" + kind.Versions[0], "kind": kind.Name,
				"metadata": map[string]any{"name": "a"}, "spec": spec})
			if err != nil {
				t.Fatal(err)
			}
			_, findings := Decode(LayerFile, "a.yaml", document)
			for _, f := range findings {
				if f.Severity == model.Error && (f.Field == "" || f.Line == 0) {
					t.Errorf("%s: %s", document, f)
				}
			}
		}
		eachField(spec.ProtoReflect().Descriptor(), 6, func(v any) any { return v }, func(in func(any) any) {
			for _, v := range misfits {
				try(in(v))
			}
		})
	}
}

// eachField visits the fields of a message and of those within it, with what writes a spec that has a value in that field; list and map
// fields twice, also with what writes an element.
func eachField(d protoreflect.MessageDescriptor, depth int, around func(any) any, visit func(in func(any) any)) {
	if depth == 0 || d.ParentFile().Package() == "google.protobuf" {
		return
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		in := func(v any) any { return around(map[string]any{f.JSONName(): v}) }
		visit(in)
		within, element := f.Message(), in
		switch {
		case f.IsMap():
			within, element = f.MapValue().Message(), func(v any) any { return in(map[string]any{"1": v}) }
		case f.IsList():
			element = func(v any) any { return in([]any{v}) }
		}
		if f.IsMap() || f.IsList() {
			visit(element)
		}
		if within != nil {
			eachField(within, depth-1, element, visit)
		}
	}
}
