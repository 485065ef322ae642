package kube

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// statuses are those of the objects of Kubernetes as they were read or written last.
type statuses struct {
	moved chan struct{} // has room for one: a status is another than before, or an object was refused anew

	mu       sync.Mutex
	known    map[source.Key]kept
	readings uint64
}

type kept struct {
	resource schema.GroupVersionResource
	version  string         // the object's resourceVersion
	status   any            // as JSON decodes it, or a struct of Kubernetes' own types; nil for none
	refused  *source.Object // what stands there while something else is in force, or nothing
	reading  uint64         // set by statuses: the same for as long as the status is
}

func (s *statuses) keep(k source.Key, now kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.known[k]
	same := known && reflect.DeepEqual(old.status, now.status)
	if now.reading = old.reading; !same {
		now.reading = s.next()
	}
	s.known[k] = now
	if same && now.refused == nil {
		return
	}
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// wrote notes what was written, unless the object has changed meanwhile.
func (s *statuses) wrote(k source.Key, from string, now kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[k].version == from {
		now.reading = s.next()
		s.known[k] = now
	}
}

// next numbers a reading; with mu.
func (s *statuses) next() uint64 {
	s.readings++
	return s.readings
}

// each calls for all that are known, with mu.
func (s *statuses) each(do func(source.Key, kept)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, at := range s.known {
		do(k, at)
	}
}

func (s *statuses) get(k source.Key) (kept, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.known[k]
	return at, ok
}

// refused gives the objects that were not accepted.
func (s *statuses) refused() map[source.Key]*source.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[source.Key]*source.Object{}
	for k, at := range s.known {
		if at.refused != nil {
			all[k] = at.refused
		}
	}
	return all
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

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// difference gives what has to be done to the status that an object has for it to become what is wanted; nil for nothing. Wanted may
// be nil, for an object that does not concern us, or not any more. Fields of the status that our types do not know stay.
func difference(at kept, o *source.Object, wanted status.Status, now time.Time) ([]operation, error) {
	before, err := fields(at.status)
	if err != nil {
		return nil, err
	}
	has := status.Of(o.Kind.New())
	if has == nil {
		return nil, nil
	}
	if err := recode(before, has); err != nil {
		has = status.Of(o.Kind.New()) // somebody has written what cannot be; ours takes its place
	}
	if wanted == nil {
		if wanted = status.Withdrawn(has); wanted == nil {
			return nil, nil
		}
	}
	known, err := fields(has)
	if err != nil {
		return nil, err
	}
	merged, _ := status.Merge(has, wanted, time.Time{}, now) // the API server drops a status with its object
	after, err := fields(merged)
	if err != nil {
		return nil, err
	}
	return operations(at.status != nil, before, known, after), nil
}

func operations(there bool, before, known, after map[string]any) (ops []operation) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		was, has := known[name]
		if _, written := before[name]; !reflect.DeepEqual(was, after[name]) || has && !written && !empty(after[name]) {
			ops = append(ops, operation{"add", "/status/" + escape(name), after[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if _, stays := after[name]; !stays {
			if _, written := before[name]; written {
				ops = append(ops, operation{Op: "remove", Path: "/status/" + escape(name)})
			}
		}
	}
	if len(ops) > 0 && !there {
		return []operation{{"add", "/status", after}}
	}
	return ops
}

func empty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return v == nil
}

// escape writes a name as JSON pointers do.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// fields gives a status as JSON has it.
func fields(s any) (map[string]any, error) {
	out := map[string]any{}
	if s == nil {
		return out, nil
	}
	return out, recode(s, &out)
}

func recode(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
