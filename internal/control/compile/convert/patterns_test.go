package convert_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// TestPatterns refuses, at each field of the Gateway API's kinds that has a pattern or a choice, or may not be empty, a value that breaks
// that, once.
func TestPatterns(t *testing.T) {
	table, err := os.ReadFile("../../source/schema/bounds.txt")
	if err != nil {
		t.Fatal(err)
	}
	patterns, choices := 0, 0
	for line := range strings.Lines(string(table)) {
		f := strings.SplitN(line, " ", 4)
		var bad any = "% %"
		if source.LookupKind(source.GroupGateway, strings.TrimSuffix(f[0], ".k8s")) == nil {
			continue
		}
		switch f[2] {
		case "pattern":
			patterns++
		case "minLength":
			if bad = ""; f[3] == "0\n" || slices.Contains(absent, f[1]) {
				continue
			}
		case "enum":
			choices++
			first, _, _ := strings.Cut(strings.TrimSpace(f[3]), "|")
			if bad = strings.ToLower(first); bad == first {
				bad = strings.ToUpper(first)
			}
			if n, err := strconv.Atoi(first); err == nil {
				bad = n - 1
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
			t.Errorf("%s %s %v: errors %v", f[0], field, bad, said)
		}
	}
	if patterns < 100 || choices < 30 {
		t.Errorf("there are %d patterns and %d choices: too few were tried", patterns, choices)
	}
}

// absent are fields that are as good as absent when they are empty.
var absent = []string{"spec.validation.subjectAltNames[].hostname", "spec.validation.subjectAltNames[].uri"}

// document makes an object that has nothing but a field, and gives the field's path in it.
func document(kind, pattern string, value any) (field string, doc []byte) {
	steps := strings.Split(pattern, ".")
	tree := value
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
	object := map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": strings.TrimSuffix(kind, ".k8s"), "metadata": map[string]any{"name": "x"}}
	for k, v := range tree.(map[string]any) {
		object[k] = v
	}
	doc, err := yaml.Marshal(object)
	if err != nil {
		panic(fmt.Sprint("a tree of strings: ", err))
	}
	return strings.ReplaceAll(strings.ReplaceAll(pattern, "[]", "[0]"), "{}", `["key"]`), doc
}
