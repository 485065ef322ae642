package model

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
)

// Copies of a table are each like a map of their own, whatever is done to which of them.
func TestTableCopiesAreIndependent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var newest Table[int, int]
	want := map[int]int{}
	type version struct {
		table Table[int, int]
		want  map[int]int
	}
	var old []version
	for range 40 {
		old = append(old, version{newest, maps.Clone(want)})
		newest = newest.Copy()
		for range 200 {
			k := rnd.IntN(3000)
			if rnd.IntN(3) == 0 {
				newest.Delete(k)
				delete(want, k)
			} else {
				newest.Put(k, rnd.Int())
				want[k] = newest.Get(k)
			}
		}
	}
	for i, v := range append(old, version{newest, want}) {
		if got := v.table.Entries(); !maps.Equal(got, v.want) || v.table.Len() != len(v.want) {
			t.Fatalf("version %d has %d entries (Len %d), want %d", i, len(got), v.table.Len(), len(v.want))
		}
	}
}

func TestZeroTable(t *testing.T) {
	var z Table[string, int]
	z.Delete("a")
	if _, ok := z.Lookup("a"); ok || z.Len() != 0 {
		t.Fatal("not empty")
	}
	z.Put("a", 1)
	if z.Get("a") != 1 || z.Len() != 1 {
		t.Fatal("lost an entry")
	}
}

// TestATableChangesCheaply: the change of one entry of 100,000 copies little.
func TestATableChangesCheaply(t *testing.T) {
	type name [4]string
	var table Table[name, *int]
	for i := range 100_000 {
		table.Put(name{strconv.Itoa(i)}, nil)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const changes = 1000
	for i := range changes {
		table = table.Copy()
		table.Put(name{strconv.Itoa(i)}, nil)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / changes; each > 3<<10 {
		t.Errorf("%d bytes are copied at a change", each)
	}
}

func BenchmarkTableChange(b *testing.B) {
	var t Table[int, int]
	for i := range 100_000 {
		t.Put(i, i)
	}
	for i := range b.N {
		t = t.Copy()
		t.Put(i%100_000, i)
	}
}
