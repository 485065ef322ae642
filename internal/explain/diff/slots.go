package diff

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/explain/diff/cubes"
	"github.com/weftmesh/weft/internal/explain/diff/words"
	"github.com/weftmesh/weft/internal/proxy/grpc"
)

// The bounds of how finely values are told apart.
const (
	maxTests  = 40_000_000 // of a value by a condition
	maxWoven  = 24         // conditions of a slot with expressions that are searched through
	maxCells  = 400        // values of such a slot
	maxJoined = 64         // cookies that are tried together
)

// slots are what requests are told apart by: the conditions of rules, and of each slot values for which they hold in all ways in which
// they can. Of values for which the same conditions hold there is one.
type slots struct {
	to     asked
	names  []string // sorted
	number map[string]int
	conds  []condition // none of them an opposite
	byText map[string]int
	values [][]filled // by slot; the first is the usual one
	cells  []map[string]int
	of     [][]int // conditions by slot
	space  *cubes.Space
	whole  bool // whether there is a value for each way
}

// slotsOf finds the slots of rules, with values that are known already.
func slotsOf(rules []rule, to asked, known []map[string]filled, f *words.Finder) *slots {
	s := &slots{to: to, number: map[string]int{}, byText: map[string]int{}, whole: true}
	for _, r := range rules {
		for _, cond := range r {
			if at := s.key(cond); s.byText[at] == 0 {
				if s.conds = append(s.conds, cond.positive()); !slices.Contains(s.names, cond.slot) {
					s.names = append(s.names, cond.slot)
				}
				s.byText[at] = len(s.conds)
			}
		}
	}
	slices.Sort(s.names)
	for i, name := range s.names {
		s.number[name] = i
	}
	s.of, s.values, s.cells = make([][]int, len(s.names)), make([][]filled, len(s.names)), make([]map[string]int, len(s.names))
	for i, cond := range s.conds {
		n := s.number[cond.slot]
		s.of[n] = append(s.of[n], i)
	}
	for i, name := range s.names {
		s.cells[i] = map[string]int{}
		list := to.usual(name, "")
		for _, values := range known {
			if v, there := values[name]; there {
				list = append(list, v)
			}
		}
		s.divide(i, append(list, s.telling(i)...), f)
	}
	s.space = s.cubes()
	return s
}

func (s *slots) key(c condition) string { return c.about() + "\x00" + c.expression }

// positive is a condition that is no opposite.
func (c condition) positive() condition {
	if strings.HasPrefix(c.text, negation) {
		return c.negated()
	}
	return c
}

// literals writes a rule in numbers.
func (s *slots) literals(r rule) (out cubes.Rule) {
	for _, cond := range r {
		if n := s.byText[s.key(cond)]; n > 0 {
			out = append(out, cubes.Literal{Atom: n - 1, Not: strings.HasPrefix(cond.text, negation)})
		}
	}
	return out
}

// rule is one of numbers in words.
func (s *slots) rule(r cubes.Rule) (out rule) {
	for _, l := range r {
		cond := s.conds[l.Atom]
		if l.Not {
			cond = cond.negated()
		}
		out = append(out, cond)
	}
	return out
}

// cell is the number of a value, which is taken if there is none like it.
func (s *slots) cell(slot int, v filled) int {
	holds := make([]byte, len(s.of[slot]))
	for i, cond := range s.of[slot] {
		if s.conds[cond].test(v.value, v.present) {
			holds[i] = 1
		}
	}
	n, known := s.cells[slot][string(holds)]
	if !known {
		n = len(s.values[slot])
		s.cells[slot][string(holds)] = n
		s.values[slot] = append(s.values[slot], v)
	}
	return n
}

// divide takes values that tell the conditions of a slot apart, and searches more where expressions are woven.
func (s *slots) divide(slot int, list []filled, f *words.Finder) {
	seen := map[filled]bool{}
	tests := 0
	for _, v := range list {
		if seen[v] || s.names[slot] == pathSlot && !strings.HasPrefix(v.value, "/") || s.names[slot] == ":scheme" && v.value != s.to.scheme {
			continue
		}
		if seen[v] = true; tests > maxTests {
			s.whole = false
			return
		}
		tests += len(s.of[slot])
		s.cell(slot, v)
	}
	woven := slices.ContainsFunc(s.of[slot], func(i int) bool { return s.conds[i].woven || s.conds[i].pattern })
	switch {
	case !woven || s.names[slot] == ":scheme":
	case len(s.of[slot]) > maxWoven:
		s.whole = false
	default:
		s.weave(slot, f)
	}
}

// weave searches a value for each way in which some of a slot's conditions may hold: it goes through them one after the other, and for
// each way that there is so far looks for a value of either kind.
func (s *slots) weave(slot int, f *words.Finder) {
	type way struct {
		holds []bool
		value filled
	}
	ways := []way{{value: s.values[slot][0]}}
	for _, n := range s.of[slot] {
		cond := s.conds[n]
		var next []way
		for _, w := range ways {
			is := cond.test(w.value.value, w.value.present)
			next = append(next, way{append(slices.Clip(w.holds), is), w.value})
			other := append(slices.Clip(w.holds), !is)
			if v, found := s.like(slot, other); found {
				next = append(next, way{other, v})
			} else if v, found := s.search(slot, other, f); found {
				s.cell(slot, v)
				next = append(next, way{other, v})
			}
		}
		if ways = next; len(ways) > maxCells {
			s.whole = false
			return
		}
	}
}

