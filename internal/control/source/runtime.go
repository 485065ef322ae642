package source

import (
	"context"
	"fmt"
	"reflect"
	"sync"
)

// Runtime is a source in memory, for what the local runtime observes: Pods, EndpointSlices, Services with their addresses.
type Runtime struct {
	mu      sync.Mutex
	state   *State // nil until the first Set
	publish func(State)
}

// NewRuntime makes a source that has not spoken yet.
func NewRuntime() *Runtime { return &Runtime{} }

// Set replaces all objects. They must not change afterwards. An object of a kind that the mesh does not read is an error, and
// then nothing changes.
func (r *Runtime) Set(objects []Kube) error {
	st := State{Objects: make([]*Object, len(objects))}
	for i, k := range objects {
		o, err := FromKube(k)
		if err != nil {
			return err
		}
		st.Objects[i] = o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = &st
	if r.publish != nil {
		r.publish(st)
	}
	return nil
}

// Run publishes the state when there is one, and at each Set, until the context ends.
func (r *Runtime) Run(ctx context.Context, publish func(State)) error {
	r.mu.Lock()
	r.publish = publish
	if r.state != nil {
		publish(*r.state)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish = nil
	return nil
}

// FromKube makes an Object of a typed one that has no text.
func FromKube(k Kube) (*Object, error) {
	kind := kindOf(k)
	if kind == nil {
		return nil, fmt.Errorf("object %s/%s: type %T is not one that the mesh reads", k.GetNamespace(), k.GetName(), k)
	}
	return &Object{Kube: k, Kind: kind, Origin: Origin{Layer: LayerRuntime}, Born: k.GetCreationTimestamp().Time}, nil
}

func sameType(a, b Kube) bool { return reflect.TypeOf(a) == reflect.TypeOf(b) }
