package kube

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
)

// variant is an object in which one value is another, or left out.
type variant struct {
	what string // field = value, where entries of lists are alike
	doc  map[string]any
}

// variants gives those of an object in which a value of its spec is left out, of another size or form, or there twice.
func variants(object map[string]any) (all []variant) {
	var walk func(v any, field string, set func(any) map[string]any)
	walk = func(v any, field string, set func(any) map[string]any) {
		for _, other := range others(v) {
			all = append(all, variant{fmt.Sprintf("%s = %.40v", field, other), set(other)})
		}
		switch v := v.(type) {
		case map[string]any:
			for name, sub := range v {
				with := func(sub any) map[string]any {
					c := make(map[string]any, len(v))
					for n, s := range v {
						c[n] = s
					}
					if c[name] = sub; sub == absent {
						delete(c, name)
					}
					return set(c)
				}
				all = append(all, variant{field + "." + name + " left out", with(absent)})
				walk(sub, field+"."+name, with)
			}
		case []any:
			for i, sub := range v {
				walk(sub, field+"[]", func(sub any) map[string]any {
					c := slices.Clone(v)
					c[i] = sub
					return set(c)
				})
			}
		}
	}
	walk(object["spec"], "spec", func(v any) map[string]any {
		c := map[string]any{}
		for name, sub := range object {
			c[name] = sub
		}
		c["spec"] = v
		return c
	})
	return all
}

// absent stands for a field that is left out.
var absent = any(new(int))

// others are values in the place of another.
func others(v any) []any {
	switch v := v.(type) {
	case string:
		return []any{nil, "", strings.ToUpper(v), v + " ", "a_b", "/x", "%zz", strings.Repeat("a", 64), strings.Repeat("a", 260), "*", 5}
	case float64:
		return []any{nil, 0, -1, 65536, "7"}
	case []any:
		return []any{nil, []any{}, append(slices.Clone(v), v...), slices.Repeat(v, 70)}
	case map[string]any:
		return []any{nil, map[string]any{}, []any{}}
	case bool:
		return []any{nil, "true"}
	}
	return nil
}

// TestServerRefusesNoVariants changes the examples of package compile that a real server takes, one value at a time: what it refuses of these
// is an error for us as well.
func TestServerRefusesNoVariants(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	files, err := filepath.Glob("../../compile/testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	tried, refused := map[string]bool{}, 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs := bytes.Split(archive.Files[0].Data, []byte("\n---\n"))
		for i, doc := range docs {
			var object map[string]any
			if yaml.Unmarshal(doc, &object) != nil {
				continue
			}
			kind, _ := object["kind"].(string)
			apiVersion, _ := object["apiVersion"].(string)
			plural := pluralOf(kind, apiVersion)
			if plural == "" || c.tries(t, apiVersion, plural, string(doc)) != nil {
				continue
			}
			before := judged(docs, i, doc)
			if slices.ContainsFunc(before, func(code string) bool { return code != "" }) {
				continue
			}
			for _, v := range variants(object) {
				what := apiVersion + " " + kind + " " + v.what
				if tried[what] {
					continue
				}
				tried[what] = true
				text, err := yaml.Marshal(v.doc)
				if err != nil {
					t.Fatal(err)
				}
				no := c.tries(t, apiVersion, plural, string(text))
				if no == nil || excused(what, no) {
					continue
				}
				refused++
				if len(judged(docs, i, text)) == 0 {
					t.Errorf("%s (%s)\nthe server: %.300v", what, filepath.Base(file), no)
				}
			}
		}
	}
	t.Logf("of %d variants the server refuses %d", len(tried), refused)
}

func pluralOf(kind, apiVersion string) string {
	for name, at := range plurals {
		group, _, _ := strings.Cut(at[0], "/")
		if short, _, _ := strings.Cut(name, "."); short == kind && strings.HasPrefix(apiVersion, group) {
			return at[1]
		}
	}
	return ""
}

// judged gives the codes of errors about one of several documents, when it is another.
func judged(docs [][]byte, i int, doc []byte) (codes []string) {
	docs = slices.Clone(docs)
	docs[i] = doc
	var objects []*source.Object
	for j, doc := range docs {
		decoded, findings := source.Decode(source.LayerFile, fmt.Sprint(j), doc)
		objects = append(objects, decoded...)
		for _, f := range findings {
			if j == i && source.HasErrors(findings) {
				codes = append(codes, f.Code)
			}
		}
	}
	if len(codes) > 0 {
		return codes
	}
	_, findings := compile.Compile(compile.Input{Objects: objects})
	for _, f := range findings {
		if f.File == fmt.Sprint(i) && f.Severity == "error" {
			codes = append(codes, f.Code)
		}
	}
	return codes
}

// excuses are what a server refuses and we do not, with the reason.
var excuses = []struct{ what, no string }{
	{" = <nil>", ""}, // null is as good as absent, also as the value of a map's key
	{"networking.istio.io/v1 ServiceEntry", "must have at most"}, // how much there may be for the sake of a server's expressions
	{"v1 Service spec.clusterIP", "when multiple IP families"},
	{"v1 Gateway spec.listeners[].hostname left out", "must be unique"}, // listeners of one hostname are left out each by itself
}

func excused(what string, no error) bool {
	return slices.ContainsFunc(excuses, func(e struct{ what, no string }) bool {
		return strings.Contains(what, e.what) && strings.Contains(no.Error(), e.no)
	})
}
