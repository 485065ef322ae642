package cubes

import (
	"math"
	"slices"
)

// The bounds of what is looked for in one description.
const (
	maxBases  = 40
	maxWithin = 40  // rules that an exception may be, of each kind
	maxExcept = 200 // exceptions
	few       = 6   // exceptions beyond which others are referred to
	loose     = 100 // what it costs to hold for something else
)

// Region is a cube whose requests all have the same result, by number; 0 is the one that is not told. Why are the conditions that it
// was made by.
type Region struct {
	Cube   Cube
	Why    Rule
	Result int
}

// Description is what a rule and none of its exceptions holds for. Where it is the Rest, requests that other descriptions hold for are
// left out besides. It is exact unless Loose: then it holds for requests with other results as well.
type Description struct {
	Rule   Rule
	Except []Rule
	Rest   bool
	Loose  bool
}

// Describer describes the results of regions by the conditions of rules.
type Describer struct {
	space   *Space
	regions []Region
	rules   []Rule
	cubes   []Cube // of the rules
	steps   int    // left, in comparisons of cubes
}

// NewDescriber takes regions that do not overlap, rules in the order in which they are preferred, and how many comparisons of cubes
// may be made, beyond which descriptions are the next best.
func NewDescriber(s *Space, regions []Region, rules []Rule, steps int) *Describer {
	d := &Describer{space: s, regions: regions, steps: steps}
	for _, r := range rules {
		if c, ok := s.cube(r); ok {
			d.rules, d.cubes = append(d.rules, r), append(d.cubes, c)
		}
	}
	return d
}

// Describe gives descriptions that together hold for all requests with a result. One of them may be the rest, if that is wanted.
func (d *Describer) Describe(result int, rest bool) (out []Description) {
	var mine, others []*Region
	for i := range d.regions {
		if r := &d.regions[i]; r.Result == result {
			mine = append(mine, r)
		} else if r.Result >= 0 {
			others = append(others, r)
		}
	}
	a := &attempt{Describer: d, mine: mine, others: others}
	left := slices.Clone(mine)
	for len(left) > 0 {
		seed, best := left[0], a.best(left, rest)
		rest = rest && !best.Rest
		out = append(out, best.Description)
		left = slices.DeleteFunc(left, func(r *Region) bool { return r == seed || r.Cube.within(best.cube) })
	}
	return out
}

// Left is how many comparisons are left.
func (d *Describer) Left() int { return d.steps }

// attempt is the search for the descriptions of a result.
type attempt struct {
	*Describer
	mine, others []*Region
}

type scored struct {
	Description
	cube Cube
	cost float64 // what is to be read, for each region that it holds for
}

// part is what a region and a cube have in common, with the region's conditions.
type part struct {
	Cube
	why Rule
}

// best is the description of the first region that is left, and of others of them, of which there is least to read.
func (a *attempt) best(left []*Region, rest bool) scored {
	var best *scored
	for _, base := range a.bases(left[0]) {
		cube, _ := a.space.cube(base)
		n := 0
		for _, r := range left {
			if r.Cube.within(cube) {
				n++
			}
		}
		a.steps -= len(left)
		limit := math.Inf(1)
		if best != nil {
			limit = best.cost * float64(n)
		}
		d, cost, ok := a.describe(base, cube, rest, limit)
		if cost /= float64(n); ok && (best == nil || cost < best.cost) {
			best = &scored{d, cube, cost}
		}
	}
	return *best
}

// bases are rules that hold for all of a region: none, those that were given, its own conditions as far as they are needed, and what two
// of them ask for together.
func (a *attempt) bases(r *Region) []Rule {
	out := []Rule{nil}
	for i := range a.rules {
		if r.Cube.within(a.cubes[i]) {
			if out = append(out, a.rules[i]); len(out) == maxWithin {
				break
			}
		}
	}
	a.steps -= len(a.rules)
	given := out[1:]
	out = append(out, a.needed(r.Why, func(c Cube) bool {
		a.steps -= len(a.others)
		return !slices.ContainsFunc(a.others, func(o *Region) bool { return o.Cube.meets(c) })
	}))
	for i := range given {
		for j := i + 1; j < len(given) && len(out) < maxBases; j++ {
			out = append(out, union(given[i], given[j]))
		}
	}
	return out
}

// needed drops conditions of a rule as long as what is left is good; those that are opposites first.
func (a *attempt) needed(r Rule, good func(Cube) bool) Rule {
	for _, not := range []bool{true, false} {
		for i := len(r) - 1; i >= 0 && a.steps > 0; i-- {
			if r[i].Not != not {
				continue
			}
			shorter := slices.Delete(slices.Clone(r), i, i+1)
			if c, ok := a.space.cube(shorter); ok && good(c) {
				r = shorter
			}
		}
	}
	return r
}

