package ratelimit

import (
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Request is what rules look at.
type Request struct {
	*message.Request
	Remote netip.Addr // the client
	// RemoteText is Remote as text, made at first use; whoever keeps the Request's storage for a connection saves making it anew.
	RemoteText string
	// Source is the proxy's own service, Destination the cluster that was chosen.
	Source, Destination string
}

// Describe gives the entries by which a rule describes a request, in into's storage; none if an action has nothing to say.
func Describe(into []conf.LimitEntry, rule *conf.LimitRule, r *Request) []conf.LimitEntry {
	into = into[:0]
	for i := range rule.Actions {
		a := &rule.Actions[i]
		value, ok := r.value(a)
		switch {
		case ok:
			into = append(into, conf.LimitEntry{Key: a.Key, Value: value})
		case !a.SkipAbsent:
			return into[:0]
		}
	}
	return into
}

func (r *Request) value(a *conf.LimitAction) (string, bool) {
	switch a.Kind {
	case conf.LimitGeneric:
		return a.Value, true
	case conf.LimitHeader:
		v, present := r.Lookup(a.Name)
		return v, present && v != ""
	case conf.LimitQuery:
		_, query := r.SplitPath()
		v, present := message.Param(query, a.Name)
		return v, present && v != ""
	case conf.LimitHeaders:
		return a.Value, r.headersMatch(a) == a.Expect
	case conf.LimitParams:
		return a.Value, r.paramsMatch(a) == a.Expect
	case conf.LimitRemote:
		return r.remote(a)
	case conf.LimitSource:
		return r.Source, r.Source != ""
	case conf.LimitDestination:
		return r.Destination, r.Destination != ""
	}
	return "", false
}

func (r *Request) headersMatch(a *conf.LimitAction) bool {
	for i := range a.Headers {
		h := &a.Headers[i]
		if v, present := r.Lookup(h.Name); !h.Match(v, present) {
			return false
		}
	}
	return true
}

func (r *Request) paramsMatch(a *conf.LimitAction) bool {
	_, query := r.SplitPath()
	for i := range a.Query {
		q := &a.Query[i]
		if v, present := message.Param(query, q.Name); !present || !q.Value.Match(v) {
			return false
		}
	}
	return true
}

func (r *Request) remote(a *conf.LimitAction) (string, bool) {
	addr := r.Remote.Unmap()
	if !addr.IsValid() {
		return "", false
	}
	bits := a.V6
	if addr.Is4() {
		bits = a.V4
	}
	if !a.Masked {
		if r.RemoteText == "" {
			r.RemoteText = addr.WithZone("").String()
		}
		return r.RemoteText, true
	}
	p, err := addr.Prefix(bits)
	return p.String(), err == nil
}
