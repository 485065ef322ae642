package matching

import (
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Key is equal for matches that the same requests fulfil, whatever they are called and in whatever order they are written. That of a match
// without conditions is the zero value.
type Key struct {
	Path  Path
	Other Conditions
}

// KeyOf gives a match's.
func KeyOf(m *model.HTTPMatch) Key { return Key{PathOf(m.Path), ConditionsOf(m)} }

// takes reports whether every request that fulfils another key's match fulfils this one's, as Index.Wider has it.
func (k Key) takes(other Key) bool { return k.Path.takes(other.Path) && k.Other.among(other.Other) }

// Path is a condition on paths that can be looked up. The zero value takes every path.
type Path struct {
	form pathForm
	fold bool // ignores case: the text is in lower case
	text string
}

type pathForm uint8

const (
	prefixPath  pathForm = iota
	segmentPath          // a prefix at a segment's end
	exactPath
	regexPath
)

// PathOf gives a condition on paths. Expressions are told apart by their text, save those that take everything.
func PathOf(m model.StringMatch) Path {
	p := Path{form: prefixPath, text: m.Prefix}
	switch {
	case m.IsExact || m.Exact != "":
		p = Path{form: exactPath, text: m.Exact}
	case m.Regex != "":
		p = Path{form: regexPath, text: m.Regex}
	case m.SegmentPrefix:
		p.form = segmentPath
	}
	if p.form == regexPath && (p.text == ".*" || p.text == "/.*") || p.form <= segmentPath && (p.text == "/" || p.text == "") {
		return Path{}
	}
	if p.fold = m.IgnoreCase; p.fold && p.form != regexPath {
		p.text = strings.ToLower(p.text)
	}
	return p
}

// maxCompared bounds the prefixes of one path that are looked up.
const maxCompared = 512

// wider gives the conditions that take all paths that this one takes: itself, the one that takes every path, and prefixes.
func (p Path) wider() iter.Seq[Path] {
	return func(yield func(Path) bool) {
		if !yield(p) || p == (Path{}) || !yield(Path{}) || p.form == regexPath {
			return
		}
		for n := 1; n <= min(len(p.text), maxCompared); n++ {
			if w := (Path{form: prefixPath, fold: p.fold, text: p.text[:n]}); w != p && !yield(w) {
				return
			}
		}
	}
}

// takes reports whether a condition takes all paths that another does, as wider has it.
func (p Path) takes(other Path) bool {
	return p == (Path{}) || p == other ||
		p.form == prefixPath && other.form != regexPath && p.fold == other.fold && strings.HasPrefix(other.text, p.text)
}

// Conditions are those of a match besides its path: a digest of each, in order.
type Conditions string

const (
	digestSize = 16
	// maxFewer bounds the conditions of which all choices are looked up. Of more, it is all or none.
	maxFewer = 3
)

// ConditionsOf gives those of a match. As in Istio, naming gateways makes it say nothing of its clients' labels and namespace.
func ConditionsOf(m *model.HTTPMatch) Conditions {
	var list []string
	for i, c := range []model.StringMatch{m.Scheme, m.Method, m.Authority} {
		if !c.IsZero() {
			list = append(list, digest("pseudo header", i, c))
		}
	}
	for _, h := range m.Headers {
		list = append(list, digest("header", strings.ToLower(h.Name), h.Match))
	}
	for _, h := range m.WithoutHeaders {
		list = append(list, digest("no header", strings.ToLower(h.Name), h.Match))
	}
	for _, q := range m.Query {
		list = append(list, digest("query", q.Name, q.Match))
	}
	if m.Port != 0 {
		list = append(list, digest("port", m.Port))
	}
	if m.Mesh || len(m.Gateways) > 0 {
		list = append(list, digest("gateways", m.Mesh, m.Gateways))
	} else {
		for label, value := range m.SourceLabels {
			list = append(list, digest("label", label, value))
		}
		if m.SourceNamespace != "" {
			list = append(list, digest("namespace", m.SourceNamespace))
		}
	}
	return conditions(list)
}

func conditions(digests []string) Conditions {
	slices.Sort(digests)
	return Conditions(strings.Join(slices.Compact(digests), ""))
}

func digest(parts ...any) string {
	h := fnv.New128a()
	fmt.Fprintf(h, "%#v", parts)
	return string(h.Sum(nil))
}

// fewer gives the choices of conditions, none and all included.
func (c Conditions) fewer() []Conditions {
	n := len(c) / digestSize
	if n == 0 {
		return []Conditions{""}
	}
	if n > maxFewer {
		return []Conditions{"", c}
	}
	choices := make([]Conditions, 1, 1<<n)
	for ; len(c) > 0; c = c[digestSize:] {
		for _, some := range choices {
			choices = append(choices, some+c[:digestSize])
		}
	}
	return choices
}

// among reports whether all conditions are in others.
func (c Conditions) among(others Conditions) bool {
	for ; len(c) > 0 && len(c) <= len(others); others = others[digestSize:] {
		if c[:digestSize] == others[:digestSize] {
			c = c[digestSize:]
		}
	}
	return c == ""
}
