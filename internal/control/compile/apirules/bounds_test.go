package apirules

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write bounds.txt anew")

// schema is what is read of a definition's.
type schema struct {
	Properties           map[string]*schema
	Items                *schema
	AdditionalProperties *schema
	MaxItems             *int
	MaxProperties        *int
	MinLength            *int
	MaxLength            *int
	Pattern              string
	Minimum              *int
	Maximum              *int
	Enum                 []any
}

type definition struct {
	Spec struct {
		Names    struct{ Kind string }
		Versions []struct {
			Storage bool
			Schema  struct{ OpenAPIV3Schema *schema }
		}
	}
}

// ofValues is the pattern that the experimental channel alone has for the values of headers.
const ofValues = `^[!-~]+([\t ]?[!-~]+)*$`

// TestGoldenBounds holds the table against the definitions of the version of the Gateway API that this is built with: those of the
// experimental channel, which have the fields and choices of the standard one and more.
func TestGoldenBounds(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/experimental/gateway.networking.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	var lines []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.Unmarshal(raw, &d); err != nil {
			continue // of another kind, which needs none of this
		}
		for _, v := range d.Spec.Versions {
			if s := v.Schema.OpenAPIV3Schema; v.Storage && s != nil {
				lines = collect(lines, d.Spec.Names.Kind+" spec", s.Properties["spec"])
			}
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

func collect(lines []string, field string, s *schema) []string {
	if s == nil {
		return lines
	}
	for _, b := range []struct {
		rule  string
		limit *int
	}{{"maxItems", s.MaxItems}, {"maxProperties", s.MaxProperties}, {"minLength", s.MinLength}, {"maxLength", s.MaxLength}, {"minimum", s.Minimum}, {"maximum", s.Maximum}} {
		if b.limit != nil {
			lines = append(lines, fmt.Sprintf("%s %s %d", field, b.rule, *b.limit))
		}
	}
	if len(s.Enum) > 0 {
		lines = append(lines, field+" enum "+strings.Trim(strings.ReplaceAll(fmt.Sprint(s.Enum), " ", "|"), "[]"))
	}
	if s.Pattern != "" && s.Pattern != ofValues {
		lines = append(lines, field+" pattern "+s.Pattern)
	}
	for name, sub := range s.Properties {
		lines = collect(lines, field+"."+name, sub)
	}
	lines = collect(lines, field+"[]", s.Items)
	return collect(lines, field+"{}", s.AdditionalProperties)
}
