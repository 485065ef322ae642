package authz

import (
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Attempt is one enforced policy that was tried.
type Attempt struct {
	Policy  string
	Action  conf.Action
	Matched bool
	// Why names the first condition that failed, with what it wants and what there was: `principal: want exact "spiffe://a",
	// got "spiffe://b"`. Empty when the policy matched.
	Why string
}

// Trace tries the policies of all enforced sets, with the conditions of Evaluate, and says of each why it does not match. It is for
// explanations; it allocates.
func Trace(sets []*conf.RBAC, in *Input) []Attempt {
	var out []Attempt
	for _, set := range sets {
		if set.Shadow {
			continue
		}
		q := asked(set, in)
		for i := range set.Policies {
			p := &set.Policies[i]
			a := Attempt{Policy: p.Name, Action: set.Action}
			switch {
			case !anyOf(p.Principals, q):
				a.Why = noneOf(p.Principals, q)
			case !anyOf(p.Permissions, q):
				a.Why = noneOf(p.Permissions, q)
			default:
				a.Matched = true
			}
			out = append(out, a)
		}
	}
	return out
}

// noneOf says why no alternative holds.
func noneOf(rules []*conf.Rule, q question) string {
	var reasons []string
	for _, r := range rules {
		reasons = append(reasons, why(r, q))
	}
	return strings.Join(reasons, "; ")
}

// why says why a rule, which does not hold, does not.
func why(r *conf.Rule, q question) string {
	switch {
	case r.And != nil:
		for _, c := range r.And {
			if !holds(c, q) {
				return why(c, q)
			}
		}
	case r.Or != nil:
		return noneOf(r.Or, q)
	case r.Not != nil:
		return "excluded: " + describe(r.Not)
	}
	return describe(r) + ", got " + got(r, q.Input)
}

// describe says what a rule wants.
func describe(r *conf.Rule) string {
	switch {
	case r.Any:
		return "anything"
	case r.And != nil:
		return all(r.And, " and ")
	case r.Or != nil:
		return all(r.Or, " or ")
	case r.Not != nil:
		return "not " + describe(r.Not)
	case r.Principal != nil:
		return "principal: want " + r.Principal.String()
	case r.Authenticated:
		return "principal: want any"
	case r.Header != nil:
		return headerName(r.Header.Name) + ": want " + wanted(r.Header)
	case r.Path != nil:
		return "path: want " + r.Path.String()
	case r.SourceIP != nil:
		return "source address: want " + r.SourceIP.String()
	case r.RemoteIP != nil:
		return "remote address: want " + r.RemoteIP.String()
	case r.DestinationIP != nil:
		return "destination address: want " + r.DestinationIP.String()
	case r.Port != 0:
		return "port: want " + strconv.Itoa(int(r.Port))
	case r.SNI != nil:
		return "server name: want " + r.SNI.String()
	}
	return "nothing"
}

func all(rules []*conf.Rule, word string) string {
	var parts []string
	for _, r := range rules {
		parts = append(parts, describe(r))
	}
	return strings.Join(parts, word)
}

func headerName(name string) string {
	if plain, pseudo := strings.CutPrefix(name, ":"); pseudo {
		return plain
	}
	return "header " + name
}

func wanted(h *conf.HeaderMatch) string {
	s := h.Value.String()
	if h.Value.Kind == conf.Any {
		s = "presence"
		if !h.Present {
			s = "absence"
		}
	}
	if h.Invert {
		s = "not " + s
	}
	return s
}

// got is what the input has in place of what a leaf wants.
func got(r *conf.Rule, in *Input) string {
	switch {
	case r.Principal != nil || r.Authenticated:
		if in.Peer == "" {
			return "none (no client certificate)"
		}
		return strconv.Quote(in.Peer)
	case r.Header != nil || r.Path != nil:
		return gotOfRequest(r, in)
	case r.SourceIP != nil:
		return in.Source.String()
	case r.RemoteIP != nil:
		return in.Remote.String()
	case r.DestinationIP != nil:
		return in.Destination.String()
	case r.Port != 0:
		return strconv.Itoa(int(in.Port))
	}
	return strconv.Quote(in.SNI)
}

func gotOfRequest(r *conf.Rule, in *Input) string {
	if in.Request == nil {
		return "no request (not HTTP)"
	}
	if r.Header == nil {
		path, _ := in.Request.SplitPath()
		return strconv.Quote(path)
	}
	value, present := in.Request.Lookup(r.Header.Name)
	if !present {
		return "absent"
	}
	return strconv.Quote(value)
}
