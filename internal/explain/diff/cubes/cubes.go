// Package cubes divides requests by what rules ask of them, and describes sets of them by few conditions. It knows a request as one value
// for each of several slots (its path, its method, a field), of which there are finitely many: one for all those that no condition
// tells apart. A cube is a set of values for each slot, and all requests that have one of each.
package cubes

import "math/bits"

// Set is a set of a slot's values, by number; nil stands for all of them.
type Set []uint64

// NewSet makes one of those of n values that a test holds for.
func NewSet(n int, holds func(int) bool) Set {
	s := make(Set, (n+63)/64)
	for i := range n {
		if holds(i) {
			s[i/64] |= 1 << (i % 64)
		}
	}
	return s
}

// Has reports whether a value is one of the set.
func (s Set) Has(i int) bool { return s == nil || s[i/64]>>(i%64)&1 == 1 }

// First is the first value of a set that has one.
func (s Set) First() int {
	for i, w := range s {
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w)
		}
	}
	return 0
}

func (s Set) meets(o Set) bool {
	if s == nil || o == nil {
		return true // no set is empty
	}
	for i, w := range s {
		if w&o[i] != 0 {
			return true
		}
	}
	return false
}

func (s Set) within(o Set) bool {
	if s == nil || o == nil {
		return o == nil
	}
	for i, w := range s {
		if w&^o[i] != 0 {
			return false
		}
	}
	return true
}

func (s Set) and(o Set) Set {
	if s == nil {
		return o
	}
	if o == nil {
		return s
	}
	out := make(Set, len(s))
	for i, w := range s {
		out[i] = w & o[i]
	}
	return out
}

// Atom is a condition on a slot, which holds for some of its values and not for others.
type Atom struct {
	Slot       int
	Holds, not Set
}

// Literal is a condition or its opposite.
type Literal struct {
	Atom int
	Not  bool
}

// Rule is a list of conditions that all hold.
type Rule []Literal

// Space is what requests are told apart by.
type Space struct {
	sizes []int // of the slots, in values
	atoms []Atom
}

// New takes the number of values of each slot, and the conditions.
func New(sizes []int, atoms []Atom) *Space {
	for i := range atoms {
		holds := atoms[i].Holds
		atoms[i].not = NewSet(sizes[atoms[i].Slot], func(v int) bool { return !holds.Has(v) })
	}
	return &Space{sizes, atoms}
}

func (s *Space) set(l Literal) Set {
	if l.Not {
		return s.atoms[l.Atom].not
	}
	return s.atoms[l.Atom].Holds
}

// Cube has a set for each slot.
type Cube []Set

// Point is the cube of a single request.
func (s *Space) Point(values []int) Cube {
	c := make(Cube, len(s.sizes))
	for slot, v := range values {
		c[slot] = NewSet(s.sizes[slot], func(i int) bool { return i == v })
	}
	return c
}

// cube is what fulfils a rule; false where nothing does.
func (s *Space) cube(r Rule) (Cube, bool) { return s.narrow(make(Cube, len(s.sizes)), r) }

// narrow is the part of a cube that fulfils a rule.
func (s *Space) narrow(c Cube, r Rule) (Cube, bool) {
	c = append(Cube(nil), c...)
	for _, l := range r {
		slot := s.atoms[l.Atom].Slot
		if !c[slot].meets(s.set(l)) || !some(s.set(l)) {
			return nil, false
		}
		c[slot] = c[slot].and(s.set(l))
	}
	return c, true
}

func some(s Set) bool {
	for _, w := range s {
		if w != 0 {
			return true
		}
	}
	return s == nil
}

func (c Cube) meets(o Cube) bool {
	for i := range c {
		if !c[i].meets(o[i]) {
			return false
		}
	}
	return true
}

func (c Cube) within(o Cube) bool {
	for i := range c {
		if !c[i].within(o[i]) {
			return false
		}
	}
	return true
}

func (c Cube) and(o Cube) Cube {
	out := make(Cube, len(c))
	for i := range c {
		out[i] = c[i].and(o[i])
	}
	return out
}

// state says what a condition is for the requests of a cube.
type state int

const (
	open state = iota // true of some and false of others
	never
	always
)

func (s *Space) state(c Cube, l Literal) state {
	have, want := c[s.atoms[l.Atom].Slot], s.set(l)
	switch {
	case !some(want) || !have.meets(want):
		return never
	case have == nil && !some(s.set(Literal{l.Atom, !l.Not})) || have != nil && have.within(want):
		return always
	}
	return open
}

// Step is a rule of a list. One that is Partial may not hold although its conditions do.
type Step struct {
	Rule    Rule
	Partial bool
}

// List is a list of rules of which the first that holds is all that counts.
type List []Step

// Divide splits all requests into cubes for each of which every list comes to one result, whatever that is, and visits each with the
// conditions that it was made by. It stops where a visit returns false, and reports whether it did not.
func (s *Space) Divide(lists []List, visit func(Cube, Rule) bool) bool {
	return s.divide(make(Cube, len(s.sizes)), nil, lists, visit)
}

func (s *Space) divide(c Cube, why Rule, lists []List, visit func(Cube, Rule) bool) bool {
	for {
		if lists = s.undecided(c, lists); len(lists) == 0 {
			return visit(c, why)
		}
		l := s.pending(c, lists[0])
		opposite := Literal{l.Atom, !l.Not}
		with, _ := s.narrow(c, Rule{l})
		if !s.divide(with, append(why[:len(why):len(why)], l), lists, visit) {
			return false
		}
		c, _ = s.narrow(c, Rule{opposite})
		why = append(why[:len(why):len(why)], opposite)
	}
}

// undecided leaves out the lists whose result is known, and of the others what does not matter.
func (s *Space) undecided(c Cube, lists []List) (out []List) {
	for _, list := range lists {
		var rest List
		pending := false
	steps:
		for _, step := range list {
			held := always
			for _, l := range step.Rule {
				switch s.state(c, l) {
				case never:
					continue steps
				case open:
					held = open
				}
			}
			if held == open {
				pending = true
				rest = append(rest, step)
			} else if !step.Partial {
				break // what follows does not matter
			}
		}
		if pending {
			out = append(out, rest)
		}
	}
	return out
}

// pending is a condition of the first rule of a list that is open.
func (s *Space) pending(c Cube, list List) Literal {
	for _, l := range list[0].Rule {
		if s.state(c, l) == open {
			return l
		}
	}
	panic("cubes: nothing is open")
}