func union(a, b Rule) Rule {
	out := slices.Clone(a)
	for _, l := range b {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// describe finds what a rule, with the cube that it holds for, has to leave out. It gives up where there is more to read than the limit.
func (a *attempt) describe(base Rule, cube Cube, rest bool, limit float64) (Description, float64, bool) {
	alike, told, keep := a.parts(a.others, cube, 0), a.parts(a.others, cube, 1), a.parts(a.mine, cube, -1)
	cost := max(0.5, float64(len(base)))
	if rest = rest && len(base) == 0 && len(told) > 0; rest && len(alike) == 0 {
		return Description{Rest: true}, 1.5, true
	}
	d := Description{Rule: base}
	more, ok := a.leave(&d, cube, append(slices.Clip(alike), told...), keep, limit-cost)
	if rest && (!ok || d.Loose || len(d.Except) > few) {
		shorter := Description{Rest: true}
		if less, fine := a.leave(&shorter, cube, alike, keep, limit-cost); fine && !shorter.Loose {
			d, more, ok = shorter, less, true
		}
	}
	return d, cost + more, ok
}

// parts are those of regions within a cube: of the ones that are told or not, or of all.
func (a *attempt) parts(list []*Region, cube Cube, told int) (out []part) {
	a.steps -= len(list)
	for _, r := range list {
		if (told < 0 || (r.Result != 0) == (told == 1)) && r.Cube.meets(cube) {
			out = append(out, part{r.Cube.and(cube), r.Why})
		}
	}
	return out
}

// leave finds exceptions that hold for all of some parts of a description's cube and for nothing of others, and says how much there is to
// read of them.
func (a *attempt) leave(d *Description, cube Cube, out []part, keep []part, limit float64) (cost float64, ok bool) {
	var cubes []Cube
	for todo := out; len(todo) > 0; {
		if len(d.Except) == maxExcept || a.steps < 0 {
			d.Loose = true
			return cost + loose, true
		}
		e, c, ok := a.exception(cube, todo, keep)
		if !ok {
			d.Loose, cost, todo = true, cost+loose, todo[1:]
			continue
		}
		d.Except, cubes = append(d.Except, e), append(cubes, c)
		if cost += weight(e); cost > limit {
			return 0, false
		}
		a.steps -= len(todo)
		todo = slices.DeleteFunc(slices.Clone(todo), func(p part) bool { return p.within(c) })
	}
	for i := len(cubes) - 1; i >= 0 && !d.Loose; i-- { // those that came later may hold for all that an earlier one is about
		others := slices.Delete(slices.Clone(cubes), i, i+1)
		a.steps -= len(out)
		if a.steps > 0 && !slices.ContainsFunc(out, func(p part) bool { return !slices.ContainsFunc(others, p.within) }) {
			cost -= weight(d.Except[i])
			d.Except, cubes = slices.Delete(d.Except, i, i+1), others
		}
	}
	return cost, true
}

// weight says how much there is to read of an exception: opposites of opposites are hard.
func weight(r Rule) float64 {
	w := float64(len(r))
	if len(r) > 1 {
		w++
		for _, l := range r {
			if l.Not {
				w += 2
			}
		}
	}
	return w
}

// exception finds a rule that holds for all of the first part that is to be left out, and for nothing that is to be kept: the one with
// the least to read for what it holds for.
func (a *attempt) exception(cube Cube, todo, keep []part) (best Rule, at Cube, found bool) {
	good := func(c Cube) bool {
		a.steps -= len(keep)
		return !slices.ContainsFunc(keep, func(p part) bool { return p.meets(c) })
	}
	score := 0.0
	try := func(r Rule) {
		c, ok := a.space.cube(r)
		if !ok || !good(c) {
			return
		}
		r = a.needed(r, good)
		c, _ = a.space.cube(r)
		n := 0
		for _, p := range todo {
			if p.within(c) {
				n++
			}
		}
		a.steps -= len(todo)
		if s := float64(n) / weight(r); s > score {
			best, at, found, score = r, c, true, s
		}
	}
	looked := 0
	for i := range a.rules {
		if todo[0].Cube.within(a.cubes[i]) {
			if try(a.rules[i]); looked == maxWithin {
				break
			}
			looked++
		}
	}
	a.steps -= len(a.rules)
	try(todo[0].why)
	return best, at, found
}

// Short leaves out conditions of a rule that its others imply.
func (s *Space) Short(r Rule) Rule {
	for i := 0; i < len(r); {
		rest := slices.Delete(slices.Clone(r), i, i+1)
		if c, ok := s.cube(rest); ok && s.state(c, r[i]) == always {
			r = rest
			continue
		}
		i++
	}
	return r
}
