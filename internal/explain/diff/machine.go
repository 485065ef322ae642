package diff

import (
	"cmp"
	"encoding/binary"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// machine runs an expression over a text, rune by rune. Its states are the sets of places in the program where it may be; they are
// made when they are first met.
type machine struct {
	prog   *syntax.Prog
	beside bool // whether it asks for more of what is beside a rune than the ends of the text
	states []*state
	ids    map[string]int
	next   map[step]int
}

// state is a set of places before a rune is read.
type state struct {
	places []uint32
	before rune // stands for the last rune; -1 at the beginning
	accept bool // whether the text may end here
}

type step struct {
	state int
	rune  rune
}

// maxProgram bounds the expressions that are run so, in instructions.
const maxProgram = 5_000

// newMachine is nil for what is no expression, or too large.
func newMachine(expression string) *machine {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		return nil
	}
	m := &machine{prog: prog, ids: map[string]int{}, next: map[step]int{}}
	for i := range prog.Inst {
		in := &prog.Inst[i]
		m.beside = m.beside || in.Op == syntax.InstEmptyWidth && syntax.EmptyOp(in.Arg)&^(syntax.EmptyBeginText|syntax.EmptyEndText) != 0
	}
	m.state([]uint32{uint32(prog.Start)}, -1)
	return m
}

// state gives the number of a state.
func (m *machine) state(places []uint32, before rune) int {
	slices.Sort(places)
	places = slices.Compact(places)
	key := binary.AppendVarint(nil, int64(before))
	for _, p := range places {
		key = binary.AppendUvarint(key, uint64(p))
	}
	id, known := m.ids[string(key)]
	if !known {
		id = len(m.states)
		m.ids[string(key)] = id
		s := &state{places: places, before: before}
		m.states = append(m.states, s)
		m.follow(s, -1, func(in *syntax.Inst) { s.accept = s.accept || in.Op == syntax.InstMatch })
	}
	return id
}

// follow visits the instructions that a state leads to without reading, where the rune after it comes next (-1 at the end).
func (m *machine) follow(s *state, after rune, visit func(*syntax.Inst)) {
	holds := syntax.EmptyOpContext(s.before, after)
	todo, seen := slices.Clone(s.places), map[uint32]bool{}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		switch in := &m.prog.Inst[p]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			todo = append(todo, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^holds == 0 {
				todo = append(todo, in.Out)
			}
		default:
			visit(in)
		}
	}
}

// read gives the state after a rune.
func (m *machine) read(id int, r rune) int {
	if to, known := m.next[step{id, r}]; known {
		return to
	}
	var places []uint32
	m.follow(m.states[id], r, func(in *syntax.Inst) {
		if in.Op != syntax.InstMatch && in.Op != syntax.InstFail && in.MatchRune(r) {
			places = append(places, in.Out)
		}
	})
	before := 'x'
	if m.beside && !syntax.IsWordChar(r) {
		if before = ' '; r == '\n' {
			before = r
		}
	}
	to := m.state(places, before)
	m.next[step{id, r}] = to
	return to
}

// cuts are where runes begin that the program tells apart from those before them.
func (m *machine) cuts(into map[rune]bool) {
	span := func(low, high rune) { into[low], into[high+1] = true, true }
	if m.beside {
		span('0', '9')
		span('A', 'Z')
		span('_', '_')
		span('a', 'z')
		span('\n', '\n')
	}
	for i := range m.prog.Inst {
		switch in := &m.prog.Inst[i]; in.Op {
		case syntax.InstRune, syntax.InstRune1:
			if len(in.Rune) == 1 {
				span(in.Rune[0], in.Rune[0])
				for r := unicode.SimpleFold(in.Rune[0]); syntax.Flags(in.Arg)&syntax.FoldCase != 0 && r != in.Rune[0]; r = unicode.SimpleFold(r) {
					span(r, r)
				}
			}
			for j := 0; j+1 < len(in.Rune); j += 2 {
				span(in.Rune[j], in.Rune[j+1])
			}
		case syntax.InstRuneAnyNotNL:
			span('\n', '\n')
		}
	}
}

