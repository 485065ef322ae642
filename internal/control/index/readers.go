package index

import (
	"cmp"
	"iter"
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
}

// Keys gives all that a delta names.
func Keys(d model.Delta) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for kind, names := range map[Kind]map[string]bool{Services: d.Services, Endpoints: d.Endpoints, Accounts: d.Accounts, Routes: d.Routes,
			Destinations: d.Destinations, Workloads: d.Workloads, Policies: d.Policies, Sidecars: d.Sidecars} {
			for n := range names {
				if !yield(Key{kind, n}) {
					return
				}
			}
		}
		for a := range d.Addresses {
			if !yield(Key{Addresses, a.String()}) {
				return
			}
		}
		for n := range d.Networks {
			if !yield(Key{Addresses, n.String()}) {
				return
			}
		}
		for r := range d.Gateways {
			if !yield(Key{Gateways, r.String()}) {
				return
			}
		}
	}
}

// Readers remembers who has looked at what. Its owner locks it. R is compared, so it is a pointer as a rule.
type Readers[R comparable] struct {
	byKey [kinds]map[string]*readersOf[R]
}

// readersOf are the readers of one key. Each knows its place, so that one of thousands leaves without a search.
type readersOf[R comparable] struct {
	key  Key
	list []seat[R]
}

type seat[R comparable] struct {
	reader R
	reads  *Reads[R]
	place  int // in reads
}

// Reads are the keys of one reader; its zero value is for a new one.
type Reads[R comparable] struct{ list []read[R] }

type read[R comparable] struct {
	of    *readersOf[R]
	place int // in its list
}

// Set makes keys what a reader has looked at; none to forget it.
func (r *Readers[R]) Set(reader R, reads *Reads[R], keys []Key) {
	if reads.are(keys) {
		return
	}
	for _, was := range reads.list {
		r.leave(was)
	}
	reads.list = nil
	if len(keys) == 0 {
		return
	}
	reads.list = make([]read[R], len(keys))
	for i, k := range keys {
		of := r.at(k)
		reads.list[i] = read[R]{of, len(of.list)}
		of.list = append(of.list, seat[R]{reader, reads, i})
	}
}

func (r *Reads[R]) are(keys []Key) bool {
	if len(keys) != len(r.list) {
		return false
	}
	for i, k := range keys {
		if r.list[i].of.key != k {
			return false
		}
	}
	return true
}

func (r *Readers[R]) at(k Key) *readersOf[R] {
	if r.byKey[k.Kind] == nil {
		r.byKey[k.Kind] = map[string]*readersOf[R]{}
	}
	of := r.byKey[k.Kind][k.Name]
	if of == nil {
		of = &readersOf[R]{key: k}
		r.byKey[k.Kind][k.Name] = of
	}
	return of
}

// leave takes a reader out of a list; the last one takes its place.
func (r *Readers[R]) leave(was read[R]) {
	of, end := was.of, len(was.of.list)-1
	moved := of.list[end]
	of.list[was.place] = moved
	moved.reads.list[moved.place].place = was.place
	of.list[end] = seat[R]{}
	of.list = of.list[:end]
	if end == 0 && r.byKey[of.key.Kind][of.key.Name] == of { // and not of a list of before
		delete(r.byKey[of.key.Kind], of.key.Name)
	}
}

// Len is the number of keys that somebody has looked at.
func (r *Readers[R]) Len() int {
	n := 0
	for _, m := range r.byKey {
		n += len(m)
	}
	return n
}

// Touched gives the readers of what a delta names, perhaps several times. A delta of everything touches everybody, which its owner
// sees to.
func (r *Readers[R]) Touched(d model.Delta) iter.Seq[R] {
	return func(yield func(R) bool) {
		for k := range Keys(d) {
			if !r.touchedBy(k, yield) {
				return
			}
		}
	}
}

func (r *Readers[R]) touchedBy(k Key, yield func(R) bool) bool {
	byName := r.byKey[k.Kind]
	if !byName[k.Name].each(yield) {
		return false
	}
	if bySelector(k.Kind) {
		return true
	}
	if k.Name != "" && !byName[""].each(yield) {
		return false
	}
	if n, err := netip.ParsePrefix(k.Name); k.Kind == Addresses && err == nil {
		for name, of := range byName {
			if a, err := netip.ParseAddr(name); err == nil && n.Contains(a) && !of.each(yield) {
				return false
			}
		}
		return true
	}
	if !IsWildcard(k.Name) {
		return true
	}
	for name, of := range byName {
		if name != "" && name != k.Name && Covers(k.Name, name) && !of.each(yield) {
			return false
		}
	}
	return true
}

func (l *readersOf[R]) each(yield func(R) bool) bool {
	if l == nil {
		return true
	}
	for _, s := range l.list {
		if !yield(s.reader) {
			return false
		}
	}
	return true
}
