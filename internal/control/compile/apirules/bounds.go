package apirules

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/control/source"
)

// boundsText holds the bounds that the definitions of the Gateway API's kinds set: of lists, maps, texts and numbers, one a line, as
// "KIND FIELD RULE NUMBER". A test writes it from the definitions.
//
//go:embed bounds.txt
var boundsText string

// bound is one of them.
type bound struct {
	rule  string // as OpenAPI calls it: maxItems, maxProperties, maxLength, minimum, maximum
	limit int
}

// bounds are those of each kind, by field, in which "[]" stands for any place of a list and "{}" for any key.
var bounds = sync.OnceValue(func() map[string]map[string][]bound {
	out := map[string]map[string][]bound{}
	for line := range strings.Lines(boundsText) {
		f := strings.Fields(line)
		limit, err := strconv.Atoi(f[3])
		if err != nil {
			panic("apirules: bounds.txt: " + err.Error())
		}
		if out[f[0]] == nil {
			out[f[0]] = map[string][]bound{}
		}
		out[f[0]][f[1]] = append(out[f[0]][f[1]], bound{f[2], limit})
	}
	return out
})

// known are the ends of fields that conversion judges.
var known = []string{".port", ".weight", ".maxAge", ".percent", ".numerator", ".denominator", ".path.value"}

// older are kinds of which earlier versions may have several rules: those that are never reached get a warning.
var older = []string{"TLSRoute", "TCPRoute", "UDPRoute"}

// bounded judges how large the parts of an object are.
func (c checker) bounded() {
	of := bounds()[c.Kind.Name]
	if c.Kind.Group != source.GroupGateway || of == nil {
		return
	}
	raw, err := json.Marshal(c.Kube)
	if err != nil {
		return
	}
	var tree struct {
		Spec any `json:"spec"`
	}
	if json.Unmarshal(raw, &tree) == nil {
		c.within(of, tree.Spec, "spec", "spec")
	}
}

// within judges a value; its pattern is its field as bounds has it.
func (c checker) within(of map[string][]bound, v any, field, pattern string) {
	for _, b := range of[pattern] {
		if pattern == "spec.rules" && slices.Contains(older, c.Kind.Name) {
			continue
		}
		if !slices.ContainsFunc(known, func(end string) bool { return strings.HasSuffix(pattern, end) }) {
			c.hold(b, v, field)
		}
	}
	switch v := v.(type) {
	case []any:
		for i, sub := range v {
			c.within(of, sub, at(field, i), pattern+"[]")
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if _, ok := of[pattern+"{}"]; ok {
				c.within(of, v[name], fmt.Sprintf("%s[%q]", field, name), pattern+"{}")
			} else {
				c.within(of, v[name], field+"."+name, pattern+"."+name)
			}
		}
	}
}

// hold judges a value by one bound.
func (c checker) hold(b bound, v any, field string) {
	switch v := v.(type) {
	case []any:
		if b.rule == "maxItems" && len(v) > b.limit {
			c.say("InvalidValue", field, "divide the object", "there are %d, and at most %d are allowed", len(v), b.limit)
		}
	case map[string]any:
		if b.rule == "maxProperties" && len(v) > b.limit {
			c.say("InvalidValue", field, "", "there are %d, and at most %d are allowed", len(v), b.limit)
		}
	case string:
		if n := utf8.RuneCountInString(v); b.rule == "maxLength" && n > b.limit {
			c.say("InvalidValue", field, "", "it has %d characters, and at most %d are allowed", n, b.limit)
		}
	case float64:
		if b.rule == "minimum" && v < float64(b.limit) {
			c.say("InvalidValue", field, "", "%v is less than %d", v, b.limit)
		} else if b.rule == "maximum" && v > float64(b.limit) {
			c.say("InvalidValue", field, "", "%v is more than %d", v, b.limit)
		}
	}
}

// maxMatches is how many matches all rules of a route may have together.
const maxMatches = 128

func (c checker) matches(n int) {
	if n > maxMatches {
		c.say("InvalidValue", "spec.rules", "divide the route", "the rules have %d matches together, and at most %d are allowed", n, maxMatches)
	}
}