// like finds a value for which the first conditions hold as they should.
func (s *slots) like(slot int, holds []bool) (filled, bool) {
	for _, v := range s.values[slot] {
		if s.fits(slot, v, holds) {
			return v, true
		}
	}
	return filled{}, false
}

func (s *slots) fits(slot int, v filled, holds []bool) bool {
	for i, want := range holds {
		if s.conds[s.of[slot][i]].test(v.value, v.present) != want {
			return false
		}
	}
	return true
}

// search looks for such a text.
func (s *slots) search(slot int, holds []bool, f *words.Finder) (filled, bool) {
	fulfil, not := []string{written(s.names[slot])}, []string(nil)
	if s.names[slot] == pathSlot {
		not = append(not, unsettled)
	}
	for i, is := range holds {
		cond := &s.conds[s.of[slot][i]]
		switch {
		case cond.expression == "":
		case is != cond.not:
			fulfil = append(fulfil, cond.expression)
		default:
			not = append(not, cond.expression)
		}
	}
	text, found, certain := f.Find(fulfil, not)
	v := filled{text, true}
	if found = found && s.fits(slot, v, holds); !found && !certain {
		s.whole = false
	}
	return v, found
}

// unsettled are paths that are made others before anybody looks at them.
const unsettled = `^(?s:.*/(?:/|\.\.?(?:/.*)?))$`

// cubes gives the conditions as sets of values.
func (s *slots) cubes() *cubes.Space {
	sizes := make([]int, len(s.names))
	for i := range s.names {
		sizes[i] = len(s.values[i])
	}
	atoms := make([]cubes.Atom, len(s.conds))
	for slot, list := range s.of {
		for i, n := range list {
			set := make([]bool, sizes[slot])
			for holds, cell := range s.cells[slot] {
				set[cell] = holds[i] == 1
			}
			atoms[n] = cubes.Atom{Slot: slot, Holds: cubes.NewSet(sizes[slot], func(v int) bool { return set[v] })}
		}
	}
	return cubes.New(sizes, atoms)
}

// request is one of a cube, as usual as it can be, and how much of it is not.
func (s *slots) request(c cubes.Cube) (values map[string]filled, odd int) {
	values = map[string]filled{pathSlot: {"/", true}}
	for i, name := range s.names {
		n := c[i].First()
		if values[name] = s.values[i][n]; n > 0 {
			odd++
		}
	}
	if s.to.scheme != grpcScheme {
		return values, odd
	}
	if _, asked := values[":method"]; !asked {
		values[":method"] = filled{"POST", true}
	}
	if i, asked := s.number[typeSlot]; !asked || values[":method"].value != "POST" && s.may(c, i, filled{}) {
		values[typeSlot] = s.to.usual(typeSlot, values[":method"].value)[0]
	}
	return values, odd
}

// may reports whether a value is one of a cube's.
func (s *slots) may(c cubes.Cube, slot int, v filled) bool {
	i := slices.Index(s.values[slot], v)
	return i >= 0 && c[slot].Has(i)
}

// telling are values by which the conditions of a slot are told apart: those that they name, and what begins like them and goes on
// otherwise.
func (s *slots) telling(slot int) (out []filled) {
	name := s.names[slot]
	var texts []string
	for _, n := range s.of[slot] {
		texts = append(texts, s.conds[n].samples...)
		for _, r := range s.conds[n].near() {
			texts = append(texts, r[0].samples...)
		}
	}
	if name == typeSlot {
		texts = append(texts, grpc.Media, grpc.Media+"+proto")
	}
	if name == "cookie" {
		texts = append(texts, together(texts)...)
	}
	begin := slices.Clone(texts)
	if name != pathSlot && !strings.HasPrefix(name, ":") {
		out = append(out, filled{})
		begin = append(begin, "")
	}
	slices.Sort(begin)
	begin = slices.Compact(begin)
	for _, t := range begin {
		for _, more := range []string{"", "/"}[:map[bool]int{true: 1, false: 2}[strings.HasPrefix(name, ":")]] {
			if next, ok := onward(t+more, begin); ok {
				texts = append(texts, next)
			}
		}
		if folded := [2]string{strings.ToLower(t), strings.ToUpper(t)}; folded != [2]string{t, t} {
			texts = append(texts, folded[0], folded[1])
		}
		if n, err := strconv.ParseInt(t, 10, 64); err == nil {
			texts = append(texts, fmt.Sprint(n-1), fmt.Sprint(n+1))
		}
	}
	for _, t := range texts {
		out = append(out, filled{t, true})
	}
	if name != pathSlot && !strings.HasPrefix(name, ":") {
		out = append(out, filled{"", true})
	}
	return out
}

// onward is a text with one letter more than a beginning, with which none of a sorted list begins, whatever the case.
func onward(begin string, list []string) (string, bool) {
	for _, c := range "x1zqjkvwy023456789-" {
		next := begin + string(c)
		taken := false
		for _, form := range []string{next, begin + strings.ToUpper(string(c))} {
			i, _ := slices.BinarySearchFunc(list, form, cmp.Compare)
			taken = taken || i < len(list) && strings.HasPrefix(list[i], form)
		}
		if !taken {
			return next, true
		}
	}
	return "", false
}

// together joins cookies of different names.
func together(texts []string) (out []string) {
	out = []string{""}
	for _, t := range texts {
		if !cookie.MatchString(t) {
			continue
		}
		for _, have := range out[:min(len(out), maxJoined)] {
			if have != "" {
				out = append(out, have+"; "+t)
			} else {
				out = append(out, t)
			}
		}
	}
	return out[1:]
}

var cookie = regexp.MustCompile(`^[^=; ]+=[^; ]*$`)
