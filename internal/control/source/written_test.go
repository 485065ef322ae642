package source

import (
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

// TestAsWrittenWaitsForFindings: an object that is refused is left alone until the findings say why.
func TestAsWrittenWaitsForFindings(t *testing.T) {
	object := func(name string) *Object {
		text := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: " + name + "}\nspec: {host: x.example}\n"
		objects, findings := Decode(LayerApplied, "x.yaml", []byte(text))
		if len(objects) != 1 || len(findings) != 0 {
			t.Fatal(objects, findings)
		}
		return objects[0]
	}
	before, after, only := object("a"), object("a"), object("b")
	every := func(Key, *Object) bool { return true }
	look := func(findings ...model.Finding) map[Key]*Object {
		_, ours := AsWritten([]*Object{before}, map[Key]*Object{after.Key(): after, only.Key(): only}, findings, every)
		return ours
	}
	why := func(o *Object, s model.Severity) model.Finding { return model.Finding{Object: o.Ref(), Severity: s} }
	if ours := look(why(after, model.Warning)); len(ours) != 0 {
		t.Errorf("before the findings are there: %v", ours)
	}
	if ours := look(why(after, model.Error), why(only, model.Error)); ours[after.Key()] != after || ours[only.Key()] != only {
		t.Errorf("with the findings: %v", ours)
	}
}
