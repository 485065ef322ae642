// Package words finds texts that fulfil several regular expressions at once, and none of others.
package words

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
)

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

// Finder looks for texts that fulfil several expressions at once.
type Finder struct {
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

// NewFinder makes one that has looked for nothing yet.
func NewFinder() *Finder {
	return &Finder{machines: map[string]*machine{}, texts: map[string]found{}, left: maxVisits}
}

func (f *Finder) machine(expression string) *machine {
	m, known := f.machines[expression]
	if !known {
		m = newMachine(expression)
		f.machines[expression] = m
	}
	return m
}

// Text looks for the shortest text that fulfils the expressions that are given, and none of those in not; false where none was found.
func (f *Finder) Text(fulfil, not []string) (string, bool) {
	text, outcome := f.find(fulfil, not)
	return text, outcome == have
}

// find is Text that says why there is none.
func (f *Finder) find(fulfil, not []string) (string, string) {
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

func (f *Finder) search(all []term) (string, string) {
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

// Equal reports whether it is certain that two expressions match the same texts.
func (f *Finder) Equal(a, b string) bool {
	_, one := f.find([]string{a}, []string{b})
	_, two := f.find([]string{b}, []string{a})
	return one == none && two == none
}

// Find is Text that says besides whether it is certain that there is none.
func (f *Finder) Find(fulfil, not []string) (text string, found, certain bool) {
	text, outcome := f.find(fulfil, not)
	return text, outcome == have, outcome != gave
}
