package diff

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// servers finds the workloads whose own proxies treat requests differently, and what these ask of who sends.
func (c *comparison) servers() {
	for name, b := range c.before.clients {
		a := c.after.clients[name]
		if a == nil || a.Gateway || c.before.asker.Sum(b, decode.ListenerType, wire.InboundListener) == c.after.asker.Sum(a, decode.ListenerType, wire.InboundListener) {
			continue
		}
		c.changed[name] = true
		c.whoAsks(c.before, b)
		c.whoAsks(c.after, a)
	}
	if len(c.changed) == 0 {
		return
	}
	for _, s := range []*side{c.before, c.after} {
		for host, svc := range s.mesh.Services.All() {
			for one := range svc.All() {
				if slices.ContainsFunc(one.Endpoints, func(e *model.Endpoint) bool { return c.changed[e.Workload+"."+e.Namespace] }) {
					c.guarded[host] = true
				}
			}
		}
	}
}

// atom is something that policies ask of who sends.
type atom struct {
	text string
	test func(identity string, address netip.Addr) bool
}

func (c *comparison) whoAsks(s *side, w *model.Workload) {
	for _, set := range inboundSets(s, w) {
		for i := range set.Policies {
			for _, r := range append(slices.Clip(set.Policies[i].Principals), set.Policies[i].Permissions...) {
				c.collect(r)
			}
		}
	}
}

func (c *comparison) collect(r *conf.Rule) {
	for _, sub := range append(slices.Clip(r.And), r.Or...) {
		c.collect(sub)
	}
	switch {
	case r.Not != nil:
		c.collect(r.Not)
	case r.Principal != nil:
		c.atom(atom{"principal " + r.Principal.String(), func(id string, _ netip.Addr) bool { return r.Principal.Match(id) }})
	case r.SourceIP != nil:
		c.atom(atom{"source " + r.SourceIP.String(), func(_ string, a netip.Addr) bool { return r.SourceIP.Contains(a) }})
	case r.RemoteIP != nil:
		c.atom(atom{"source " + r.RemoteIP.String(), func(_ string, a netip.Addr) bool { return r.RemoteIP.Contains(a) }})
	}
}

func (c *comparison) atom(a atom) {
	if !slices.ContainsFunc(c.atoms, func(b atom) bool { return a.text == b.text }) {
		c.atoms = append(c.atoms, a)
	}
}

// signature tells clients apart as far as changed policies do.
func (c *comparison) signature(s *side, w *model.Workload) string {
	if len(c.atoms) == 0 {
		return ""
	}
	id, address := s.asker.Proxy(w).Identity.String(), w.Address()
	b := make([]byte, len(c.atoms))
	for i, a := range c.atoms {
		b[i] = '0'
		if a.test(id, address) {
			b[i] = '1'
		}
	}
	return string(b)
}

func inboundChains(s *side, w *model.Workload) []*conf.Chain {
	ln, _, err := s.asker.Listener(w, wire.InboundListener)
	if ln == nil || err != nil {
		return nil
	}
	return slices.DeleteFunc(append(slices.Clip(ln.Chains), ln.Default), func(ch *conf.Chain) bool { return ch == nil })
}

func inboundSets(s *side, w *model.Workload) (sets []*conf.RBAC) {
	for _, ch := range inboundChains(s, w) {
		switch {
		case ch.HTTP != nil:
			sets = append(sets, ch.HTTP.RBAC...)
		case ch.TCP != nil:
			sets = append(sets, ch.TCP.RBAC...)
		}
	}
	return sets
}

// inboundRules are what a workload's own proxy tells requests apart by.
func (c *comparison) inboundRules(s *side, w *model.Workload) (out asks) {
	for _, ch := range inboundChains(s, w) {
		if ch.HTTP != nil {
			out.add(ofHTTP(ch.HTTP))
		}
	}
	return asks{rules: unique(out.rules), loose: unique(out.loose), ranges: rangesOfPolicies(inboundSets(s, w))}
}

// behind are the rules of the workloads of a host: those that have not changed tell apart what a change of routes leads to.
func (c *comparison) behind(s *side, host string) asks {
	out, known := s.behind[host]
	if known {
		return out
	}
	seen := map[string]bool{}
	for svc := range s.mesh.Services.Get(host).All() {
		for _, e := range svc.Endpoints {
			name := e.Workload + "." + e.Namespace
			if w := s.clients[name]; w != nil && !seen[name] {
				seen[name] = true
				out.add(c.inboundRules(s, w))
			}
		}
	}
	s.behind[host] = out
	return out
}

