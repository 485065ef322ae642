package matching

import (
	"iter"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Looser collects conditions on methods, headers and the like that take more than one value, to find matches that ask for less than
// another. The zero value has none.
type Looser struct {
	of map[condition][]model.StringMatch
}

// condition is what one is about.
type condition struct {
	what byte // 'm'ethod, 'a'uthority, 's'cheme, 'h'eader, 'q'uery parameter
	name string
}

const (
	maxLooser   = 16 // conditions on one header
	maxVariants = 64 // of one match
)

// Add takes the conditions of a match.
func (l *Looser) Add(m *model.HTTPMatch) {
	for about, c := range conditionsIn(m) {
		list := l.of[about]
		if c.Prefix == "" && !c.Present || len(list) == maxLooser || slices.Contains(list, *c) {
			continue
		}
		if l.of == nil {
			l.of = map[condition][]model.StringMatch{}
		}
		l.of[about] = append(list, *c)
	}
}

// Variants gives a match, and those that ask for less than it by having conditions that were added in place of its own.
func (l *Looser) Variants(m *model.HTTPMatch) []*model.HTTPMatch {
	list := []*model.HTTPMatch{m}
	if len(l.of) == 0 {
		return list
	}
	nth := 0
	for about, c := range conditionsIn(m) {
		own, others := nth, list[:len(list):len(list)]
		nth++
		for _, wider := range l.of[about] {
			if wider == *c || !covers(wider, *c) {
				continue
			}
			for _, v := range others {
				if len(list) == maxVariants {
					return list
				}
				list = append(list, replaced(v, own, wider))
			}
		}
	}
	return list
}

// replaced gives a copy of a match with another condition in one place.
func replaced(m *model.HTTPMatch, place int, c model.StringMatch) *model.HTTPMatch {
	v := *m
	v.Headers, v.Query = slices.Clone(m.Headers), slices.Clone(m.Query)
	nth := 0
	for _, own := range conditionsIn(&v) {
		if nth == place {
			*own = c
		}
		nth++
	}
	return &v
}

// covers reports whether a condition holds wherever another does.
func covers(c, other model.StringMatch) bool {
	if c.Present {
		return !other.IsZero()
	}
	return c.Prefix != "" && (strings.HasPrefix(other.Exact, c.Prefix) || strings.HasPrefix(other.Prefix, c.Prefix))
}

// conditionsIn gives the conditions of a match that may be wider or narrower than others, in an order that is always the same.
func conditionsIn(m *model.HTTPMatch) iter.Seq2[condition, *model.StringMatch] {
	return func(yield func(condition, *model.StringMatch) bool) {
		if !yield(condition{what: 'm'}, &m.Method) || !yield(condition{what: 'a'}, &m.Authority) || !yield(condition{what: 's'}, &m.Scheme) {
			return
		}
		for i := range m.Headers {
			if !yield(condition{'h', strings.ToLower(m.Headers[i].Name)}, &m.Headers[i].Match) {
				return
			}
		}
		for i := range m.Query {
			if !yield(condition{'q', m.Query[i].Name}, &m.Query[i].Match) {
				return
			}
		}
	}
}
