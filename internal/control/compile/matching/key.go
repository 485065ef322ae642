package matching

import (
	"fmt"
	"hash/fnv"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Key is equal for matches that the same requests fulfil, whatever they are called and in whatever order they are written.
type Key struct {
	Path       Path
	Conditions string // besides the path, see Conditions
}

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

// Wider gives the conditions that take all paths that this one takes: itself, the one that takes every path, and prefixes.
func (p Path) Wider() iter.Seq[Path] {
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

// takes reports whether a condition takes all paths that another does, as Wider has it.
func (p Path) takes(other Path) bool {
	return p == (Path{}) || p == other ||
		p.form == prefixPath && other.form != regexPath && p.fold == other.fold && strings.HasPrefix(other.text, p.text)
}

// Conditions are those of a match besides its path, in short: those that say at which proxies it holds at all, and all. Both are empty
// where there are none.
func Conditions(m *model.HTTPMatch) (bare, all string) {
	if m.Mesh || len(m.Gateways) > 0 {
		bare = digest("%v %#v", m.Mesh, m.Gateways)
	}
	rest := *m
	rest.Name, rest.Field, rest.StatPrefix, rest.Path, rest.Gateways, rest.Mesh = "", "", "", model.StringMatch{}, nil, false
	if reflect.ValueOf(&rest).Elem().IsZero() {
		return bare, bare
	}
	rest.Headers, rest.WithoutHeaders, rest.Query = byName(m.Headers), byName(m.WithoutHeaders), byName(m.Query)
	return bare, bare + digest("%#v", rest) // maps print sorted
}

func byName(list []model.NamedMatch) []model.NamedMatch {
	return slices.SortedFunc(slices.Values(list), func(a, b model.NamedMatch) int { return strings.Compare(a.Name, b.Name) })
}

func digest(format string, args ...any) string {
	h := fnv.New128a()
	fmt.Fprintf(h, format, args...)
	return string(h.Sum(nil))
}