// ofHTTP are the rules of a chain's policies and limits.
func ofHTTP(h *conf.HTTP) (out asks) {
	out.add(ofPolicies(h.RBAC))
	for _, l := range h.Limits {
		out.add(ofLimits(l.Rules))
	}
	for _, l := range h.GlobalLimits {
		out.add(ofLimits(l.Rules))
	}
	return out
}

func ofPolicies(sets []*conf.RBAC) (out asks) {
	for _, set := range sets {
		for i := range set.Policies {
			out.add(ofPolicy(&set.Policies[i]))
		}
	}
	return out
}

// ofPolicy gives what a policy asks of requests: of what is asked for and of who asks, since conditions on fields stand there, too, by
// themselves and joined.
func ofPolicy(p *conf.RBACPolicy) asks {
	permissions, principals := &conf.Rule{Or: p.Permissions}, &conf.Rule{Or: p.Principals}
	out := append(formsOf(p.Permissions), formsOf(p.Principals)...)
	joined := ofRule(&conf.Rule{And: []*conf.Rule{permissions, principals}})
	return asks{rules: append(out, joined...), loose: joined}
}

func formsOf(list []*conf.Rule) (out []rule) {
	for _, r := range list {
		out = append(out, ofRule(r)...)
	}
	return out
}

// maxForms bounds the forms of one condition of a policy: where there would be more, its parts are tried by themselves.
const maxForms = 64

// ofRule gives the forms of a policy's condition, each a list of conditions on the request that all hold. What it asks of the
// connection is left out.
func ofRule(r *conf.Rule) []rule {
	switch {
	case r.Header != nil:
		return []rule{{ofHeader(r.Header)}}
	case r.Path != nil:
		return []rule{{ofPath(r.Path, false)}}
	case r.Not != nil:
		return opposite(ofRule(r.Not))
	case len(r.Or) > 0:
		return formsOf(r.Or)
	case len(r.And) > 0:
		out := []rule{nil}
		for _, sub := range r.And {
			var next []rule
			forms := ofRule(sub)
			for _, have := range out {
				for _, more := range forms {
					next = append(next, append(slices.Clip(have), more...))
				}
			}
			if out = next; len(out) > max(maxForms, len(forms)) {
				return formsOf(r.And)
			}
		}
		return out
	}
	return []rule{nil}
}

// opposite are the opposites of all conditions, each by itself.
func opposite(forms []rule) (out []rule) {
	for _, f := range forms {
		for _, cond := range f {
			out = append(out, rule{cond.negated()})
		}
	}
	if len(out) == 0 {
		return []rule{nil}
	}
	return out
}

// ofLimits gives what requests need to be counted.
func ofLimits(rules []conf.LimitRule) (out asks) {
	for i := range rules {
		counted, apart := ofLimit(&rules[i])
		out.rules = append(out.rules, counted)
		if len(apart) == 0 {
			out.loose = append(out.loose, counted)
		}
		for _, cond := range append(counted, apart...) {
			if len(apart) > 0 {
				out.loose = append(out.loose, rule{cond})
			}
		}
	}
	return out
}

// ofLimit gives what a request needs to be counted. Where there are others as well, it may be counted without.
func ofLimit(l *conf.LimitRule) (r, others rule) {
	take := func(needed bool, c condition) {
		if r = append(r, c); !needed {
			others = append(others, c)
		}
	}
	for i := range l.Actions {
		a := &l.Actions[i]
		switch a.Kind {
		case conf.LimitHeaders:
			for j := range a.Headers {
				if h := ofHeader(&a.Headers[j]); a.Expect {
					r = append(r, h)
				} else {
					others = append(others, h)
				}
			}
		case conf.LimitParams:
			for j := range a.Query {
				if q := ofQuery(&a.Query[j]); a.Expect {
					r = append(r, q)
				} else {
					others = append(others, q)
				}
			}
		case conf.LimitHeader:
			take(!a.SkipAbsent, present(strings.ToLower(a.Name), "any "+strings.ToLower(a.Name)))
		case conf.LimitQuery:
			take(!a.SkipAbsent, present(querySlot+a.Name, fmt.Sprintf("any ?%s", a.Name)))
		}
	}
	return r, others
}

func present(slot, text string) condition {
	return condition{slot: slot, text: text, samples: []string{"x"}, test: func(v string, there bool) bool { return there && v != "" }}
}
