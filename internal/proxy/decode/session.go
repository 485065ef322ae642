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
	d.only(m, "disabled", "stateful_session")
	if m.GetDisabled() {
		return nil
	}
	out := &conf.Session{}
	d.at("stateful_session", func() {
		s := m.GetStatefulSession()
		d.only(s, "session_state", "strict", "stat_prefix") // the last: statistics
		out.Strict = s.GetStrict()
		d.at("session_state", func() {
			d.only(s.GetSessionState(), "name", "typed_config")
			a := s.GetSessionState().GetTypedConfig()
			d.typedConfig(a, func() {
				switch string(a.MessageName()) {
				case "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState":
					if v := (&cookiev3.CookieBasedSessionState{}); d.typed(a, v) {
						d.sessionCookie(v, out)
					}
				case "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState":
					if v := (&headerv3.HeaderBasedSessionState{}); d.typed(a, v) {
						d.only(v, "name")
						d.token("name", v.GetName())
						out.Header = v.GetName()
					}
				default:
					d.fail("session state of type %q is not supported", a.GetTypeUrl())
				}
			})
		})
	})
	return out
}

func (d *decoder) sessionCookie(m *cookiev3.CookieBasedSessionState, out *conf.Session) {
	d.only(m, "cookie")
	d.at("cookie", func() {
		c := m.GetCookie()
		d.only(c, "name", "ttl", "path")
		d.token("name", c.GetName())
		if out.Cookie, out.Path = c.GetName(), c.GetPath(); strings.ContainsAny(out.Path, ";\r\n") {
			d.at("path", func() { d.fail("%q does not fit into a cookie", out.Path) })
		}
		out.TTL = d.duration("ttl", c.GetTtl())
	})
}
