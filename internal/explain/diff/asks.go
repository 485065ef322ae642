package diff

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// asks is what a side tells requests apart by.
type asks struct {
	rules  []rule
	routes [][]step // that take requests in this order
	loose  []rule   // of those that are no routes
	ranges []string // of addresses, which no request can be made for
}

// step is a rule of a list of routes. One that is partial asks for something besides.
type step struct {
	rule    rule
	partial bool
	route   *conf.Route
}

func (a *asks) add(b asks) {
	a.rules, a.routes, a.ranges = append(a.rules, b.rules...), append(a.routes, b.routes...), append(a.ranges, b.ranges...)
	a.loose = append(a.loose, b.loose...)
}

// differing are the asks of both sides, with those that only one of them has.
type differing struct {
	rules  []rule              // each once
	routes [][]step            // of both
	loose  []rule              // each once
	only   map[string]presence // rules of one side, as described
	other  map[string]bool     // rules of both by which they do something else, or in another order
	before []condition         // patterns of that side only
	after  []condition
	ranges []string
}

// presence says which side has a rule; the zero value is both.
type presence int

const (
	wasThere presence = iota + 1
	isThere
)

func (d *differing) side(r rule) presence { return d.only[describe(r)] }

func (d *differing) fresh(r rule) bool { return d.rank(r) < same }

// The ranks of rules: those that come first are most likely to show a difference.
const (
	alone = iota // one side only has it
	other
	same
)

func (d *differing) rank(r rule) int {
	switch text := describe(r); {
	case d.only[text] != 0:
		return alone
	case d.other[text]:
		return other
	}
	return same
}

// both joins the asks of two sides.
func both(before, after asks) *differing {
	d := &differing{rules: unique(append(slices.Clip(before.rules), after.rules...)), routes: append(slices.Clip(before.routes), after.routes...),
		loose: unique(append(slices.Clip(before.loose), after.loose...)), only: map[string]presence{}}
	one, two := described(before.rules), described(after.rules)
	for text := range one {
		if !two[text] {
			d.only[text] = wasThere
		}
	}
	for text := range two {
		if !one[text] {
			d.only[text] = isThere
		}
	}
	d.other = changed(slices.Concat(before.routes...), slices.Concat(after.routes...))
	b, a := patternsOf(before.rules), patternsOf(after.rules)
	d.before, d.after = without(b, a), without(a, b)
	for _, r := range before.ranges {
		if !slices.Contains(after.ranges, r) {
			d.ranges = appendNew(d.ranges, r)
		}
	}
	for _, r := range after.ranges {
		if !slices.Contains(before.ranges, r) {
			d.ranges = appendNew(d.ranges, r)
		}
	}
	return d
}

func described(rules []rule) map[string]bool {
	out := map[string]bool{}
	for _, r := range rules {
		out[describe(r)] = true
	}
	return out
}

// changed are the rules of both lists that do something else in the other, or that have been moved: the fewest that can be.
func changed(before, after []step) map[string]bool {
	type nth struct {
		text string
		n    int // among those that read the same
	}
	numbered := func(list []step) (keys []nth) {
		seen := map[string]int{}
		for _, s := range list {
			text := describe(s.rule)
			keys = append(keys, nth{text, seen[text]})
			seen[text]++
		}
		return keys
	}
	at := map[nth]int{}
	for i, key := range numbered(before) {
		at[key] = i
	}
	out := map[string]bool{}
	var order []int // of the rules of both, where they were
	keys := numbered(after)
	for i, key := range keys {
		was, both := at[key]
		if !both {
			continue
		}
		if order = append(order, was); !reflect.DeepEqual(unnamed(before[was].route), unnamed(after[i].route)) {
			out[key.text] = true
		}
	}
	kept := map[int]bool{}
	for _, was := range increasing(order) {
		kept[was] = true
	}
	for _, was := range order {
		if !kept[was] {
			out[describe(before[was].rule)] = true
		}
	}
	return out
}

// unnamed is a route without what only says where it comes from.
func unnamed(r *conf.Route) conf.Route {
	if r == nil {
		return conf.Route{}
	}
	bare := *r
	bare.Name, bare.Object, bare.Field, bare.Decorator, bare.Match.Template = "", "", "", "", ""
	return bare
}

