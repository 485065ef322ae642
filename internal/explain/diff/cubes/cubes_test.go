package cubes

import (
	"math/rand/v2"
	"testing"
)

// random makes a space with lists of rules over its conditions, and gives all of its requests.
func random(r *rand.Rand) (s *Space, lists []List, points [][]int) {
	sizes := make([]int, 1+r.IntN(3))
	points = [][]int{nil}
	for i := range sizes {
		sizes[i] = 1 + r.IntN(4)
		var next [][]int
		for _, p := range points {
			for v := range sizes[i] {
				next = append(next, append(p[:len(p):len(p)], v))
			}
		}
		points = next
	}
	var atoms []Atom
	for range 1 + r.IntN(6) {
		slot, mask := r.IntN(len(sizes)), r.IntN(16)
		atoms = append(atoms, Atom{Slot: slot, Holds: NewSet(sizes[slot], func(v int) bool { return mask>>v&1 == 1 })})
	}
	for range 1 + r.IntN(3) {
		var list List
		for range 1 + r.IntN(4) {
			var rule Rule
			for range r.IntN(4) {
				rule = append(rule, Literal{r.IntN(len(atoms)), r.IntN(2) == 0})
			}
			list = append(list, Step{Rule: rule, Partial: r.IntN(4) == 0})
		}
		lists = append(lists, list)
	}
	return New(sizes, atoms), lists, points
}

func (s *Space) holds(r Rule, point []int) bool {
	for _, l := range r {
		if a := s.atoms[l.Atom]; a.Holds.Has(point[a.Slot]) == l.Not {
			return false
		}
	}
	return true
}

func (c Cube) has(point []int) bool {
	for slot, v := range point {
		if !c[slot].Has(v) {
			return false
		}
	}
	return true
}

// result is what a list comes to, by the rules that may be the first to hold.
func (s *Space) result(list List, point []int) (of int) {
	for i, step := range list {
		if s.holds(step.Rule, point) {
			if of |= 1 << i; !step.Partial {
				break
			}
		}
	}
	return of
}

// TestDivide: each request is in one cube, which fulfils what it was made by, and all requests of a cube have the same results.
func TestDivide(t *testing.T) {
	for seed := range uint64(3000) {
		s, lists, points := random(rand.New(rand.NewPCG(seed, 1)))
		in := make([]int, len(points))
		done := s.Divide(lists, func(c Cube, why Rule) bool {
			var first []int
			for i, p := range points {
				if !c.has(p) {
					continue
				}
				in[i]++
				if !s.holds(why, p) {
					t.Fatalf("seed %d: request %v is in a cube by %v", seed, p, why)
				}
				if first == nil {
					first = p
				}
				for _, l := range lists {
					if s.result(l, p) != s.result(l, first) {
						t.Fatalf("seed %d: requests %v and %v are in one cube", seed, first, p)
					}
				}
			}
			return true
		})
		for i, n := range in {
			if n != 1 {
				t.Fatalf("seed %d: request %v is in %d cubes", seed, points[i], n)
			}
		}
		if !done {
			t.Fatalf("seed %d: it says that it was stopped", seed)
		}
	}
	s, lists, _ := random(rand.New(rand.NewPCG(7, 1)))
	if s.Divide(lists, func(Cube, Rule) bool { return false }) {
		t.Error("a visit stopped it, which it does not say")
	}
}

// TestDescribe: descriptions of a result hold for its requests, all of them, and for no others, unless one says that it does.
func TestDescribe(t *testing.T) {
	exact := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, lists, points := random(r)
		var regions []Region
		results := map[int]int{} // of a request's outcome, by what the first list comes to
		var rules []Rule
		for _, step := range lists[0] {
			rules = append(rules, step.Rule)
		}
		s.Divide(lists[:1], func(c Cube, why Rule) bool {
			for _, p := range points {
				if c.has(p) {
					of := s.result(lists[0], p)
					if _, ok := results[of]; !ok {
						results[of] = r.IntN(3)
					}
					regions = append(regions, Region{Cube: c, Why: why, Result: results[of]})
					break
				}
			}
			return true
		})
		d := NewDescriber(s, regions, rules, 1<<20)
		for want := 1; want <= 2; want++ {
			for _, of := range d.Describe(want, false) {
				if of.Rest {
					t.Fatalf("seed %d: a rest that is not wanted", seed)
				}
			}
			list := d.Describe(want, false)
			for _, p := range points {
				told := false
				for _, of := range list {
					held := s.holds(of.Rule, p)
					for _, e := range of.Except {
						held = held && !s.holds(e, p)
					}
					told = told || held
					if held && !of.Loose && results[s.result(lists[0], p)] != want {
						t.Fatalf("seed %d: %+v holds for %v, whose result is another", seed, of, p)
					}
				}
				if !told && results[s.result(lists[0], p)] == want {
					t.Fatalf("seed %d: no description holds for %v: %+v", seed, p, list)
				}
			}
			for _, of := range list {
				if !of.Loose {
					exact++
				}
			}
		}
	}
	if exact == 0 {
		t.Error("no description is exact")
	}
}
