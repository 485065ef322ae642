package source

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestLinesOfPaths: the outline of a document finds what its nodes would.
func TestLinesOfPaths(t *testing.T) {
	const text = `apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: {b.c: d}
data:
  plain: x
  block: |
    one:
    - two: 2
    - three
  folded: >
    four: 4
`
	objects, findings := Decode(LayerFile, "a.yaml", []byte("# comment\n---\n"+text))
	if len(objects) != 1 {
		t.Fatal(findings)
	}
	for path, want := range map[string]int{
		"": 3, "metadata": 5, "metadata.name": 6, `metadata.labels["b.c"]`: 7, "metadata.annotations": 5, "data.plain": 9, "data.plain.x": 9,
		"data.block": 10, "data.block.one[0].two": 12, "data.block.one[1]": 13, "data.block.one[2]": 11, "data.block.none": 10,
		"data.folded.four": 14, "data[0]": 8, "nothing": 3,
	} {
		if got := objects[0].Line(path); got != want {
			t.Errorf("%q: line %d, want %d", path, got, want)
		}
	}
	for path, want := range map[string]bool{"data": true, "data.block": true, "data.none": false, "data.block.one": false} {
		if objects[0].Written(path) != want {
			t.Errorf("%q: written %v", path, !want)
		}
	}
}

// TestMemoryOfRules bounds what an object keeps for each rule, its text included.
func TestMemoryOfRules(t *testing.T) {
	const rules, budget = 20_000, 1100
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: large}\nspec:\n  hosts: [reviews]\n  http:\n")
	for i := range rules {
		fmt.Fprintf(&b, "  - {match: [{uri: {exact: /p%d}}], route: [{destination: {host: reviews}}]}\n", i)
	}
	before := live()
	objects, findings := Decode(LayerFile, "many.yaml", []byte(b.String()))
	after := live()
	if len(objects) != 1 {
		t.Fatal(findings)
	}
	if each := (after - before) / rules; each > budget {
		t.Errorf("%d bytes for each rule, more than %d", each, budget)
	} else {
		t.Logf("%d bytes for each rule", each)
	}
	runtime.KeepAlive(objects)
}

func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
