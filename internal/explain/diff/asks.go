package diff

import (
	"fmt"
	"maps"
	"net/netip"
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

func (d *differing) fresh(r rule) bool { return d.side(r) != 0 }

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
	list := sortedKeys(c.untold)
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
