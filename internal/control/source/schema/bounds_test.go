package schema

import (
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write bounds.txt anew")

// openAPI is what is read of a definition's schema.
type openAPI struct {
	Properties           map[string]*openAPI
	Items                *openAPI
	AdditionalProperties *openAPI
	Required             []string
	MinItems             *float64
	MaxItems             *float64
	MinProperties        *float64
	MaxProperties        *float64
	MinLength            *float64
	MaxLength            *float64
	Minimum              *float64
	Maximum              *float64
	Pattern              string
	Enum                 []any
	ListType             string   `json:"x-kubernetes-list-type"`
	ListMapKeys          []string `json:"x-kubernetes-list-map-keys"`
}

type definition struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Schema struct{ OpenAPIV3Schema *openAPI }
		}
	}
}

// ofValues is the pattern that the experimental channel alone has for the values of headers.
const ofValues = `^[!-~]+([\t ]?[!-~]+)*$`

// TestGoldenBounds holds the table against the definitions of the versions of the Gateway API and of Istio that this is built with. Of the
// Gateway API it is those of the experimental channel, which have the fields and choices of the standard one and more.
func TestGoldenBounds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(module(t, "sigs.k8s.io/gateway-api"), "config/crd/experimental/gateway.networking.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	var lines []string
	for _, file := range append(files, filepath.Join(module(t, "istio.io/api"), "kubernetes/customresourcedefinitions.gen.yaml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			var d definition
			if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			lines = append(lines, d.lines()...)
		}
	}
	slices.Sort(lines)
	if *update {
		if err := os.WriteFile("bounds.txt", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(strings.TrimSpace(boundsText), "\n"), lines); d != "" {
		t.Errorf("bounds.txt is not that of the definitions: go test -run Golden -update (-have +want):\n%s", d)
	}
}

func module(t *testing.T, path string) (dir string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// groups are those whose kinds are in the table, with the ends by which findings tell kinds of one name apart.
var groups = map[string]string{"gateway.networking.k8s.io": ".k8s", "networking.istio.io": ".istio", "security.istio.io": ""}

// unread are kinds of theirs that the mesh does not read.
var unread = []string{"EnvoyFilter", "RequestAuthentication"}

// besides are rules of Istio's kinds that are left out: those that the types of its messages hold, and that there may be hundreds of
// something at most, which is for the sake of an API server that evaluates expressions on them.
var besides = regexp.MustCompile(` (enum .*|minimum 0|max(Items|Properties) [0-9]{3,})$`)

// lines gives the rules of a kind: those of v1, or of its only version, and of older versions that have others.
func (d *definition) lines() (lines []string) {
	end, ok := groups[d.Spec.Group]
	if !ok || slices.Contains(unread, d.Spec.Names.Kind) {
		return nil
	}
	kind := d.Spec.Names.Kind
	if kind == "Gateway" {
		kind += end
	}
	rules := map[string][]string{}
	newest := d.Spec.Versions[0].Name
	for _, v := range d.Spec.Versions {
		if s := v.Schema.OpenAPIV3Schema; s != nil {
			delete(s.Properties, "status")
			rules[v.Name] = collect(nil, "", s)
			if strings.HasSuffix(d.Spec.Group, ".istio.io") {
				rules[v.Name] = slices.DeleteFunc(rules[v.Name], besides.MatchString)
			}
			slices.Sort(rules[v.Name])
		}
		if v.Name == "v1" {
			newest = v.Name
		}
	}
	for version, of := range rules {
		name := kind
		if version != newest && slices.Equal(of, rules[newest]) {
			continue
		} else if version != newest {
			name += "/" + version
		}
		for _, rule := range of {
			lines = append(lines, name+" "+rule)
		}
	}
	return lines
}

// collect adds the rules of a field and of those within it, as far as its type does not say them.
func collect(lines []string, field string, s *openAPI) []string {
	if s == nil {
		return lines
	}
	add := func(rule, value string) {
		at := field
		if at == "" {
			at = "."
		}
		lines = append(lines, strings.TrimPrefix(at, ".")+" "+rule+" "+value)
	}
	for _, b := range []struct {
		rule  string
		limit *float64
	}{{"minItems", s.MinItems}, {"maxItems", s.MaxItems}, {"minProperties", s.MinProperties}, {"maxProperties", s.MaxProperties}, {"minLength", s.MinLength},
		{"maxLength", s.MaxLength}, {"minimum", s.Minimum}, {"maximum", s.Maximum}} {
		if b.limit != nil && !(strings.HasPrefix(b.rule, "min") && b.rule != "minimum" && *b.limit == 0) && *b.limit < math.MaxUint32 {
			add(b.rule, fmt.Sprint(int64(*b.limit)))
		}
	}
	if len(s.Required) > 0 {
		add("required", strings.Join(s.Required, "|"))
	}
	if len(s.Enum) > 0 {
		add("enum", strings.Trim(strings.ReplaceAll(fmt.Sprint(s.Enum), " ", "|"), "[]"))
	}
	if s.Pattern != "" && s.Pattern != ofValues {
		add("pattern", s.Pattern)
	}
	switch s.ListType {
	case "set":
		add("set", "-")
	case "map":
		add("map", strings.Join(s.ListMapKeys, "|"))
	}
	for name, sub := range s.Properties {
		lines = collect(lines, field+"."+name, sub)
	}
	lines = collect(lines, field+"[]", s.Items)
	return collect(lines, field+"{}", s.AdditionalProperties)
}
