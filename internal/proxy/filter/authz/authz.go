// Package authz decides whether a peer may make a connection or a request. It is pure: policies and facts in, verdict out.
package authz

import (
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Input is what policies may ask about.
type Input struct {
	// Peer is the SPIFFE URI that the client's certificate proves; empty for plaintext and for clients without certificate.
	Peer string
	// Request is nil for connections that carry no HTTP; conditions on a request then fail.
	Request *message.Request
	// Source is the direct peer, Remote the client that is trusted to be behind it (the same without trusted hops).
	Source, Remote netip.Addr
	// Destination and Port are the workload's own.
	Destination netip.Addr
	Port        uint16
	SNI         string
}

// Verdict is the answer. The zero value is a denial.
type Verdict struct {
	Allowed bool
	// Policy that decided, by RBACPolicy.Name; empty when nothing matched.
	Policy string
	// Rule says in words why: for logs, response flags' details and explanations.
	Rule string
	// ShadowDenied says that a dry-run set would have denied; ShadowPolicy names its policy (empty: none matched).
	ShadowDenied bool
	ShadowPolicy string
}

// The texts of Verdict.Rule.
const (
	NoPolicies    = "no policy applies"
	AllowMatched  = "an ALLOW policy matches"
	AllowMissed   = "no ALLOW policy matches"
	DenyMatched   = "a DENY policy matches"
	NothingDenies = "no DENY policy matches"
)

// Evaluate runs the sets in their order; the first denial wins. Sets in dry run never change the outcome. It allocates nothing,
// unless a condition asks for a header that occurs more than once. Source: envoy.config.rbac.v3.RBAC.
func Evaluate(sets []*conf.RBAC, in *Input) Verdict {
	v := Verdict{Allowed: true, Rule: NoPolicies}
	for _, set := range sets {
		p := firstMatch(set, in)
		switch {
		case set.Action == conf.LogOnly:
		case set.Shadow:
			if denies(set, p) && !v.ShadowDenied {
				v.ShadowDenied, v.ShadowPolicy = true, nameOf(p)
			}
		case !denies(set, p):
			v.note(set, p)
		case set.Action == conf.Deny:
			v.Allowed, v.Policy, v.Rule = false, p.Name, DenyMatched
			return v
		default:
			v.Allowed, v.Policy, v.Rule = false, "", AllowMissed
			return v
		}
	}
	return v
}

// note records what let the request pass a set.
func (v *Verdict) note(set *conf.RBAC, p *conf.RBACPolicy) {
	if set.Action == conf.Allow {
		v.Policy, v.Rule = nameOf(p), AllowMatched
	} else if v.Rule == NoPolicies {
		v.Rule = NothingDenies
	}
}

func denies(set *conf.RBAC, matched *conf.RBACPolicy) bool {
	return (set.Action == conf.Deny) == (matched != nil)
}

func nameOf(p *conf.RBACPolicy) string {
	if p == nil {
		return ""
	}
	return p.Name
}

func firstMatch(set *conf.RBAC, in *Input) *conf.RBACPolicy {
	q := asked(set, in)
	for i := range set.Policies {
		p := &set.Policies[i]
		if anyOf(p.Permissions, q) && anyOf(p.Principals, q) {
			return p
		}
	}
	return nil
}

// question is what rules are held against. wary says how a field that occurs several times is taken, which the application may read in
// another way than we do: so that what is refused is refused, and what is not granted not granted, whichever of the values counts.
// Rules that deny are wary of what could match, those that allow are not, and a negation turns that round.
type question struct {
	*Input
	wary bool
}

func asked(set *conf.RBAC, in *Input) question { return question{in, set.Action != conf.Allow} }

func anyOf(rules []*conf.Rule, q question) bool {
	for _, r := range rules {
		if holds(r, q) {
			return true
		}
	}
	return false
}

func allOf(rules []*conf.Rule, q question) bool {
	for _, r := range rules {
		if !holds(r, q) {
			return false
		}
	}
	return true
}

func holds(r *conf.Rule, q question) bool {
	switch {
	case r.Any:
		return true
	case r.And != nil:
		return allOf(r.And, q)
	case r.Or != nil:
		return anyOf(r.Or, q)
	case r.Not != nil:
		return !holds(r.Not, question{q.Input, !q.wary})
	case r.Principal != nil:
		return q.Peer != "" && r.Principal.Match(q.Peer)
	case r.Authenticated:
		return q.Peer != ""
	case r.Header != nil || r.Path != nil:
		return holdsRequest(r, q)
	}
	return holdsConnection(r, q.Input)
}

// holdsRequest is false for anything but HTTP.
func holdsRequest(r *conf.Rule, q question) bool {
	if q.Request == nil {
		return false
	}
	if r.Header != nil {
		return holdsHeader(r.Header, q)
	}
	path, _ := q.Request.SplitPath()
	return r.Path.Match(path)
}

// holdsHeader takes the values of a field that occurs several times joined (RFC 9110 section 5.3), and each alone: where one is wary
// any of them suffices, else an inverted condition must hold for all.
func holdsHeader(m *conf.HeaderMatch, q question) bool {
	value, present := q.Request.Lookup(m.Name)
	joined := m.Match(value, present)
	if joined == q.wary || joined && !m.Invert {
		return joined
	}
	for alone := range q.Request.Header.Values(m.Name) {
		if m.Match(alone, true) == q.wary {
			return q.wary
		}
	}
	return joined
}

func holdsConnection(r *conf.Rule, in *Input) bool {
	switch {
	case r.SourceIP != nil:
		return r.SourceIP.Contains(in.Source.Unmap())
	case r.RemoteIP != nil:
		return r.RemoteIP.Contains(in.Remote.Unmap())
	case r.DestinationIP != nil:
		return r.DestinationIP.Contains(in.Destination.Unmap())
	case r.Port != 0:
		return r.Port == in.Port
	case r.SNI != nil:
		return r.SNI.Match(in.SNI)
	}
	return false
}
