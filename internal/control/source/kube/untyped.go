package kube

import (
	"sync"

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
	f.source.statuses.keep(k, version, status)
	a := source.DecodeArrival(k, f.source.origin(), text, f.source.options.Check).Placeless()
	if a.Object != nil {
		a.Object.Born = born
	}
	return a
}

// statuses are those of the objects of Kubernetes as they were read last.
type statuses struct {
	mu    sync.Mutex
	known map[source.Key]kept
}

type kept struct {
	version string // the object's resourceVersion
	status  any    // as JSON decodes it
}

func (s *statuses) keep(k source.Key, version string, status any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[k] = kept{version, status}
}

func (s *statuses) forget(k source.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, k)
}

func (s *statuses) drop(which func(source.Key) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.known {
		if which(k) {
			delete(s.known, k)
		}
	}
}
