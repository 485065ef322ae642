package source

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// Runtime is a source in memory, for what the local runtime observes: Pods, EndpointSlices, Services with their addresses.
type Runtime struct {
	mu      sync.Mutex
	objects map[Key]*Object // nil until the first Set
	publish func(Change)
}

// NewRuntime makes a source that has not spoken yet.
func NewRuntime() *Runtime { return &Runtime{} }

// Set replaces all objects. They must not change afterwards. An object of a kind that the mesh does not read is an error, and
// then nothing changes.
func (r *Runtime) Set(objects []Kube) error {
	made, err := fromKubes(objects)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects = make(map[Key]*Object, len(made))
	for _, o := range made {
		r.objects[o.Key()] = o
	}
	r.tell(Change{Reset: true, Set: slices.Collect(maps.Values(r.objects))})
	return nil
}

// Change sets some objects and takes others away, as Set does with all. Before the first Set it speaks of everything there is.
func (r *Runtime) Change(set []Kube, gone []Key) error {
	made, err := fromKubes(set)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		r.objects = map[Key]*Object{}
	}
	for _, o := range made {
		r.objects[o.Key()] = o
	}
	for _, k := range gone {
		delete(r.objects, k)
	}
	r.tell(Change{Set: made, Gone: gone})
	return nil
}

// tell publishes; the caller holds mu.
func (r *Runtime) tell(ch Change) {
	if r.publish != nil {
		r.publish(ch)
	}
}

// Layer implements Source.
func (r *Runtime) Layer() string { return LayerRuntime }

// Run publishes the state when there is one, and each change, until the context ends.
func (r *Runtime) Run(ctx context.Context, publish func(Change)) error {
	r.mu.Lock()
	r.publish = publish
	if r.objects != nil {
		publish(Change{Reset: true, Set: slices.Collect(maps.Values(r.objects))})
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish = nil
	return nil
}

func fromKubes(list []Kube) ([]*Object, error) {
	objects := make([]*Object, len(list))
	for i, k := range list {
		o, err := FromKube(LayerRuntime, k)
		if err != nil {
			return nil, err
		}
		objects[i] = o
	}
	return objects, nil
}

// FromKube makes an Object of a typed one that has no text.
func FromKube(layer string, k Kube) (*Object, error) {
	kind := kindsByType[reflect.TypeOf(k)]
	if kind == nil {
		return nil, fmt.Errorf("object %s/%s: type %T is not one that the mesh reads", k.GetNamespace(), k.GetName(), k)
	}
	return &Object{Kube: k, Kind: kind, Origin: Origin{Layer: layer}, Born: k.GetCreationTimestamp().Time}, nil
}
