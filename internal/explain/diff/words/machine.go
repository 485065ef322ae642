package words

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode"
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
