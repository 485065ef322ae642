package source

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// ErrNotReady says that a source has not spoken yet, so that nothing can be validated.
var ErrNotReady = errors.New("the sources have not been read yet")

// Apply keeps objects (of Decode with LayerApplied) in the store, all or none: when they bring an error finding, to themselves or
// to others, nothing changes and there are no results. The findings are those about the objects, and those about others that
// were not there before. When it returns results, Snapshot has the objects.
func (s *Set) Apply(objects []*Object) ([]Result, []model.Finding, error) {
	if s.layers.Applied == nil {
		return nil, nil, errors.New("apply: no store")
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	if f := repeated(objects); len(f) > 0 {
		return nil, f, nil
	}
	before := s.Snapshot()
	if before == nil {
		return nil, nil, fmt.Errorf("apply: %w", ErrNotReady)
	}
	findings := s.judge(before, s.preview(objects), objects)
	if HasErrors(findings) {
		return nil, findings, nil
	}
	results, err := s.layers.Applied.put(objects)
	if err != nil {
		return nil, findings, fmt.Errorf("apply: %w", err)
	}
	return results, findings, nil
}

// DryRun says what Apply would do, and does nothing.
func (s *Set) DryRun(objects []*Object) ([]Result, []model.Finding, error) {
	if f := repeated(objects); len(f) > 0 {
		return nil, f, nil
	}
	before := s.Snapshot()
	if s.layers.Applied == nil || before == nil {
		return nil, nil, fmt.Errorf("apply: %w", ErrNotReady)
	}
	findings := s.judge(before, s.preview(objects), objects)
	if HasErrors(findings) {
		return nil, findings, nil
	}
	return s.layers.Applied.effects(objects), findings, nil
}

// Delete removes applied objects, all or none. ErrNotFound (wrapped, naming the object, and the file when it is written in one)
// when one is not in the store.
func (s *Set) Delete(keys []Key) ([]Result, error) {
	if s.layers.Applied == nil {
		return nil, errors.New("delete: no store")
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	results, err := s.layers.Applied.remove(keys)
	if !errors.Is(err, ErrNotFound) || s.Snapshot() == nil {
		return results, err
	}
	for _, k := range keys {
		if o := s.Snapshot().Get(k); o != nil && o.Origin.Layer == LayerFile {
			return nil, fmt.Errorf("%s was not applied: it is written in %s, line %d, and ends when it is removed there: %w",
				k, o.Origin.File, o.Origin.Line, ErrNotFound)
		}
	}
	return nil, err
}

// preview gives the snapshot as it would be with more applied objects.
func (s *Set) preview(objects []*Object) *Snapshot {
	s.mu.Lock()
	states := slices.Clone(s.states)
	s.mu.Unlock()
	for i, src := range s.sources {
		if src == Source(s.layers.Applied) {
			st := s.layers.Applied.with(objects)
			states[i] = &st
		}
	}
	return merge(states)
}

// judge validates a would-be snapshot and gives what the objects have to answer for.
func (s *Set) judge(before, after *Snapshot, objects []*Object) []model.Finding {
	if s.validate == nil {
		return nil
	}
	own := map[model.Ref]bool{}
	for _, o := range objects {
		own[o.Ref()] = true
	}
	known := map[model.Finding]bool{}
	for _, f := range s.validate(before.Objects) {
		f.Line = 0
		known[f] = true
	}
	var findings []model.Finding
	for _, f := range s.validate(after.Objects) {
		placeless := f
		placeless.Line = 0
		if own[f.Object] || !known[placeless] {
			findings = append(findings, f)
		}
	}
	return SortFindings(findings)
}

// repeated finds objects that a request names twice.
func repeated(objects []*Object) []model.Finding {
	first := map[Key]*Object{}
	var findings []model.Finding
	for _, o := range objects {
		if f := first[o.Key()]; f != nil {
			findings = append(findings, o.Finding(model.Error, "DuplicateObject", "metadata.name",
				fmt.Sprintf("the same object is already in %s, line %d", f.Origin.File, f.Origin.Line), "keep one of them"))
			continue
		}
		first[o.Key()] = o
	}
	return findings
}
