package source

import "slices"

// AsWritten gives objects as they stand where they are written rather than as they are in force, the oldest first, and those that are a
// source's own by key: the ones of which mine is true, each as it was refused if it was, and what was refused and has nothing in force.
// The refused ones are taken out of their map.
func AsWritten(objects []*Object, refused map[Key]*Object, mine func(Key, *Object) bool) (all []*Object, ours map[Key]*Object) {
	ours = map[Key]*Object{}
	all = make([]*Object, 0, len(objects)+len(refused))
	for _, o := range objects {
		k := o.Key()
		r := refused[k]
		delete(refused, k)
		if mine(k, o) {
			if r != nil {
				o = r
			}
			ours[k] = o
		}
		all = append(all, o)
	}
	for k, r := range refused {
		ours[k] = r
		all = append(all, r)
	}
	slices.SortFunc(all, Older)
	return all, ours
}
