package diff

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/grpc"
)

// The bounds of what is tried for one destination.
const (
	maxRules = 2_000
	maxPairs = 10_000
	maxTerms = 8   // conditions of a rule of which each is negated
	minTries = 100 // requests, where there is no time for more
)

// chosen are the rules that are tried, those that only one side has first and then those that do something else, and whether they are all.
func (c *comparison) chosen(d *differing, to asked) ([]rule, bool) {
	if len(d.rules) <= maxRules {
		return d.rules, true
	}
	c.note("%s: only %d of %d conditions were tried", to.address(), maxRules, len(d.rules))
	rules := slices.Clone(d.rules)
	ranks := map[string]int{}
	for _, r := range rules {
		ranks[describe(r)] = d.rank(r)
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(ranks[describe(a)], ranks[describe(b)]) })
	return rules[:maxRules], false
}

// candidates makes requests for rules, the simplest first. Where there are too many, those stay that are made for what differs.
func (c *comparison) candidates(d *differing, rules []rule, to asked) []candidate {
	var fresh, rest []rule
	for _, r := range rules {
		if d.fresh(r) {
			fresh = append(fresh, r)
		} else {
			rest = append(rest, r)
		}
	}
	all := append(append([]rule{nil}, fresh...), beside(fresh)...)
	urgent := len(all)
	all = append(append(all, rest...), beside(rest)...)
	joint, complete := pairs(d, rules)
	if all = append(all, joint...); !complete {
		c.note("%s: requests that fulfil several conditions were tried for the first %d pairs only", to.address(), maxPairs)
	}
	var out []candidate
	seen := map[string]int{}
	for n, r := range all {
		cand, ok := to.build(r, c.finder)
		if !ok && len(r) > 0 && unspellable(r) != "" {
			c.note("%s: no example was found for %s, so it was not compared", to.address(), unspellable(r))
		}
		if !ok {
			continue
		}
		id := fmt.Sprint(cand.request)
		if i, known := seen[id]; known {
			out[i].rules = append(out[i].rules, r)
			continue
		}
		seen[id] = len(out)
		cand.urgent = n < urgent
		out = append(out, cand)
	}
	simplest := func(a, b candidate) int { return cmp.Compare(a.terms, b.terms) }
	slices.SortStableFunc(out, func(a, b candidate) int { return cmp.Or(before(a.urgent, b.urgent), simplest(a, b)) })
	out = out[:c.affordable(len(out), len(d.rules))]
	slices.SortStableFunc(out, simplest)
	return out
}

// before orders what is set first.
func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// beside are rules for requests that miss others narrowly: in one of their conditions, and then by single values.
func beside(rules []rule) (out []rule) {
	for _, r := range rules {
		for i := range r[:min(len(r), maxTerms)] {
			missed := slices.Clone(r)
			missed[i] = r[i].negated()
			out = append(out, missed)
		}
	}
	near := map[string]bool{}
	for _, r := range rules {
		for _, cond := range r {
			if !near[cond.slot+cond.text] {
				near[cond.slot+cond.text] = true
				out = append(out, cond.near()...)
			}
		}
	}
	return out
}

// pairs are rules that ask what two of them do, or what one does but a condition of the other on the same thing. Those that only one
// side has come first, and before all a rule with the one that seems to have taken its place. It reports whether these are all.
func pairs(d *differing, rules []rule) (out []rule, complete bool) {
	fresh := make([]bool, len(rules))
	var was, is []rule
	for i, r := range rules {
		switch d.side(r) {
		case wasThere:
			fresh[i], was = true, append(was, r)
		case isThere:
			fresh[i], is = true, append(is, r)
		default:
			fresh[i] = d.fresh(r)
		}
	}
	for i := range min(len(was), len(is)) {
		out = append(append(out, apart(was[i], is[i])...), apart(is[i], was[i])...)
	}
	n := 0
	for _, wanted := range []bool{true, false} {
		for i := range rules {
			for j := i + 1; j < len(rules); j++ {
				if (fresh[i] || fresh[j]) != wanted {
					continue
				}
				if n++; n > maxPairs {
					return out, false
				}
				out = append(out, append(slices.Clip(rules[i]), rules[j]...))
				out = append(append(out, apart(rules[i], rules[j])...), apart(rules[j], rules[i])...)
			}
		}
	}
	return out, true
}

// apart are rules for what fulfils a but not b, in a thing that both ask for, or that requests fulfil of which nothing is asked.
func apart(a, b rule) (out []rule) {
	for _, cond := range b[:min(len(b), maxTerms)] {
		asked, same := false, false
		for _, o := range a {
			asked = asked || o.slot == cond.slot
			same = same || o.slot == cond.slot && o.text != cond.text
		}
		if same || !asked && cond.easy() {
			out = append(out, append(slices.Clip(a), cond.negated()))
		}
	}
	return out
}

// easy reports whether a request fulfils the condition of which nothing is asked.
func (c condition) easy() bool {
	switch c.slot {
	case ":method":
		return c.test("GET", true) || c.test("POST", true)
	case pathSlot:
		return c.test("/", true)
	case typeSlot:
		return c.test("", false) || c.test(grpc.Media, true)
	case ":authority", ":scheme":
		return false // where the request goes
	}
	return c.test("", false)
}
