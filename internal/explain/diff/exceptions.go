package diff

import (
	"fmt"
	"slices"
	"strings"
)

// The bounds of what is looked for and named for one kind of request, and of the kinds that ask for the same things but one.
const (
	maxExceptions = 5
	maxLookedAt   = 50
)

// exceptions finds what the descriptions of requests that differ have to leave out: requests that fulfil them, and with them a narrower
// condition on one of the same things, and that are treated alike.
type exceptions struct {
	told []*kind
	near map[string][]near // by the conditions but for one, and its slot
}

// kind is a kind of request that is described in a report.
type kind struct {
	change, request int // its place
	method          string
	rule            rule
	values          map[string]filled
	except          []exception
}

// near is a kind with one of its conditions; with the zero condition it is asked for whole.
type near struct {
	*kind
	condition
}

// exception is a condition with a value that fulfils it.
type exception struct {
	condition
	value filled
}

// filled is what a request has in a slot.
type filled struct {
	value   string
	present bool
}

// tell takes a description that stands in the report.
func (x *exceptions) tell(cand *candidate, change, request int) *kind {
	k := &kind{change: change, request: request, method: cand.request.Method, rule: cand.rules[0], values: cand.values}
	x.told = append(x.told, k)
	add := func(key string, n near) {
		if len(x.near[key]) < maxLookedAt {
			x.near[key] = append(x.near[key], n)
		}
	}
	add(setOf(k.rule, -1), near{k, condition{}})
	for i, cond := range k.rule {
		add(cond.slot+"\x02"+setOf(k.rule, i), near{k, cond})
	}
	return k
}

// retell takes another description in the place of one.
func (x *exceptions) retell(k *kind, cand *candidate) {
	x.told = slices.DeleteFunc(x.told, func(o *kind) bool { return o == k })
	x.tell(cand, k.change, k.request)
}

// fulfils reports whether the kind's own request is one of those that a rule describes.
func (k *kind) fulfils(r rule) bool { return r.heldBy(k.method, k.values) }

// heldBy reports whether a request with a method and values is one of those that the rule describes.
func (r rule) heldBy(method string, values map[string]filled) bool {
	return !slices.ContainsFunc(r, func(o condition) bool {
		v, asked := values[o.slot]
		if !asked && o.slot == ":method" {
			v = filled{method, true}
		}
		return !asked && (o.slot == ":authority" || o.slot == ":scheme") || !o.test(v.value, v.present)
	})
}

// alike takes requests that are treated alike.
func (x *exceptions) alike(all []candidate) {
	if len(x.told) == 0 {
		return
	}
	for i := range all {
		for _, r := range all[i].rules {
			for j, cond := range r {
				set, e := setOf(r, j), exception{cond, all[i].values[cond.slot]}
				for _, n := range append(slices.Clip(x.near[set]), x.near[cond.slot+"\x02"+set]...) {
					if n.test == nil || n.test(e.value.value, e.value.present) {
						n.add(e)
					}
				}
			}
		}
	}
}

// add adds what the kind's own request does not fulfil.
func (k *kind) add(e exception) {
	at := k.values[e.slot]
	known := func(o exception) bool { return o.slot == e.slot && o.text == e.text }
	asked := slices.ContainsFunc(k.rule, func(c condition) bool { return c.slot == e.slot })
	if asked && len(k.except) < maxLookedAt && !e.test(at.value, at.present) && !slices.ContainsFunc(k.except, known) {
		k.except = append(k.except, e)
	}
}

// describe writes the conditions with what is left out, of which the narrower is not said beside the wider.
func (k *kind) describe() string {
	text, n := slices.Clip(k.rule), 0
	for _, e := range k.except {
		if slices.ContainsFunc(k.except, e.within) {
			continue
		}
		if n++; n <= maxExceptions {
			text = append(text, e.negated())
		}
	}
	if n > maxExceptions {
		return fmt.Sprintf("%s, and more that is left out", describe(text))
	}
	return describe(text)
}

// within reports whether an exception seems to be a part of another: of two that the values do not tell apart, a single value is.
func (e exception) within(wider exception) bool {
	if e.slot != wider.slot || !wider.test(e.value.value, e.value.present) {
		return false
	}
	return !e.test(wider.value.value, wider.value.present) || e.expression == "" && wider.expression != ""
}

// setOf names the conditions of a rule whatever their order and however often they stand there, but for those like the one at without.
func setOf(r rule, without int) string {
	var parts []string
	for _, c := range r {
		if without < 0 || c.slot != r[without].slot || c.text != r[without].text {
			parts = appendNew(parts, c.slot+"\x00"+c.text)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x01")
}
