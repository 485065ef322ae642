package apirules_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// TestPatterns refuses, at each field of the Gateway API's kinds that has a pattern or may not be empty, a text that breaks that, once.
func TestPatterns(t *testing.T) {
	table, err := os.ReadFile("bounds.txt")
	if err != nil {
		t.Fatal(err)
	}
	patterns := 0
	for line := range strings.Lines(string(table)) {
		f := strings.SplitN(line, " ", 4)
		bad := "% %"
		switch f[2] {
		case "pattern":
			patterns++
		case "minLength":
			if bad = ""; f[3] == "0\n" || slices.Contains(absent, f[1]) {
				continue
			}
		default:
			continue
		}
		field, doc := document(f[0], f[1], bad)
		objects, findings := source.Decode(source.LayerFile, "in.yaml", doc)
		if len(objects) != 1 || len(findings) > 0 {
			t.Errorf("%s %s: %v\n%s", f[0], f[1], findings, doc)
			continue
		}
		said := slices.DeleteFunc(convert.Object(objects[0], model.Settings{}).Findings, func(f model.Finding) bool {
			return f.Severity != model.Error || f.Field != field
		})
		if len(said) != 1 {
			t.Errorf("%s %s %q: errors %v", f[0], field, bad, said)
		}
	}
	if patterns < 100 {
		t.Errorf("there are %d patterns: too few were tried", patterns)
	}
}

// absent are fields that are as good as absent when they are empty.
var absent = []string{"spec.validation.subjectAltNames[].hostname", "spec.validation.subjectAltNames[].uri"}

// document makes an object that has nothing but a field, and gives the field's path in it.
func document(kind, pattern, value string) (field string, doc []byte) {
	steps := strings.Split(pattern, ".")
	var tree any = value
	for i := len(steps) - 1; i >= 0; i-- {
		name, list := strings.CutSuffix(steps[i], "[]")
		name, keys := strings.CutSuffix(name, "{}")
		if list {
			tree = []any{tree}
		}
		if keys {
			tree = map[string]any{"key": tree}
		}
		tree = map[string]any{name: tree}
	}
	object := map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": "x"}}
	for k, v := range tree.(map[string]any) {
		object[k] = v
	}
	doc, err := yaml.Marshal(object)
	if err != nil {
		panic(fmt.Sprint("a tree of strings: ", err))
	}
	return strings.ReplaceAll(strings.ReplaceAll(pattern, "[]", "[0]"), "{}", `["key"]`), doc
}
