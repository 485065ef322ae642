package source

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestLargeRecordsAreLeftAlone: what changes beside a large object is written without it, and large ones are kept, replaced, made small
// and deleted as others are.
func TestLargeRecordsAreLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	s, err := OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	large := func(name, label string) *Object {
		return decode(t, service(name, label)+"# "+strings.Repeat("x", 1<<20)+"\n")[0]
	}
	small := func(name, label string) *Object { return decode(t, service(name, label))[0] }
	put := func(objects ...*Object) {
		t.Helper()
		if _, err := s.Put(objects, s.Mark()); err != nil {
			t.Fatal(err)
		}
	}
	remember := func(known, objects []*Object) {
		t.Helper()
		if err := s.remember(known, objects); err != nil {
			t.Fatal(err)
		}
	}
	// written gives the bytes of pages that something has the database write.
	written := func(f func()) int64 {
		stats := s.db.Stats()
		before := stats.TxStats.GetPageAlloc()
		f()
		stats = s.db.Stats()
		return stats.TxStats.GetPageAlloc() - before
	}
	put(small("a", "1"), large("b", "1"), large("c", "1"), small("d", "1"))
	held := []*Object{small("a", "1"), large("b", "1"), large("c", "1"), small("d", "1")}
	remember(nil, held)
	if n := written(func() { put(small("a", "2")) }); n > 1<<18 {
		t.Errorf("%d bytes are written for a small object that was applied", n)
	}
	next := []*Object{small("a", "2"), held[1], small("c", "2"), large("d", "2")}
	remember(held, next)
	last := []*Object{small("a", "3"), held[1], next[2], next[3]}
	if n := written(func() { remember(next, last) }); n > 1<<18 {
		t.Errorf("%d bytes are written for a small object of a file", n)
	}
	put(small("c", "2"), large("d", "2"))
	if _, err := s.Remove([]Key{held[1].Key()}); err != nil {
		t.Fatal(err)
	}
	remember(last, last[:3])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, file)
	if got := summary(again.List(), nil); got != "a=2 c=2 d=2" {
		t.Errorf("applied are %q", got)
	}
	if got := summary(again.recall(), nil); got != "a=3 b=1 c=2" {
		t.Errorf("remembered are %q", got)
	}
	if n := len(again.List()[2].Raw); n < 1<<20 {
		t.Errorf("the large object has %d bytes", n)
	}
}
