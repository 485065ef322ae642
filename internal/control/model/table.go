package model

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
)

// Table is a map whose copies are cheap: a copy shares what neither side changes afterwards, so that successive meshes of ten
// thousand services cost what differs between them. The zero value is empty and ready for use.
//
// Who makes a table may change it until others read it; after that only copies are changed. Reading from several goroutines is safe,
// also while one of them calls Copy.
type Table[K comparable, V any] struct {
	shelves *[tableShelves]*tableShelf[K, V] // nil while empty, as are each shelf and each group
	owner   *tableOwner                      // of what may be changed in place
	count   int
}

// The change of one entry copies the list of shelves, one shelf, one group, and one part: some 2 KiB with 100,000 entries.
const (
	tableShelves = 64
	shelfGroups  = 16
	groupParts   = 16
)

type tableShelf[K comparable, V any] struct {
	groups [shelfGroups]*tableGroup[K, V]
	owner  *tableOwner
}

type tableGroup[K comparable, V any] struct {
	parts [groupParts]tablePart[K, V]
	owner *tableOwner
}

type tablePart[K comparable, V any] struct {
	entries []tableEntry[K, V] // by hash
	owner   *tableOwner
}

type tableEntry[K comparable, V any] struct {
	hash  uint64
	key   K
	value V
}

// tableOwner is told apart by its address, so it must not be empty.
type tableOwner struct{ _ byte }

var tableSeed = maphash.MakeSeed()

// place is where an entry of the hash is. What orders entries in a part are the other bits.
func place(hash uint64) (shelf, group, part int) {
	const groups = tableShelves * shelfGroups
	return int(hash % tableShelves), int(hash / tableShelves % shelfGroups), int(hash / groups % groupParts)
}

// find gives the index of a key in a part, or where it belongs.
func (p *tablePart[K, V]) find(hash uint64, k K) (int, bool) {
	i, _ := slices.BinarySearchFunc(p.entries, hash, func(e tableEntry[K, V], h uint64) int { return cmp.Compare(e.hash, h) })
	for ; i < len(p.entries) && p.entries[i].hash == hash; i++ {
		if p.entries[i].key == k {
			return i, true
		}
	}
	return i, false
}

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
	var none V
	if t.shelves == nil {
		return none, false
	}
	hash := maphash.Comparable(tableSeed, k)
	i, j, l := place(hash)
	if t.shelves[i] == nil || t.shelves[i].groups[j] == nil {
		return none, false
	}
	p := &t.shelves[i].groups[j].parts[l]
	at, ok := p.find(hash, k)
	if !ok {
		return none, false
	}
	return p.entries[at].value, true
}

// Len is the number of entries.
func (t *Table[K, V]) Len() int { return t.count }

// All gives the entries in no particular order. The table must not be changed meanwhile; a copy of it may.
func (t *Table[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if t.shelves == nil {
			return
		}
		for _, s := range t.shelves {
			if s != nil && !s.all(yield) {
				return
			}
		}
	}
}

func (s *tableShelf[K, V]) all(yield func(K, V) bool) bool {
	for _, g := range s.groups {
		if g != nil && !g.all(yield) {
			return false
		}
	}
	return true
}

func (g *tableGroup[K, V]) all(yield func(K, V) bool) bool {
	for i := range g.parts {
		for j := range g.parts[i].entries {
			if e := &g.parts[i].entries[j]; !yield(e.key, e.value) {
				return false
			}
		}
	}
	return true
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
	hash := maphash.Comparable(tableSeed, k)
	p := t.own(hash)
	at, ok := p.find(hash, k)
	if ok {
		p.entries[at].value = v
		return
	}
	p.entries = slices.Insert(p.entries, at, tableEntry[K, V]{hash, k, v})
	t.count++
}

// Delete removes a key, if it is there.
func (t *Table[K, V]) Delete(k K) {
	if _, ok := t.Lookup(k); !ok {
		return
	}
	hash := maphash.Comparable(tableSeed, k)
	p := t.own(hash)
	at, _ := p.find(hash, k)
	p.entries = slices.Delete(p.entries, at, at+1)
	t.count--
}

// Copy gives a table with the same entries, to be changed without changing this one. This one must not be changed any more.
func (t *Table[K, V]) Copy() Table[K, V] { return Table[K, V]{shelves: t.shelves, count: t.count} }

// own gives the part of a hash, copied when others may be reading it.
func (t *Table[K, V]) own(hash uint64) *tablePart[K, V] {
	if t.owner == nil {
		t.owner = &tableOwner{}
		shelves := &[tableShelves]*tableShelf[K, V]{}
		if t.shelves != nil {
			*shelves = *t.shelves
		}
		t.shelves = shelves
	}
	i, j, l := place(hash)
	s := t.shelves[i]
	if s == nil || s.owner != t.owner {
		fresh := &tableShelf[K, V]{owner: t.owner}
		if s != nil {
			fresh.groups = s.groups
		}
		t.shelves[i], s = fresh, fresh
	}
	g := s.groups[j]
	if g == nil || g.owner != t.owner {
		fresh := &tableGroup[K, V]{owner: t.owner}
		if g != nil {
			fresh.parts = g.parts
		}
		s.groups[j], g = fresh, fresh
	}
	p := &g.parts[l]
	if p.owner != t.owner {
		entries := make([]tableEntry[K, V], len(p.entries), len(p.entries)+1)
		copy(entries, p.entries)
		p.entries, p.owner = entries, t.owner
	}
	return p
}
