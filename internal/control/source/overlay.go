package source

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Overlay gives objects as they would be with others put over them, and without those of some keys: oldest first. A Service keeps the
// addresses that the runtime gave it, and an object that takes the place of another its age.
func Overlay(objects, over []*Object, without []Key) []*Object {
	byKey := make(map[Key]*Object, len(objects)+len(over))
	for _, o := range objects {
		byKey[o.Key()] = o
	}
	for _, k := range without {
		delete(byKey, k)
	}
	out := make([]*Object, 0, len(byKey)+len(over))
	for _, o := range over {
		k := o.Key()
		under := byKey[k]
		if under == nil {
			byKey[k] = o
			continue
		}
		merged := *o
		merged.Born = under.Born
		from, ok1 := o.Kube.(*corev1.Service)
		to, ok2 := under.Kube.(*corev1.Service)
		if ok1 && ok2 && from.Spec.ClusterIP == "" {
			merged.Kube = withAddresses(from, to)
		}
		byKey[k] = &merged
	}
	for _, o := range byKey {
		out = append(out, o)
	}
	slices.SortFunc(out, Older)
	return out
}
