package kube

import (
	"slices"
	"testing"

	meta "istio.io/api/meta/v1alpha1"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// TestUntouchedStatuses: an object whose status was found right is looked at again when it, its status there, or what is wanted of it has
// become another, and not for any other change.
func TestUntouchedStatuses(t *testing.T) {
	k := source.Key{Group: source.GroupNetworking, Kind: "DestinationRule", Namespace: "default", Name: "a"}
	text := func(s string) any { return map[string]any{"observedGeneration": s} }
	w := &writer{Source: &Source{statuses: statuses{known: map[source.Key]kept{}, moved: make(chan struct{}, 1)}}, right: map[source.Key]said{}}
	ours := map[source.Key]*source.Object{k: {}}
	wanted := map[source.Key]status.Status{k: &meta.IstioStatus{}}
	step := func(what string, looked bool) {
		t.Helper()
		keys := w.unsure(ours, wanted)
		if slices.Contains(keys, k) != looked {
			t.Errorf("%s: looked at %v", what, keys)
		}
		at, _ := w.statuses.get(k)
		w.right[k] = said{ours[k], at.reading, wanted[k]}
	}
	w.statuses.keep(k, kept{version: "1", status: text("1")})
	step("first", true)
	step("nothing", false)
	w.statuses.keep(k, kept{version: "2", status: text("1")})
	step("another version with the same status", false)
	w.statuses.keep(k, kept{version: "3", status: text("2")})
	step("another status", true)
	w.statuses.wrote(k, "3", kept{version: "4", status: text("3")})
	step("written", true)
	ours[k] = &source.Object{}
	step("another object", true)
	wanted[k] = &meta.IstioStatus{ObservedGeneration: 1}
	step("another is wanted", true)
	w.statuses.forget(k)
	w.statuses.keep(k, kept{version: "5", status: text("3")})
	step("made anew", true)
	step("nothing again", false)
	delete(ours, k)
	if keys := w.unsure(ours, wanted); len(keys) > 0 || len(w.right) > 0 {
		t.Errorf("of an object that is gone: %v, %v", keys, w.right)
	}
}
