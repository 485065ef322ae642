package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

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

var (
	objectsBucket = []byte("objects") // Key as JSON -> record as JSON; see putRecord
	birthsBucket  = []byte("births")  // Key as JSON -> time, for objects of other sources
	filesBucket   = []byte("files")   // Key as JSON -> record as JSON: what files held when they were accepted
)

// record is an applied object as it is kept.
type record struct {
	Raw        []byte    `json:"raw"`
	File       string    `json:"file"` // as the user named it
	Line       int       `json:"line"`
	Born       time.Time `json:"born"`
	Changed    time.Time `json:"changed"`
	Generation int64     `json:"generation"` // counts changes, from 1
}

// Store is a source that keeps applied objects in a database file. Its methods may be called from any goroutine.
type Store struct {
	db  *bolt.DB
	now func() time.Time

	mu       sync.Mutex
	objects  map[Key]*Object
	records  map[Key]record
	findings []model.Finding // about records that do not decode any more
	publish  func(Change)
}

// OpenStore opens or makes the database. Only one process can have it open; another waits up to a second and fails. A damaged
// file is an error that says what to do. The caller closes it.
func OpenStore(file string) (s *Store, err error) {
	// The library maps the file: one that was cut off or scribbled on shows as a fault or a panic within it.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, damaged(file, fmt.Errorf("%v", r))
		}
	}()
	db, err := bolt.Open(file, 0o600, &bolt.Options{Timeout: time.Second})
	var path *os.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open store %s: another process has it open", file)
	case errors.As(err, &path):
		return nil, fmt.Errorf("open store: %w", err)
	case err != nil:
		return nil, damaged(file, err)
	}
	s = &Store{db: db, now: time.Now, objects: map[Key]*Object{}, records: map[Key]record{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(damaged(file, err), db.Close())
	}
	return s, nil
}

func damaged(file string, cause error) error {
	return fmt.Errorf("open store %s: the file is damaged (%w); move it away to start without the objects that were applied", file, cause)
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) load() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{birthsBucket, filesBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		b, err := tx.CreateBucketIfNotExists(objectsBucket)
		if err != nil {
			return err
		}
		return eachRecord(b, func(k, v []byte) error {
			var key Key
			var rec record
			if err := errors.Join(json.Unmarshal(k, &key), json.Unmarshal(v, &rec)); err != nil {
				return fmt.Errorf("record %q: %w", k, err)
			}
			s.loadRecord(key, rec)
			return nil
		})
	})
}

// loadRecord decodes a record. One that an earlier release took and this one does not is kept, and reported.
func (s *Store) loadRecord(key Key, rec record) {
	s.records[key] = rec
	for _, d := range (Text{Layer: LayerApplied, File: rec.File}).decodeDocument(rec.Raw, max(rec.Line, 1)) {
		if d.object == nil || d.object.Key() != key {
			s.findings = append(s.findings, d.findings...)
			continue
		}
		d.object.Born = rec.Born
		s.objects[key] = d.object
	}
}

// Layer implements Source.
func (s *Store) Layer() string { return LayerApplied }

// Run implements Source.
func (s *Store) Run(ctx context.Context, publish func(Change)) error {
	s.mu.Lock()
	s.publish = publish
	publish(Change{Reset: true, Set: sorted(s.objects), Findings: s.findings})
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish = nil
	return nil
}

// List gives the applied objects, by key.
func (s *Store) List() []*Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.objects)
}

// Preview implements Keeper.
func (s *Store) Preview(objects []*Object) ([]*Object, []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	aged := s.aged(objects)
	results := make([]Result, len(aged))
	for i, o := range aged {
		results[i] = s.effect(o)
	}
	return aged, results
}

// aged gives each object the age of the one it replaces, or the present; the caller holds mu.
func (s *Store) aged(objects []*Object) []*Object {
	out := make([]*Object, len(objects))
	now := s.now()
	for i, o := range objects {
		c := *o
		c.Origin.Layer = LayerApplied
		if rec, ok := s.records[o.Key()]; ok {
			c.Born = rec.Born
		} else if c.Born.IsZero() {
			c.Born = now
		}
		out[i] = &c
	}
	return out
}

// Mark implements Keeper. Nobody else changes what a Store has, so that there is nothing to tell apart.
func (s *Store) Mark() int64 { return 0 }

// Kept implements Keeper.
func (s *Store) Kept() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.records), Key.Compare)
}

