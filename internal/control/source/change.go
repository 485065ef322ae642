package source

import (
	"bytes"
	"reflect"

	"github.com/weftmesh/weft/internal/control/model"
)

// Change is what a source has to say at one time.
type Change struct {
	// Reset says that Set is everything: what is not in it is gone. The first change of a source is one, and so is that of a source
	// which has lost sight of what happened meanwhile; what really differs is found out by the Set.
	Reset bool
	// Set are objects that came or changed, Gone the keys of those that went. No key is in both, nor twice in one.
	Set  []*Object
	Gone []Key
	// Findings are all that the source has to say about what it did not accept, those of earlier changes included.
	Findings []model.Finding
}

// overlay is what one source has accepted so far.
type overlay struct {
	spoken   bool
	objects  map[Key]*Object
	findings []model.Finding
}

// take makes a change, and gives the keys whose object is another one now. Objects that came again as they were are kept.
func (l *overlay) take(ch Change) (touched []Key) {
	l.spoken, l.findings = l.spoken || ch.Reset, ch.Findings
	if l.objects == nil {
		l.objects = make(map[Key]*Object, len(ch.Set))
	}
	for _, o := range ch.Set {
		k := o.Key()
		if old := l.objects[k]; old == nil || !sameVersion(old, o) {
			l.objects[k] = o
			touched = append(touched, k)
		}
	}
	gone := ch.Gone
	if ch.Reset && len(l.objects) > len(ch.Set) {
		gone = append(gone, l.without(ch.Set)...)
	}
	for _, k := range gone {
		if _, had := l.objects[k]; had {
			delete(l.objects, k)
			touched = append(touched, k)
		}
	}
	return touched
}

// without gives the keys that are not among those of some objects.
func (l *overlay) without(objects []*Object) []Key {
	named := make(map[Key]bool, len(objects))
	for _, o := range objects {
		named[o.Key()] = true
	}
	var rest []Key
	for k := range l.objects {
		if !named[k] {
			rest = append(rest, k)
		}
	}
	return rest
}

// sameVersion reports whether two objects of one key say the same, from the same place. It may miss it where that costs nothing
// but work.
func sameVersion(a, b *Object) bool {
	switch {
	case a == b:
		return true
	case a.Origin != b.Origin || !a.Born.Equal(b.Born) || a.GetGeneration() != b.GetGeneration():
		return false
	case a.Raw != nil || b.Raw != nil:
		return bytes.Equal(a.Raw, b.Raw) && a.places.LastLine() == b.places.LastLine()
	}
	return a.Kube == b.Kube || reflect.DeepEqual(a.Kube, b.Kube)
}
