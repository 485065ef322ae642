package decode

import (
	"strings"

	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// session decodes how a route keeps clients at their endpoints; nil where it does not.
func (d *decoder) session(m *sessionv3.StatefulSessionPerRoute) *conf.Session {
	d.Only(m, "disabled", "stateful_session")
	if m.GetDisabled() {
		return nil
	}
	out := &conf.Session{}
	d.At("stateful_session", func() {
		s := m.GetStatefulSession()
		d.Only(s, "session_state", "strict", "stat_prefix") // the last: statistics
		out.Strict = s.GetStrict()
		d.At("session_state", func() {
			d.Only(s.GetSessionState(), "name", "typed_config")
			a := s.GetSessionState().GetTypedConfig()
			d.TypedConfig(a, func() {
				switch string(a.MessageName()) {
				case "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState":
					if v := (&cookiev3.CookieBasedSessionState{}); d.Typed(a, v) {
						d.sessionCookie(v, out)
					}
				case "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState":
					if v := (&headerv3.HeaderBasedSessionState{}); d.Typed(a, v) {
						d.Only(v, "name")
						d.Token("name", v.GetName())
						out.Header = v.GetName()
					}
				default:
					d.Fail("session state of type %q is not supported", a.GetTypeUrl())
				}
			})
		})
	})
	return out
}

func (d *decoder) sessionCookie(m *cookiev3.CookieBasedSessionState, out *conf.Session) {
	d.Only(m, "cookie")
	d.At("cookie", func() {
		c := m.GetCookie()
		d.Only(c, "name", "ttl", "path")
		d.Token("name", c.GetName())
		if out.Cookie, out.Path = c.GetName(), c.GetPath(); strings.ContainsAny(out.Path, ";\r\n") {
			d.At("path", func() { d.Fail("%q does not fit into a cookie", out.Path) })
		}
		out.TTL = d.Duration("ttl", c.GetTtl())
	})
}
