package diff

import (
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain/diff/scope"
)

// CompareAll is Compare that looks at every destination, from every namespace.
func CompareAll(before, after *model.Mesh) *Report {
	s := scope.New(before, after)
	s.All, s.Namespaces = true, true
	return compare(before, after, s, false)
}
