package main

import (
	"context"
	"sync"

	"github.com/weftmesh/weft/internal/control/source"
)

// simulated is the layer of the feed's objects.
const simulated = "simulated"

// feed is a source of objects that are made as they are needed, typed, in the form in which the
// one for Kubernetes keeps them: what reading and decoding them costs is not measured here.
type feed struct {
	mu      sync.Mutex
	pending []source.Change // said before Run
	publish func(source.Change)
}

// Layer implements source.Source.
func (f *feed) Layer() string { return simulated }

// Run implements source.Source.
func (f *feed) Run(ctx context.Context, publish func(source.Change)) error {
	f.mu.Lock()
	for _, c := range f.pending {
		publish(c)
	}
	f.pending, f.publish = nil, publish
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish = nil
	return nil
}

// reset makes the objects all there is.
func (f *feed) reset(objects []source.Kube) error { return f.say(true, objects) }

// set adds or replaces objects.
func (f *feed) set(objects ...source.Kube) error { return f.say(false, objects) }

func (f *feed) say(reset bool, objects []source.Kube) error {
	c := source.Change{Reset: reset, Set: make([]*source.Object, len(objects))}
	for i, k := range objects {
		o, err := source.FromKube(simulated, source.Compact(k))
		if err != nil {
			return err
		}
		c.Set[i] = o
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.publish == nil {
		f.pending = append(f.pending, c)
		return nil
	}
	f.publish(c)
	return nil
}