// alphabet has one rune for all that the machines do not tell apart: one that people read easily, where there is one.
func alphabet(all []term) (out []rune) {
	cuts := map[rune]bool{0: true}
	for _, t := range all {
		t.machine.cuts(cuts)
	}
	list := sortedRunes(cuts)
	for i, low := range list {
		high := rune(unicode.MaxRune)
		if i+1 < len(list) {
			high = list[i+1] - 1
		}
		if low > high {
			continue
		}
		r := low
		for _, want := range "x1aA-" {
			if low <= want && want <= high {
				r = want
				break
			}
		}
		if visible := max(low, '!'); r == low && low <= visible && visible <= min(high, '~') {
			r = visible
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b rune) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

func sortedRunes(set map[rune]bool) (out []rune) {
	for r := range set {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// rank orders runes by how plain they are.
func rank(r rune) int {
	switch {
	case r >= 'a' && r <= 'z':
		return 0
	case r >= '0' && r <= '9':
		return 1
	case r >= 'A' && r <= 'Z':
		return 2
	case r > ' ' && r <= '~':
		return 3
	}
	return 4
}

// term is an expression that a text fulfils, or not.
type term struct {
	machine *machine
	not     bool
}

// finder looks for texts that fulfil several expressions at once.
type finder struct {
	machines map[string]*machine
	texts    map[string]found
	left     int // of maxVisits
}

type found struct{ text, outcome string }

// The outcomes of a search.
const (
	have  = "have"
	none  = "none" // there is no such text
	gave  = "gave up"
	limit = 4_000 // states of one search
)

// maxVisits bounds what all searches of a comparison take together, in states: seconds.
const maxVisits = 400_000

func newFinder() *finder {
	return &finder{machines: map[string]*machine{}, texts: map[string]found{}, left: maxVisits}
}

func (f *finder) machine(expression string) *machine {
	m, known := f.machines[expression]
	if !known {
		m = newMachine(expression)
		f.machines[expression] = m
	}
	return m
}

// text looks for the shortest text that fulfils the expressions that are given, and none of those in not.
func (f *finder) text(fulfil, not []string) (string, string) {
	key := strings.Join(fulfil, "\x00") + "\x01" + strings.Join(not, "\x00")
	if got, known := f.texts[key]; known {
		return got.text, got.outcome
	}
	var all []term
	for i, e := range append(slices.Clip(fulfil), not...) {
		m := f.machine(e)
		if m == nil {
			return "", gave
		}
		all = append(all, term{m, i >= len(fulfil)})
	}
	text, outcome := f.search(all)
	f.texts[key] = found{text, outcome}
	return text, outcome
}

// visit is a place of a search, with the way to it.
type visit struct {
	at   []int // the state of each machine
	from int
	rune rune
}

func (f *finder) search(all []term) (string, string) {
	letters := alphabet(all)
	todo := []visit{{at: make([]int, len(all)), from: -1}}
	seen := map[string]bool{keyOf(todo[0].at): true}
	for i := 0; i < len(todo); i++ {
		if accepts(all, todo[i].at) {
			return spelled(todo, i), have
		}
		if f.left--; f.left < 0 || i >= limit {
			return "", gave
		}
		for _, r := range letters {
			at, alive := make([]int, len(all)), true
			for j, t := range all {
				at[j] = t.machine.read(todo[i].at[j], r)
				alive = alive && (t.not || len(t.machine.states[at[j]].places) > 0)
			}
			if key := keyOf(at); alive && !seen[key] {
				seen[key] = true
				todo = append(todo, visit{at, i, r})
			}
		}
	}
	return "", none
}

func keyOf(at []int) string {
	var b []byte
	for _, n := range at {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return string(b)
}

func accepts(all []term, at []int) bool {
	for j, t := range all {
		if t.machine.states[at[j]].accept == t.not {
			return false
		}
	}
	return true
}

// spelled is the text on the way to a visit.
func spelled(all []visit, i int) string {
	var runes []rune
	for ; all[i].from >= 0; i = all[i].from {
		runes = append(runes, all[i].rune)
	}
	slices.Reverse(runes)
	return string(runes)
}

// equal reports whether it is certain that two expressions match the same texts.
func (f *finder) equal(a, b string) bool {
	_, one := f.text([]string{a}, []string{b})
	_, two := f.text([]string{b}, []string{a})
	return one == none && two == none
}

// expression is what a condition on a string is as one, anchored at both ends; "" where any value will do.
func expression(m *conf.StringMatch) string {
	s := regexp.QuoteMeta(m.Value)
	switch m.Kind {
	case conf.Any:
		return ""
	case conf.Regex:
		return m.Regexp.String()
	case conf.PrefixOf:
		s += "(?s:.*)"
	case conf.Suffix:
		s = "(?s:.*)" + s
	case conf.Contains:
		s = "(?s:.*)" + s + "(?s:.*)"
	}
	if m.IgnoreCase {
		s = "(?i:" + s + ")"
	}
	return "^(?:" + s + ")$"
}

// written are the values that a slot of a request may have, as far as it takes to find one.
func written(slot string) string {
	switch {
	case slot == pathSlot:
		return `^/[-!$&-.0-;=@-Z_a-z~/]*$`
	case slot == ":method":
		return `^[A-Za-z][A-Za-z-]*$`
	case slot == ":authority":
		return `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?$`
	case strings.HasPrefix(slot, querySlot):
		return `^[ -~]*$`
	}
	return `^[!-~]([ -~]*[!-~])?$`
}
