package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// routeMatch decodes the conditions of a route. variables are those of its path's template.
func (d *decoder) routeMatch(m *routev3.RouteMatch) (out conf.Match, variables []string) {
	d.Only(m, "prefix", "path", "safe_regex", "path_separated_prefix", "path_match_policy", "case_sensitive", "runtime_fraction",
		"headers", "query_parameters", "cookies", "grpc", "tls_context")
	out = conf.Match{CaseSensitive: !isFalse(m.GetCaseSensitive())}
	variables = d.routePath(m, &out)
	if !out.CaseSensitive && out.Path.Kind != conf.Any {
		out.Path.IgnoreCase, out.Path.Value = true, conf.Fold(out.Path.Value)
	}
	if m.GetGrpc() != nil {
		d.At("grpc", func() { d.Only(m.GetGrpc()) })
		out.GRPC = true
	}
	d.At("tls_context", func() {
		c := m.GetTlsContext()
		d.Only(c, "presented", "validated")
		out.Presented, out.Validated = wanted(c.GetPresented()), wanted(c.GetValidated())
	})
	out.Headers = d.HeaderMatches("headers", m.GetHeaders())
	walk.Each(d.Walk, "query_parameters", m.GetQueryParameters(), func(q *routev3.QueryParameterMatcher) {
		out.Query = append(out.Query, d.queryMatch(q))
	})
	walk.Each(d.Walk, "cookies", m.GetCookies(), func(c *routev3.CookieMatcher) {
		out.Cookies = append(out.Cookies, d.cookieMatch(c))
	})
	if f := m.GetRuntimeFraction(); f != nil {
		out.Fraction = d.RuntimeFraction("runtime_fraction", f)
		out.Never = out.Fraction == 0
		if out.Fraction == walk.Million {
			out.Fraction = 0
		}
	}
	return out, variables
}

func wanted(v *wrapperspb.BoolValue) *bool {
	if v == nil {
		return nil
	}
	b := v.GetValue()
	return &b
}

func (d *decoder) routePath(m *routev3.RouteMatch, out *conf.Match) (variables []string) {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if out.Path = (conf.StringMatch{Kind: conf.PrefixOf, Value: p.Prefix}); p.Prefix == "" {
			out.Path = conf.StringMatch{}
		}
	case *routev3.RouteMatch_Path:
		out.Path = conf.StringMatch{Kind: conf.Exact, Value: p.Path}
	case *routev3.RouteMatch_SafeRegex:
		// case_sensitive says nothing of regular expressions, as in Envoy.
		out.Path, out.CaseSensitive = d.Pattern("safe_regex", p.SafeRegex, true), true
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.Path, out.PathSeparatedPrefix = conf.StringMatch{Kind: conf.PrefixOf, Value: p.PathSeparatedPrefix}, true
		if p.PathSeparatedPrefix == "" || strings.HasSuffix(p.PathSeparatedPrefix, "/") || strings.ContainsAny(p.PathSeparatedPrefix, "?#") {
			d.At("path_separated_prefix", func() { d.Fail("%q: may not be empty, end in a slash or have a query", p.PathSeparatedPrefix) })
		}
	case *routev3.RouteMatch_PathMatchPolicy:
		d.At("path_match_policy", func() {
			t := &templatev3.UriTemplateMatchConfig{}
			d.Only(p.PathMatchPolicy, "name", "typed_config")
			if !d.Typed(p.PathMatchPolicy.GetTypedConfig(), t) {
				return
			}
			d.Only(t, "path_template")
			s, names := d.template(t.GetPathTemplate())
			out.Path, out.Template, out.CaseSensitive, variables = *s, t.GetPathTemplate(), true, names
		})
	default:
		d.Fail("path_specifier: is required")
	}
	return variables
}

func (d *decoder) queryMatch(m *routev3.QueryParameterMatcher) conf.QueryMatch {
	d.Only(m, "name", "string_match", "present_match")
	out := conf.QueryMatch{Name: m.GetName()}
	if out.Name == "" {
		d.Fail("name: is required")
	}
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_StringMatch:
		out.Value = d.StringMatch("string_match", s.StringMatch)
	case *routev3.QueryParameterMatcher_PresentMatch:
		out.Absent = !s.PresentMatch
	}
	return out
}

func (d *decoder) cookieMatch(m *routev3.CookieMatcher) conf.CookieMatch {
	d.Only(m, "name", "string_match", "invert_match")
	d.Token("name", m.GetName())
	return conf.CookieMatch{Name: m.GetName(), Value: d.StringMatch("string_match", m.GetStringMatch()), Invert: m.GetInvertMatch()}
}
