// Package schema holds objects to what the definitions (CRDs) of the Gateway API's and Istio's kinds say of their specs: which fields there
// must be, how many entries, how large values are, of which form and choice, and which lists may have nothing twice. A Kubernetes API server
// does the same.
package schema

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// boundsText holds the rules of the definitions, one a line, as "KIND FIELD RULE VALUE": those of a kind's preferred version, and of
// "KIND/VERSION" where an older one has others. A test writes it from the definitions.
//
//go:embed bounds.txt
var boundsText string

// bound is one of the rules.
type bound struct {
	rule    string // as OpenAPI calls it; set and map are types of lists, which have each entry, or each key of entries, once
	limit   int
	pattern *regexp.Regexp // of the rule of that name
	words   []string       // of an enum the choices, of required the fields, of map those that are the key
}

// node has the rules of the values at one place.
type node struct {
	name   string // of the field
	bounds []bound
	fields []*node
	each   *node // any entry of a list, or value of a map
}

// bounds are the rules of objects, by kind or kind and version.
var bounds = sync.OnceValue(func() map[string]*node {
	roots := map[string]*node{}
	compiled := map[string]*regexp.Regexp{} // there are few
	for line := range strings.Lines(boundsText) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if f[2] != "required" && slices.ContainsFunc(known, func(end string) bool { return strings.HasSuffix(f[1], end) }) {
			continue
		}
		b := bound{rule: f[2]}
		switch b.rule {
		case "pattern":
			if compiled[f[3]] == nil {
				compiled[f[3]] = regexp.MustCompile(f[3])
			}
			b.pattern = compiled[f[3]]
		case "enum", "required", "set", "map":
			b.words = strings.Split(f[3], "|")
		default:
			var err error
			if b.limit, err = strconv.Atoi(f[3]); err != nil {
				panic("schema: bounds.txt: " + err.Error())
			}
		}
		if roots[f[0]] == nil {
			roots[f[0]] = &node{}
		}
		n := roots[f[0]].at(f[1])
		n.bounds = append(n.bounds, b)
	}
	return roots
})

// at gives the node of a field as the table calls it: "." for the object itself, else "spec.rules[].name", in which "[]" stands for any
// entry and "{}" for any key.
func (n *node) at(field string) *node {
	for _, step := range strings.FieldsFunc(strings.NewReplacer("[]", ".*", "{}", ".*").Replace(field), func(r rune) bool { return r == '.' }) {
		if step == "*" {
			if n.each == nil {
				n.each = &node{}
			}
			n = n.each
			continue
		}
		i := slices.IndexFunc(n.fields, func(f *node) bool { return f.name == step })
		if i < 0 {
			i, n.fields = len(n.fields), append(n.fields, &node{name: step})
		}
		n = n.fields[i]
	}
	return n
}

// known are the ends of fields whose values conversion judges.
var known = []string{".weight", ".percent", ".numerator", ".denominator", ".path.value"}

// Breach is a rule that an object does not keep.
type Breach struct {
	Code, Field, Message, Hint string
	Absent                     bool // the field is required and not written
}

// Judge gives the rules that an object does not keep, as many as findings may be made of it. The kind is as findings call it, the version
// the object's own, and the tree is JSON's. Of what an API server has served only the values are judged: it knows how much there must be in
// the version that the object was written in.
func Judge(kind, version string, tree any, served bool) []Breach {
	n := bounds()[kind+"/"+version]
	if n == nil {
		n = bounds()[kind]
	}
	if n == nil {
		return nil
	}
	j := judge{served: served}
	j.value(n, tree, nil)
	return j.breaches
}

type judge struct {
	served   bool
	breaches []Breach
}

// place is where a value is: a field, or an entry, of what is at another. Paths are made of it when there is something to say.
type place struct {
	up    *place
	key   string
	index int // of an entry of a list, when there is no key; -1 with a map's key
}

func (p *place) String() string {
	switch {
	case p == nil:
		return ""
	case p.index < 0:
		return p.up.String() + "[" + strconv.Quote(p.key) + "]"
	case p.key == "":
		return p.up.String() + "[" + strconv.Itoa(p.index) + "]"
	}
	return document.Join(p.up.String(), p.key)
}

