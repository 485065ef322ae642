package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff/cubes"
)

// The bounds of what is described.
const (
	maxRegions    = 4_000       // of one destination that are all tried
	maxComparing  = 200_000_000 // comparisons of them with each other, for all destinations: seconds
	maxExceptions = 12          // that are written of one description
)

// The results of requests that are not told.
const (
	alike   = 0
	untried = -1
)

// How requests without a condition are called where others are told apart from them, and connections.
const (
	otherwise   = "all other requests"
	connections = "connections" // that may be of anything
)

// tries are the requests that are put for a destination, each of which stands for a region.
type tries struct {
	*slots
	asked    *differing
	regions  []cubes.Region
	requests []explain.Request
	change   []int // of a result, the first of which is 1
	whole    bool  // whether the regions are all requests, and nobody tells those of one apart
}

// tries divides requests into regions which neither side tells apart further, if there are not too many. Else there are samples.
func (c *comparison) tries(d *differing, to asked) *tries {
	var rules []rule // of connections none is told apart here
	all := true
	if to.scheme != "tcp" && to.server == "" {
		rules, all = c.chosen(d, to)
	}
	s := slotsOf(rules, to, nil, c.finder)
	t := &tries{slots: s, asked: d, whole: all && s.whole}
	lists := t.lists(d, rules)
	if s.whole && t.divide(lists) && t.affordable(c, len(d.rules)) {
		return t
	}
	sampled := c.candidates(d, rules, to)
	var known []map[string]filled
	for _, cand := range sampled {
		known = append(known, cand.values)
	}
	t.slots, t.whole, t.regions, t.requests = slotsOf(rules, to, known, c.finder), false, nil, nil
	if lists = t.lists(d, rules); t.divide(lists) && t.affordable(c, len(d.rules)) {
		return t
	}
	t.sample(sampled)
	c.note("%s: not all that conditions have in common was tried, so that descriptions may hold for requests that are treated otherwise", to.address())
	return t
}

func (t *tries) affordable(c *comparison, conditions int) bool {
	if n := len(t.regions); n > minTries && n*conditions > c.steps/4 {
		t.regions, t.requests = nil, nil
		return false
	}
	c.steps -= min(c.steps, len(t.regions)*conditions)
	return true
}

// lists are the routes, each list up to the first that is fulfilled, and every other rule by itself.
func (t *tries) lists(d *differing, rules []rule) (out []cubes.List) {
	chosen := described(rules)
	for _, list := range d.routes {
		var l cubes.List
		for _, s := range list {
			if len(s.rule) == 0 || chosen[describe(s.rule)] {
				l = append(l, cubes.Step{Rule: t.literals(s.rule), Partial: s.partial})
			}
		}
		out = append(out, l)
	}
	for _, r := range d.loose {
		if chosen[describe(r)] {
			out = append(out, cubes.List{{Rule: t.literals(r)}})
		}
	}
	return out
}

// divide makes the regions, those that are most usual first; false where there are too many.
func (t *tries) divide(lists []cubes.List) bool {
	type region struct {
		cubes.Region
		request explain.Request
		odd     int
	}
	var all []region
	if !t.space.Divide(lists, func(c cubes.Cube, why cubes.Rule) bool {
		values, odd := t.slots.request(c)
		all = append(all, region{cubes.Region{Cube: c, Why: why}, t.to.request(values), odd})
		return len(all) <= maxRegions
	}) {
		return false
	}
	slices.SortStableFunc(all, func(a, b region) int { return cmp.Compare(a.odd, b.odd) })
	for _, r := range all {
		t.regions, t.requests = append(t.regions, r.Region), append(t.requests, r.request)
	}
	return true
}

// sample takes requests as they are.
func (t *tries) sample(list []candidate) {
	for _, cand := range list {
		at := make([]int, len(t.names))
		for i, name := range t.names {
			v, there := cand.values[name]
			if !there {
				v = t.values[i][0]
			}
			at[i] = t.cell(i, v)
		}
		t.regions = append(t.regions, cubes.Region{Cube: t.space.Point(at), Why: t.literals(cand.rules[0])})
		t.requests = append(t.requests, cand.request)
	}
}

// describe writes into the changes which requests they are about.
func (c *comparison) describe(t *tries, changes []Change) {
	if len(changes) == 0 {
		return
	}
	var rules []cubes.Rule
	for _, r := range t.asked.rules {
		if l := t.literals(r); len(l) == len(r) {
			rules = append(rules, l)
		}
	}
	slices.SortStableFunc(rules, func(a, b cubes.Rule) int { return cmp.Compare(len(a), len(b)) })
	usual := t.usual()
	before := c.comparing / 4
	d := cubes.NewDescriber(t.space, t.regions, rules, before)
	for i, at := range t.change {
		for _, text := range d.Describe(i+1, i+1 == usual) {
			changes[at].Requests = appendNew(changes[at].Requests, t.text(text))
		}
	}
	c.comparing -= before - max(0, d.Left())
}

// usual is the result of requests of which nothing is asked.
func (t *tries) usual() int {
	for i := range t.regions {
		if r := &t.regions[i]; !slices.ContainsFunc(r.Cube, func(s cubes.Set) bool { return !s.Has(0) }) {
			return r.Result
		}
	}
	return untried
}

// text writes a description.
func (t *tries) text(d cubes.Description) string {
	var joint []rule
	r := slices.Clone(d.Rule)
	for _, e := range d.Except[:min(len(d.Except), maxExceptions)] {
		if len(e) == 1 && !d.Rest {
			r = append(r, cubes.Literal{Atom: e[0].Atom, Not: !e[0].Not})
		} else {
			joint = append(joint, t.rule(e))
		}
	}
	text := describe(t.rule(t.space.Short(r)))
	switch {
	case d.Rest:
		text = otherwise
	case len(r) == 0 && t.to.kind != "":
		text = t.to.kind
	case t.to.scheme == "tcp":
		text = connections
	}
	for _, e := range joint {
		one := describe(e)
		if strings.Contains(one, " ") {
			one = "(" + one + ")"
		}
		text += ", and not " + one
	}
	if n := len(d.Except) - maxExceptions; n > 0 {
		text += fmt.Sprintf(", and %d more that are left out", n)
	}
	if d.Loose {
		text += ", and more that is left out"
	}
	return text
}
