package kube

import (
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// untyped passes an object through the strict decoder, without its status: that is written by controllers, ours among them, and may
// hold what we do not know; and a change of it is no change of what somebody asks for.
func (f *follower) untyped(u *unstructured.Unstructured) source.Arrival {
	k, version := f.key(u), u.GetResourceVersion()
	born := u.GetCreationTimestamp().Time
	status := split(u)
	text, err := u.MarshalJSON()
	if err != nil {
		return source.Arrival{Key: k, Findings: []model.Finding{{Severity: model.Error, Code: "InvalidValue",
			Object: model.Ref{Kind: f.kind.RefName(), Namespace: k.Namespace, Name: k.Name}, Message: err.Error()}}}
	}
	a := source.DecodeArrival(k, f.source.origin(), text, f.source.options.Check).Placeless()
	known := kept{resource: f.resource, version: version, status: status}
	if a.Object != nil {
		a.Object.Born = born
	} else {
		known.refused = f.refused(u, text, born)
	}
	f.source.statuses.keep(k, known)
	return a
}

// refused gives an object that was not accepted as far as it can be read, so that its status can say so. It is never in force.
func (f *follower) refused(u *unstructured.Unstructured, text []byte, born time.Time) *source.Object {
	k := f.kind.New()
	if json.Unmarshal(text, k) != nil {
		k = f.kind.New()
		k.SetNamespace(u.GetNamespace())
		k.SetName(u.GetName())
		k.SetGeneration(u.GetGeneration())
	}
	return &source.Object{Kube: k, Kind: f.kind, Origin: f.source.origin(), Born: born}
}
