package diff

import "github.com/weftmesh/weft/internal/control/model"

// CompareAll is Compare that looks at every destination, from every namespace.
func CompareAll(before, after *model.Mesh) *Report {
	s := newScope(before, after)
	s.all, s.namespaces = true, true
	return compare(before, after, s)
}
