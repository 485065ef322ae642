package apirules

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// boundsText holds the bounds that the definitions of the Gateway API's kinds set, of lists, maps, texts and numbers, the patterns of
// texts and the values that are allowed where they are few, one a line, as "KIND FIELD RULE NUMBER", "KIND FIELD pattern PATTERN" or
// "KIND FIELD enum VALUE|VALUE". A test writes it from the definitions.
//
//go:embed bounds.txt
var boundsText string

// bound is one of them.
type bound struct {
	rule    string // as OpenAPI calls it: maxItems, maxProperties, minLength, maxLength, minimum, maximum, pattern, enum
	limit   int
	pattern *regexp.Regexp // of the rule of that name
	allowed []string       // of an enum
}

// bounds are those of each kind, by field, in which "[]" stands for any place of a list and "{}" for any key.
var bounds = sync.OnceValue(func() map[string]map[string][]bound {
	out := map[string]map[string][]bound{}
	compiled := map[string]*regexp.Regexp{} // there are few
	for line := range strings.Lines(boundsText) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		b := bound{rule: f[2]}
		switch b.rule {
		case "pattern":
			if compiled[f[3]] == nil {
				compiled[f[3]] = regexp.MustCompile(f[3])
			}
			b.pattern = compiled[f[3]]
		case "enum":
			b.allowed = strings.Split(f[3], "|")
		default:
			var err error
			if b.limit, err = strconv.Atoi(f[3]); err != nil {
				panic("apirules: bounds.txt: " + err.Error())
			}
		}
		if out[f[0]] == nil {
			out[f[0]] = map[string][]bound{}
		}
		out[f[0]][f[1]] = append(out[f[0]][f[1]], b)
	}
	return out
})

// known are the ends of fields that conversion judges.
var known = []string{".port", ".weight", ".maxAge", ".percent", ".numerator", ".denominator", ".path.value"}

// older are kinds of which earlier versions may have several rules: those that are never reached get a warning.
var older = []string{"TLSRoute", "TCPRoute", "UDPRoute"}

// Bounds judges how large the parts of an object are, and whether its texts are of the form that is asked for and its choices among
// those there are. Where something else is wrong with a field, that says it better.
func Bounds(o *source.Object, say Say) {
	c := checker{o, say}
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
		if b.rule == "enum" {
			c.among(b.allowed, v, field)
			return
		}
		n := utf8.RuneCountInString(v)
		switch {
		case b.rule == "maxLength" && n > b.limit:
			c.say("InvalidValue", field, "", "it has %d characters, and at most %d are allowed", n, b.limit)
		case b.rule == "minLength" && n < b.limit:
			c.say("MissingField", field, "", "it may not be empty")
		case b.rule == "pattern" && v != "" && !b.pattern.MatchString(v):
			code, want := form(b.pattern.String(), field)
			c.say(code, field, want, "%q is not of the form that is asked for here", v)
		}
	case float64:
		if b.rule == "minimum" && v < float64(b.limit) {
			c.say("InvalidValue", field, "", "%v is less than %d", v, b.limit)
		} else if b.rule == "maximum" && v > float64(b.limit) {
			c.say("InvalidValue", field, "", "%v is more than %d", v, b.limit)
		} else if b.rule == "enum" {
			c.among(b.allowed, strconv.FormatFloat(v, 'f', -1, 64), field)
		}
	}
}

// among judges a choice.
func (c checker) among(allowed []string, v, field string) {
	switch {
	case slices.Contains(allowed, v):
	case v == "":
		c.say("MissingField", field, "", "it may not be empty: use one of %s", strings.Join(allowed, ", "))
	default:
		c.say("InvalidValue", field, document.DidYouMean(v, allowed), "%q is not one of %s", v, strings.Join(allowed, ", "))
	}
}

// forms are the codes for texts that do not fit a pattern, and what it asks for. It is never changed.
var forms = map[string][2]string{
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`:                                          {"InvalidName", `use lower case letters, digits and, between them, "-"`},
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`:        {"InvalidName", `use lower case letters, digits and, between them, "-" and "."`},
	`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`: {"InvalidHost", `hosts look like "www.example.com" or "*.example.com", in lower case`},
	`^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`:                                    {"InvalidValue", `kinds look like "Service"`},
	`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`:     {"InvalidValue", `groups look like "gateway.networking.k8s.io"; that of Services is ""`},
	`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`:                                        {"InvalidHeaderName", "use letters, digits and -"},
	`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`:                            {"InvalidLabel", `use letters, digits and, between them, "-", "_" and "."`},
	`^([0-9]{1,5}(h|m|s|ms)){1,4}$`:                                            {"InvalidDuration", "durations look like 1m30s"},
}

// form gives what to say of a text that does not fit a pattern.
func form(pattern, field string) (code, want string) {
	f, ok := forms[pattern]
	switch {
	case !ok:
		return "InvalidValue", "the pattern is " + pattern
	case strings.HasSuffix(field, ".hostname"):
		return "InvalidHost", f[1]
	}
	return f[0], f[1]
}

// maxMatches is how many matches all rules of a route may have together.
const maxMatches = 128

func (c checker) matches(n int) {
	if n > maxMatches {
		c.say("InvalidValue", "spec.rules", "divide the route", "the rules have %d matches together, and at most %d are allowed", n, maxMatches)
	}
}
