// Package compile makes the model of the mesh from objects as users wrote them. It is pure and deterministic: the same objects
// give the same mesh and the same findings.
package compile

import (
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Input of a compilation.
type Input struct {
	// Objects, oldest first, as in source.Snapshot.
	Objects  []*source.Object
	Settings model.Settings
}

// Compile gives the mesh and what there is to say about the objects, sorted by file and line. An object with an error finding is
// left out of the mesh. The zero Settings become trust domain and cluster domain "cluster.local" and root namespace
// "istio-system".
func Compile(in Input) (*model.Mesh, []model.Finding) {
	return &model.Mesh{Settings: in.Settings}, nil
}

// Validate gives the findings of Compile alone; it is what source.NewSet takes.
func Validate(s model.Settings) func([]*source.Object) []model.Finding {
	return func(objects []*source.Object) []model.Finding {
		_, f := Compile(Input{Objects: objects, Settings: s})
		return f
	}
}

// Check judges one object by itself: everything that does not depend on others. It is what source.Files takes.
func Check(o *source.Object) []model.Finding { return nil }
