package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func (d *decoder) routes(m *routev3.RouteConfiguration) *conf.RouteTable {
	d.only(m, "name", "virtual_hosts", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
		"response_headers_to_remove", "ignore_port_in_host_matching", "typed_per_filter_config",
		// Without effect: a cluster that is not there answers with 503 in any case; the rest is said of responses that are
		// bounded by the message, or for people.
		"validate_clusters", "max_direct_response_body_size_bytes", "metadata")
	t := &conf.RouteTable{Name: m.GetName(), IgnorePort: m.GetIgnorePortInHostMatching()}
	t.Request = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	t.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	filters := d.perFilter(m.GetTypedPerFilterConfig(), overrides{})
	seen := map[string]bool{}
	each(d, "virtual_hosts", m.GetVirtualHosts(), func(v *routev3.VirtualHost) {
		t.Hosts = append(t.Hosts, d.virtualHost(v, seen, filters))
	})
	if d.err == nil {
		t.Seal()
	}
	return t
}

// virtualHost decodes one host; seen are the domains of those before it, because each may occur once in a table. outer is what
// the table says of filters.
func (d *decoder) virtualHost(m *routev3.VirtualHost, seen map[string]bool, outer overrides) *conf.VirtualHost {
	d.only(m, "name", "domains", "routes", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
		"response_headers_to_remove", "typed_per_filter_config",
		// Without effect: attempt counts are for the upstream's logs.
		"include_request_attempt_count", "metadata")
	v := &conf.VirtualHost{Name: m.GetName()}
	if len(m.GetDomains()) == 0 {
		d.fail("domains: at least one is required")
	}
	each(d, "domains", m.GetDomains(), func(name string) {
		d.domain(name)
		key := strings.ToLower(name)
		if seen[key] {
			d.fail("%q occurs twice in the table", name)
		}
		seen[key] = true
		v.Domains = append(v.Domains, name)
	})
	v.HeaderChange = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	v.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	filters := d.perFilter(m.GetTypedPerFilterConfig(), outer)
	each(d, "routes", m.GetRoutes(), func(r *routev3.Route) { v.Routes = append(v.Routes, d.route(r, filters)) })
	return v
}

// domain checks that a star stands at one end only.
func (d *decoder) domain(s string) {
	inner := s
	if s != "*" {
		if inner = strings.TrimPrefix(s, "*"); inner == s {
			inner = strings.TrimSuffix(s, "*")
		}
		if inner == "" || strings.Contains(inner, "*") {
			d.fail("%q is not a domain", s)
		}
	}
}

func (d *decoder) route(m *routev3.Route, outer overrides) *conf.Route {
	d.only(m, "name", "match", "route", "redirect", "direct_response", "metadata", "decorator", "typed_per_filter_config",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		"stat_prefix") // without effect: routes are counted by what they lead to
	istio := metadata(m.GetMetadata(), "istio")
	r := &conf.Route{Name: m.GetName(), Object: istio("config"), Field: istio("field")}
	d.at("match", func() { r.Match = d.routeMatch(m.GetMatch()) })
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		d.at("route", func() { r.Forward = d.forward(a.Route) })
	case *routev3.Route_Redirect:
		d.at("redirect", func() { r.Redirect = d.redirect(a.Redirect) })
	case *routev3.Route_DirectResponse:
		d.at("direct_response", func() { r.Direct = d.direct(a.DirectResponse) })
	case nil:
		d.fail("action: is required")
	}
	d.at("decorator", func() {
		d.only(m.GetDecorator(), "operation", "propagate") // propagate: the operation is never taken from or given to peers
		r.Decorator = m.GetDecorator().GetOperation()
	})
	r.Request = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	r.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	filters := d.perFilter(m.GetTypedPerFilterConfig(), outer)
	r.Fault, r.CORS = filters.fault, filters.cors
	return r
}

func (d *decoder) routeMatch(m *routev3.RouteMatch) conf.Match {
	d.only(m, "prefix", "path", "safe_regex", "path_separated_prefix", "case_sensitive", "runtime_fraction", "headers",
		"query_parameters")
	out := conf.Match{CaseSensitive: m.GetCaseSensitive() == nil || m.GetCaseSensitive().GetValue()}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if out.Path = (conf.StringMatch{Kind: conf.PrefixOf, Value: p.Prefix}); p.Prefix == "" {
			out.Path = conf.StringMatch{}
		}
	case *routev3.RouteMatch_Path:
		out.Path = conf.StringMatch{Kind: conf.Exact, Value: p.Path}
	case *routev3.RouteMatch_SafeRegex:
		// case_sensitive says nothing of regular expressions, as in Envoy.
		out.Path, out.CaseSensitive = d.pattern("safe_regex", p.SafeRegex, true), true
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.Path, out.PathSeparatedPrefix = conf.StringMatch{Kind: conf.PrefixOf, Value: p.PathSeparatedPrefix}, true
		if p.PathSeparatedPrefix == "" || strings.HasSuffix(p.PathSeparatedPrefix, "/") || strings.ContainsAny(p.PathSeparatedPrefix, "?#") {
			d.at("path_separated_prefix", func() { d.fail("%q: may not be empty, end in a slash or have a query", p.PathSeparatedPrefix) })
		}
	default:
		d.fail("path_specifier: is required")
	}
	if !out.CaseSensitive && out.Path.Kind != conf.Any {
		out.Path.IgnoreCase, out.Path.Value = true, conf.Fold(out.Path.Value)
	}
	out.Headers = d.headerMatches("headers", m.GetHeaders())
	each(d, "query_parameters", m.GetQueryParameters(), func(q *routev3.QueryParameterMatcher) {
		out.Query = append(out.Query, d.queryMatch(q))
	})
	if f := m.GetRuntimeFraction(); f != nil {
		if out.Fraction = d.runtimeFraction("runtime_fraction", f); out.Fraction == 0 {
			d.at("runtime_fraction", func() { d.fail("a share of 0 never matches") })
		}
		if out.Fraction == million {
			out.Fraction = 0
		}
	}
	return out
}

func (d *decoder) queryMatch(m *routev3.QueryParameterMatcher) conf.QueryMatch {
	d.only(m, "name", "string_match", "present_match")
	out := conf.QueryMatch{Name: m.GetName()}
	if out.Name == "" {
		d.fail("name: is required")
	}
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_StringMatch:
		out.Value = d.stringMatch("string_match", s.StringMatch)
	case *routev3.QueryParameterMatcher_PresentMatch:
		if !s.PresentMatch {
			d.at("present_match", func() { d.fail("absence is not supported") })
		}
	}
	return out
}
