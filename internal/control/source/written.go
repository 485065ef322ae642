package source

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// AsWritten gives objects as they stand where they are written rather than as they are in force, the oldest first, and those that are a
// source's own by key: the ones of which mine is true, each as it was refused if it was, and what was refused and has nothing in force.
// A refused one of which the findings do not say why was refused after they came, and is not among ours: another look follows, and
// would have to take back what is said of it now. The refused ones are taken out of their map.
func AsWritten(objects []*Object, refused map[Key]*Object, findings []model.Finding, mine func(Key, *Object) bool) (all []*Object, ours map[Key]*Object) {
	told := map[model.Ref]bool{}
	for _, f := range findings {
		if f.Severity == model.Error {
			told[f.Object] = true
		}
	}
	ours = make(map[Key]*Object, len(objects))
	all = make([]*Object, 0, len(objects)+len(refused))
	for _, o := range objects {
		k := o.Key()
		r := refused[k]
		delete(refused, k)
		if mine(k, o) {
			if r != nil {
				o = r
			}
			if r == nil || told[r.Ref()] {
				ours[k] = o
			}
		}
		all = append(all, o)
	}
	for k, r := range refused {
		if told[r.Ref()] {
			ours[k] = r
		}
		all = append(all, r)
	}
	slices.SortFunc(all, Older)
	return all, ours
}
