package gatewayapi

import (
	"fmt"
	"hash/fnv"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// session converts how the n-th rule keeps clients at their endpoints.
func (p converter) session(s *gatewayv1.SessionPersistence, n int, field string) *model.Session {
	if s == nil {
		return nil
	}
	out := &model.Session{Name: parts.OrEmpty(s.SessionName), Header: parts.OrEmpty(s.Type) == string(gatewayv1.HeaderBasedSessionPersistence)}
	switch t := parts.OrEmpty(s.Type); t {
	case "", string(gatewayv1.CookieBasedSessionPersistence), string(gatewayv1.HeaderBasedSessionPersistence):
	default:
		p.Err("InvalidValue", field+".type", "", "%q is neither Cookie nor Header", t)
	}
	if out.Name == "" { // one of its own: rules do not take each other's for theirs
		h := fnv.New32a()
		fmt.Fprintf(h, "%s %d", p.Ref(), n)
		out.Name = fmt.Sprintf("x-session-%08x", h.Sum32())
	}
	if !parts.IsHeaderName(out.Name) {
		p.Err("InvalidValue", field+".sessionName", "", "%q is no name of a cookie or a header", out.Name)
	}
	timeout := p.APIDuration(s.AbsoluteTimeout, field+".absoluteTimeout")
	permanent := false
	if c := s.CookieConfig; c != nil {
		switch l := parts.OrEmpty(c.LifetimeType); l {
		case "", string(gatewayv1.SessionCookieLifetimeType):
		case string(gatewayv1.PermanentCookieLifetimeType):
			permanent = true
		default:
			p.Err("InvalidValue", field+".cookieConfig.lifetimeType", "", "%q is neither Session nor Permanent", l)
		}
		if out.Header {
			p.Err("ConflictingFields", field+".cookieConfig", "", "type Header has no cookie")
		}
	}
	switch {
	case permanent && timeout == 0:
		p.Err("MissingField", field+".absoluteTimeout", "", "a Permanent cookie needs its time")
	case permanent:
		out.TTL = timeout
	case s.AbsoluteTimeout != nil:
		p.Unsupported(field+".absoluteTimeout", "use cookieConfig.lifetimeType Permanent, for which the client keeps the time")
	}
	return out
}
