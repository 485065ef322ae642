package source

import (
	"errors"
	"fmt"

	"github.com/weftmesh/weft/internal/control/model"
)

// ErrNotReady says that a source has not spoken yet, so that nothing can be validated.
var ErrNotReady = errors.New("the sources have not been read yet")

// ErrConflict says that a Keeper holds something else than was thought.
var ErrConflict = errors.New("somebody else has changed the applied objects at the same time")

// Keeper is the source of applied objects, and where they are kept: a Store alone, or what several control planes share.
type Keeper interface {
	Source
	// Preview gives objects as they would be kept, and what keeping them would do.
	Preview(objects []*Object) ([]*Object, []Result)
	// Mark names what is there now and has been published.
	Mark() int64
	// Kept names all that is kept, what is refused and not in force included.
	Kept() []Key
	// Put keeps objects that were judged after a Mark, and Remove forgets some: all or none. When they return results, these have been published. An error that
	// wraps ErrConflict says that nothing was done because there is more than there was at that mark, or
	// for Remove, than was published; by now, that has been too. An
	// error of Remove that wraps ErrNotFound names what is not there. Where a Keeper cannot remove so many at once it does so in parts, and an error
	// says how many are gone.
	Put(objects []*Object, judged int64) ([]Result, error)
	Remove(keys []Key) ([]Result, error)
}

// conflicts bounds how often a change is tried against others who change things at the same time.
const conflicts = 10

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
	if s.Snapshot() == nil {
		return nil, nil, fmt.Errorf("apply: %w", ErrNotReady)
	}
	for try := 1; ; try++ {
		mark := s.layers.Applied.Mark() // before the judgement looks at anything: what comes later, it may have missed
		findings := s.judge(objects)
		if HasErrors(findings) {
			return nil, findings, nil
		}
		results, err := s.layers.Applied.Put(objects, mark)
		if errors.Is(err, ErrConflict) && try < conflicts {
			continue // what the others have put there counts for the judgement
		}
		if err != nil {
			return nil, findings, fmt.Errorf("apply: %w", err)
		}
		return results, findings, nil
	}
}

// DryRun says what Apply would do, and does nothing.
func (s *Set) DryRun(objects []*Object) ([]Result, []model.Finding, error) {
	if f := repeated(objects); len(f) > 0 {
		return nil, f, nil
	}
	if s.layers.Applied == nil || s.Snapshot() == nil {
		return nil, nil, fmt.Errorf("apply: %w", ErrNotReady)
	}
	findings := s.judge(objects)
	if HasErrors(findings) {
		return nil, findings, nil
	}
	_, results := s.layers.Applied.Preview(objects)
	return results, findings, nil
}

// Applied names all applied objects, those included that are refused, of which nothing may be in force.
func (s *Set) Applied() []Key {
	if s.layers.Applied == nil {
		return nil
	}
	return s.layers.Applied.Kept()
}

// Delete removes applied objects, all or none, or as far as the Keeper's error says. ErrNotFound (wrapped, naming the object) when one is not in the store; a
// NotAppliedError when it is another source's.
func (s *Set) Delete(keys []Key) ([]Result, error) {
	if s.layers.Applied == nil {
		return nil, errors.New("delete: no store")
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	results, err := s.layers.Applied.Remove(keys)
	for try := 1; errors.Is(err, ErrConflict) && try < conflicts; try++ {
		results, err = s.layers.Applied.Remove(keys)
	}
	if !errors.Is(err, ErrNotFound) || s.Snapshot() == nil {
		return results, err
	}
	for _, k := range keys {
		if o := s.Snapshot().Get(k); o != nil && o.Origin.Layer != LayerApplied {
			return nil, &NotAppliedError{o}
		}
	}
	return nil, err
}

// NotAppliedError says where an object is from that cannot be deleted, since it was not applied.
type NotAppliedError struct{ Object *Object }

func (e *NotAppliedError) Error() string {
	o := e.Object
	switch o.Origin.Layer {
	case LayerFile:
		return fmt.Sprintf("%s was not applied: it is written in %s, line %d, and ends when it is removed there", o.Key(), o.Origin.File, o.Origin.Line)
	case LayerRuntime:
		return fmt.Sprintf("%s was not applied: it stands for what runs in the mesh, and ends with that", o.Key())
	}
	return fmt.Sprintf("%s was not applied: it is from %s, and ends when it is removed there", o.Key(), o.Origin.Layer)
}

// Unwrap gives ErrNotFound.
func (e *NotAppliedError) Unwrap() error { return ErrNotFound }

// judge gives what objects that are to be applied have to answer for, as they would be with what the other sources say of them.
func (s *Set) judge(objects []*Object) []model.Finding {
	if s.validate == nil {
		return nil
	}
	aged, _ := s.layers.Applied.Preview(objects)
	s.mu.Lock()
	merged := make([]*Object, len(aged))
	for i, o := range aged {
		merged[i], _ = s.top(o.Key(), o)
	}
	s.mu.Unlock()
	return SortFindings(s.validate(merged))
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