// increasing is a longest part of a list of different numbers in which they increase.
func increasing(list []int) []int {
	var ends []int // of the parts of each length that can be continued best, by index
	previous := make([]int, len(list))
	for i, v := range list {
		n, _ := slices.BinarySearchFunc(ends, v, func(end, v int) int { return cmp.Compare(list[end], v) })
		if previous[i] = -1; n > 0 {
			previous[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		} else {
			ends[n] = i
		}
	}
	var out []int
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = previous[i] {
			out = append(out, list[i])
		}
	}
	return out
}

// patternsOf are the regular expressions of rules, by slot and text.
func patternsOf(rules []rule) map[string]condition {
	out := map[string]condition{}
	for _, r := range rules {
		for _, cond := range r {
			if cond.pattern {
				out[cond.about()] = cond
			}
		}
	}
	return out
}

func without(list, other map[string]condition) (out []condition) {
	for _, key := range sortedKeys(list) {
		if _, there := other[key]; !there {
			out = append(out, list[key])
		}
	}
	return out
}

// settle keeps what differs between the sides although no request showed it: patterns that no differing request was made for, and
// ranges where nothing differs. Patterns that match the same texts are no difference.
func (c *comparison) settle(d *differing, to asked, shown map[string]bool, any bool) {
	hidden := func(list []condition) []condition {
		return slices.DeleteFunc(slices.Clone(list), func(cond condition) bool { return shown[cond.about()] })
	}
	before, after := hidden(d.before), hidden(d.after)
	equal := func(cond condition, list []condition) bool {
		return slices.ContainsFunc(list, func(o condition) bool {
			return o.slot == cond.slot && o.not == cond.not && c.finder.Equal(o.expression, cond.expression)
		})
	}
	for _, cond := range before {
		if !equal(cond, after) {
			c.untold[to.address()+": "+cond.text] = true
		}
	}
	for _, cond := range after {
		if !equal(cond, before) {
			c.untold[to.address()+": "+cond.text] = true
		}
	}
	for _, r := range d.ranges {
		if any {
			c.told[r] = true
		}
		c.untold[r] = true
	}
}

// maxUntold bounds what is listed of them.
const maxUntold = 20

// left gives what differs and was shown by no request, sorted.
func (c *comparison) left() []string {
	maps.DeleteFunc(c.untold, func(text string, _ bool) bool { return c.told[text] })
	return listed(sortedKeys(c.untold))
}

// listed is a list as far as it is written.
func listed(list []string) []string {
	if len(list) > maxUntold {
		list = append(list[:maxUntold:maxUntold], fmt.Sprintf("and %d more", len(list)-maxUntold))
	}
	return list
}

// rangesOfChain are what a chain asks of the addresses of a connection.
func rangesOfChain(ch *conf.Chain) (out []string) {
	add := func(what string, list []netip.Prefix) {
		for _, p := range list {
			out = append(out, what+" "+p.String())
		}
	}
	add("destination", ch.Match.Destination)
	add("source", ch.Match.SourcePrefixes)
	add("source", ch.Match.DirectPrefixes)
	return out
}

// rangesOfPolicies are what policies ask of them.
func rangesOfPolicies(sets []*conf.RBAC) (out []string) {
	for _, set := range sets {
		for i := range set.Policies {
			for _, r := range append(slices.Clip(set.Policies[i].Principals), set.Policies[i].Permissions...) {
				out = append(out, rangesOfRule(r, "")...)
			}
		}
	}
	return out
}

func rangesOfRule(r *conf.Rule, not string) (out []string) {
	for _, sub := range append(slices.Clip(r.And), r.Or...) {
		out = append(out, rangesOfRule(sub, not)...)
	}
	switch {
	case r.Not != nil:
		if not == "" {
			return rangesOfRule(r.Not, "not ")
		}
		return rangesOfRule(r.Not, "")
	case r.SourceIP != nil:
		out = append(out, not+"source "+r.SourceIP.String())
	case r.RemoteIP != nil:
		out = append(out, not+"remote source "+r.RemoteIP.String())
	case r.DestinationIP != nil:
		out = append(out, not+"destination "+r.DestinationIP.String())
	}
	return out
}