func (j *judge) say(code string, at *place, hint, format string, args ...any) {
	if len(j.breaches) <= model.MaxFindings {
		j.breaches = append(j.breaches, Breach{Code: code, Field: at.String(), Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

func (j *judge) value(n *node, v any, at *place) {
	for i := range n.bounds {
		j.hold(&n.bounds[i], v, at)
	}
	switch v := v.(type) {
	case []any:
		if n.each != nil {
			for i, sub := range v {
				j.value(n.each, sub, &place{up: at, index: i})
			}
		}
	case map[string]any:
		if n.each != nil {
			for _, key := range slices.Sorted(maps.Keys(v)) {
				j.value(n.each, v[key], &place{up: at, key: key, index: -1})
			}
		}
		for _, f := range n.fields {
			if field, ok := v[f.name]; ok {
				j.value(f, field, &place{up: at, key: f.name})
			}
		}
	}
}

// hold judges a value by one rule.
func (j *judge) hold(b *bound, v any, at *place) {
	switch v := v.(type) {
	case []any:
		if !j.served {
			j.list(b, v, at)
		}
	case map[string]any:
		if !j.served {
			j.object(b, v, at)
		}
	case string:
		j.text(b, v, at)
	case int64:
		j.number(b, float64(v), at)
	case float64:
		j.number(b, v, at)
	}
}

func (j *judge) list(b *bound, v []any, at *place) {
	switch b.rule {
	case "maxItems", "minItems":
		j.count(b, len(v), at)
	case "set", "map":
		seen := make(map[string]bool, len(v))
		for i, entry := range v {
			key, ok := keyOf(b, entry)
			if ok && seen[key] {
				j.say("DuplicateValue", &place{up: at, index: i}, "", "%q is there already", key)
			}
			seen[key] = ok
		}
	}
}

// keyOf gives what an entry of a list may be told from others by; false where a part of it is left out.
func keyOf(b *bound, entry any) (string, bool) {
	if b.rule == "set" {
		return fmt.Sprint(entry), true
	}
	fields, _ := entry.(map[string]any)
	parts := make([]string, len(b.words))
	for i, name := range b.words {
		if fields[name] == nil {
			return "", false
		}
		parts[i] = fmt.Sprint(fields[name])
	}
	return strings.Join(parts, ", "), true
}

func (j *judge) object(b *bound, v map[string]any, at *place) {
	switch b.rule {
	case "maxProperties", "minProperties":
		j.count(b, len(v), at)
	case "required":
		for _, name := range b.words {
			if v[name] == nil {
				j.say("MissingField", &place{up: at, key: name}, "", "it is needed")
				j.breaches[len(j.breaches)-1].Absent = true
			}
		}
	}
}

func (j *judge) count(b *bound, n int, at *place) {
	switch {
	case strings.HasPrefix(b.rule, "max") && n > b.limit:
		hint := ""
		if b.rule == "maxItems" {
			hint = "divide the object"
		}
		j.say("InvalidValue", at, hint, "there are %d, and at most %d are allowed", n, b.limit)
	case strings.HasPrefix(b.rule, "min") && n == 0 && b.limit > 0:
		j.say("MissingField", at, "", "it may not be empty")
	case strings.HasPrefix(b.rule, "min") && n < b.limit:
		j.say("InvalidValue", at, "", "there are %d, and at least %d are needed", n, b.limit)
	}
}

func (j *judge) text(b *bound, v string, at *place) {
	switch n := utf8.RuneCountInString(v); {
	case b.rule == "enum":
		j.among(b.words, v, at)
	case b.rule == "maxLength" && n > b.limit:
		j.say("InvalidValue", at, "", "it has %d characters, and at most %d are allowed", n, b.limit)
	case b.rule == "minLength" && n < b.limit:
		j.say("MissingField", at, "", "it may not be empty")
	case b.rule == "pattern" && v != "" && !b.pattern.MatchString(v):
		code, want := form(b.pattern.String(), at)
		j.say(code, at, want, "%q is not of the form that is asked for here", v)
	}
}

func (j *judge) number(b *bound, v float64, at *place) {
	switch {
	case b.rule == "minimum" && v < float64(b.limit):
		j.say("InvalidValue", at, "", "%v is less than %d", v, b.limit)
	case b.rule == "maximum" && v > float64(b.limit):
		j.say("InvalidValue", at, "", "%v is more than %d", v, b.limit)
	case b.rule == "enum":
		j.among(b.words, strconv.FormatFloat(v, 'f', -1, 64), at)
	}
}

// among judges a choice.
func (j *judge) among(allowed []string, v string, at *place) {
	switch {
	case slices.Contains(allowed, v):
	case v == "":
		j.say("MissingField", at, "", "it may not be empty: use one of %s", strings.Join(allowed, ", "))
	default:
		j.say("InvalidValue", at, document.DidYouMean(v, allowed), "%q is not one of %s", v, strings.Join(allowed, ", "))
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
func form(pattern string, at *place) (code, want string) {
	f, ok := forms[pattern]
	switch {
	case !ok:
		return "InvalidValue", "the pattern is " + pattern
	case at.key == "hostname":
		return "InvalidHost", f[1]
	}
	return f[0], f[1]
}
