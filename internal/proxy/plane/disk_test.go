package plane

import (
	"slices"
	"testing"
)

func TestOneProcessWritesAtATime(t *testing.T) {
	var wrote []string
	note := func(what string) func() { return func() { wrote = append(wrote, what) } }
	expect := func(want ...string) {
		t.Helper()
		slices.Sort(wrote)
		if !slices.Equal(wrote, want) {
			t.Fatalf("wrote %q, want %q", wrote, want)
		}
		wrote = nil
	}
	d := &disk{}
	key, conf := d.store("key"), d.store("configuration")
	key(note("key 1"))
	expect("key 1")
	d.yield(note("last configuration"))
	expect("last configuration")
	d.yield(note("not again"))
	key(note("key 2"))
	key(note("key 3"))
	conf(note("configuration 2"))
	expect()
	d.own()
	expect("configuration 2", "key 3")
	d.own()
	conf(note("configuration 3"))
	expect("configuration 3")
}

func TestASuccessorWritesOnceItOwns(t *testing.T) {
	d, wrote := &disk{yielded: true}, false
	d.store("key")(func() { wrote = true })
	if wrote {
		t.Fatal("wrote what is another process's")
	}
	if d.own(); !wrote {
		t.Fatal("forgot it")
	}
}
