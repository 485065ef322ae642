package model

import (
	"hash/maphash"
	"iter"
	"maps"
)

// Table is a map whose copies are cheap: a copy shares what neither side changes afterwards, so that successive meshes of ten
// thousand services cost what differs between them. The zero value is empty and ready for use.
//
// Who makes a table may change it until others read it; after that only copies are changed. Reading from several goroutines is safe,
// also while one of them calls Copy.
type Table[K comparable, V any] struct {
	parts []tablePart[K, V] // nil while empty, else tableParts many
	owner *tableOwner       // of the parts that may be changed in place
	count int
}

// tableParts bounds what the change of one entry copies: one part of this many, and the list of them.
const tableParts = 512

type tablePart[K comparable, V any] struct {
	entries map[K]V
	owner   *tableOwner
}

// tableOwner is told apart by its address, so it must not be empty.
type tableOwner struct{ _ byte }

var tableSeed = maphash.MakeSeed()

func tablePlace[K comparable](k K) uint64 { return maphash.Comparable(tableSeed, k) % tableParts }

// TableOf makes a table of a map's entries.
func TableOf[K comparable, V any](m map[K]V) Table[K, V] {
	var t Table[K, V]
	for k, v := range m {
		t.Put(k, v)
	}
	return t
}

// Get gives the value of a key, the zero value when there is none.
func (t *Table[K, V]) Get(k K) V {
	v, _ := t.Lookup(k)
	return v
}

// Lookup gives the value of a key, and whether there is one.
func (t *Table[K, V]) Lookup(k K) (V, bool) {
	if t.parts == nil {
		var none V
		return none, false
	}
	v, ok := t.parts[tablePlace(k)].entries[k]
	return v, ok
}

// Len is the number of entries.
func (t *Table[K, V]) Len() int { return t.count }

// All gives the entries in no particular order.
func (t *Table[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range t.parts {
			for k, v := range t.parts[i].entries {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// Keys gives the keys in no particular order.
func (t *Table[K, V]) Keys() iter.Seq[K] {
	return func(yield func(K) bool) {
		for k := range t.All() {
			if !yield(k) {
				return
			}
		}
	}
}

// Entries gives a map of its own with all entries.
func (t *Table[K, V]) Entries() map[K]V { return maps.Collect(t.All()) }

// Put sets the value of a key.
func (t *Table[K, V]) Put(k K, v V) {
	p := t.own(k)
	before := len(p.entries)
	p.entries[k] = v
	t.count += len(p.entries) - before
}

// Delete removes a key, if it is there.
func (t *Table[K, V]) Delete(k K) {
	if _, ok := t.Lookup(k); ok {
		delete(t.own(k).entries, k)
		t.count--
	}
}

// Copy gives a table with the same entries, to be changed without changing this one. This one must not be changed any more.
func (t *Table[K, V]) Copy() Table[K, V] { return Table[K, V]{parts: t.parts, count: t.count} }

// own gives the part of a key, copied when others may be reading it.
func (t *Table[K, V]) own(k K) *tablePart[K, V] {
	if t.owner == nil {
		t.owner = &tableOwner{}
		parts := make([]tablePart[K, V], tableParts)
		copy(parts, t.parts)
		t.parts = parts
	}
	p := &t.parts[tablePlace(k)]
	if p.owner == t.owner {
		return p
	}
	entries := make(map[K]V, len(p.entries)+1)
	for k, v := range p.entries {
		entries[k] = v
	}
	p.entries, p.owner = entries, t.owner
	return p
}