// Put implements Keeper.
func (s *Store) Put(objects []*Object, _ int64) ([]Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	objects = s.aged(objects)
	results := make([]Result, len(objects))
	records := make([]record, len(objects))
	for i, o := range objects {
		rec := s.records[o.Key()]
		results[i] = s.effect(o)
		if results[i].Action != Unchanged {
			rec.Generation++
			rec.Changed = s.now()
		}
		rec.Raw, rec.File, rec.Line, rec.Born = o.Raw, o.Origin.File, o.Origin.Line, o.Born
		records[i] = rec
	}
	err := s.write(func(b *bolt.Bucket) error {
		for i, o := range objects {
			if err := putRecord(b, o.Key(), records[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, o := range objects {
		s.objects[o.Key()], s.records[o.Key()] = o, records[i]
		s.forgive(o.Ref())
	}
	s.changed(Change{Set: objects})
	return results, nil
}

// effect says what keeping an object does; the caller holds mu.
func (s *Store) effect(o *Object) Result {
	k := o.Key()
	if _, known := s.records[k]; !known {
		return Result{k, Created}
	}
	if old := s.objects[k]; old != nil && sameContent(old, o) {
		return Result{k, Unchanged}
	}
	return Result{k, Changed}
}

// Remove implements Keeper.
func (s *Store) Remove(keys []Key) ([]Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]Result, len(keys))
	for i, k := range keys {
		if _, ok := s.records[k]; !ok {
			return nil, fmt.Errorf("%s: %w", k, ErrNotFound)
		}
		results[i] = Result{k, Deleted}
	}
	err := s.write(func(b *bolt.Bucket) error {
		for _, k := range keys {
			if err := deleteRecord(b, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		delete(s.objects, k)
		delete(s.records, k)
		s.forgive(k.ref())
	}
	s.changed(Change{Gone: keys})
	return results, nil
}

func (s *Store) write(change func(*bolt.Bucket) error) error {
	err := s.db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket(objectsBucket)) })
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	return nil
}

// forgive drops findings about an object that was replaced or deleted; the caller holds mu.
func (s *Store) forgive(ref model.Ref) {
	var kept []model.Finding
	for _, f := range s.findings {
		if f.Object != ref {
			kept = append(kept, f)
		}
	}
	s.findings = kept
}

// changed publishes; the caller holds mu.
func (s *Store) changed(ch Change) {
	if s.publish != nil {
		ch.Findings = s.findings
		s.publish(ch)
	}
}

func putJSON(b *bolt.Bucket, k Key, v any) error {
	name, err := json.Marshal(k)
	if err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(name, data)
}

// A record of more than largeRecord bytes is kept in a bucket of its own, under largeKey: what is in a bucket itself is written anew
// with each of its neighbours that changes.
const largeRecord = 16 << 10

var largeKey = []byte("record")

func putRecord(b *bolt.Bucket, k Key, r record) error {
	name, err := json.Marshal(k)
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	into := b.Bucket(name)
	switch {
	case into != nil && len(data) > largeRecord:
		return into.Put(largeKey, data)
	case into != nil:
		err = b.DeleteBucket(name)
	case len(data) > largeRecord:
		err = b.Delete(name)
	}
	if err != nil {
		return err
	}
	if len(data) <= largeRecord {
		return b.Put(name, data)
	}
	if into, err = b.CreateBucket(name); err != nil {
		return err
	}
	return into.Put(largeKey, data)
}

func deleteRecord(b *bolt.Bucket, k Key) error {
	name, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if b.Bucket(name) != nil {
		return b.DeleteBucket(name)
	}
	return b.Delete(name)
}

// eachRecord gives the key and the text of each record.
func eachRecord(b *bolt.Bucket, f func(k, v []byte) error) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			v = b.Bucket(k).Get(largeKey)
		}
		return f(k, v)
	})
}

func sameContent(a, b *Object) bool {
	x, err1 := json.Marshal(a.Kube)
	y, err2 := json.Marshal(b.Kube)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Births records when objects were first seen, and forgets those that are not named any more. It is what Files takes.
func (s *Store) Births(keys []Key) (map[Key]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	births := map[Key]time.Time{}
	now := s.now()
	known, err := s.readBirths()
	if err != nil {
		return nil, err
	}
	changed := len(known) != len(keys)
	for _, k := range keys {
		t, ok := known[k]
		if !ok {
			t, changed = now, true
		}
		births[k] = t
	}
	if !changed {
		return births, nil
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(birthsBucket); err != nil {
			return err
		}
		b, err := tx.CreateBucket(birthsBucket)
		if err != nil {
			return err
		}
		for k, t := range births {
			if err := putJSON(b, k, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record births: %w", err)
	}
	return births, nil
}

func (s *Store) readBirths() (map[Key]time.Time, error) {
	known := map[Key]time.Time{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(birthsBucket).ForEach(func(k, v []byte) error {
			var key Key
			var t time.Time
			if err := errors.Join(json.Unmarshal(k, &key), json.Unmarshal(v, &t)); err != nil {
				return err
			}
			known[key] = t
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read births: %w", err)
	}
	return known, nil
}

// remember makes the record of what files held, of which some objects are known to be in it already; nil when nothing is known of it.
func (s *Store) remember(known, objects []*Object) error {
	gone := map[Key]*Object{}
	for _, o := range known {
		gone[o.Key()] = o
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		if known == nil {
			if err := tx.DeleteBucket(filesBucket); err != nil {
				return err
			}
		}
		b, err := tx.CreateBucketIfNotExists(filesBucket)
		if err != nil {
			return err
		}
		for _, o := range objects {
			k := o.Key()
			was := gone[k]
			delete(gone, k)
			if was == o {
				continue
			}
			if err := putRecord(b, k, record{Raw: o.Raw, File: o.Origin.File, Line: o.Origin.Line, Born: o.Born}); err != nil {
				return err
			}
		}
		for k := range gone {
			if err := deleteRecord(b, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember accepted objects: %w", err)
	}
	return nil
}

// recall gives what files held when the process ended, as far as it still decodes.
func (s *Store) recall() []*Object {
	var objects []*Object
	// A record that cannot be read stands for nothing: the files themselves are read next.
	_ = s.db.View(func(tx *bolt.Tx) error {
		return eachRecord(tx.Bucket(filesBucket), func(_, v []byte) error {
			var rec record
			if err := json.Unmarshal(v, &rec); err != nil {
				return nil
			}
			for _, d := range (Text{Layer: LayerFile, File: rec.File}).decodeDocument(rec.Raw, max(rec.Line, 1)) {
				if d.object != nil {
					d.object.Born = rec.Born
					objects = append(objects, d.object)
				}
			}
			return nil
		})
	})
	return objects
}
