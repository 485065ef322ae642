package decode

import (
	"cmp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) routes(m *routev3.RouteConfiguration) *conf.RouteTable {
	d.Only(m, "name", "virtual_hosts", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
		"response_headers_to_remove", "ignore_port_in_host_matching", "typed_per_filter_config",
		"request_mirror_policies", "most_specific_header_mutations_wins",
		// Without effect: a cluster that is not there answers with 503 in any case; the rest is said of responses that are
		// bounded by the message, or for people.
		"validate_clusters", "max_direct_response_body_size_bytes", "metadata")
	d.resource = cmp.Or(d.resource, "routes "+m.GetName())
	t := &conf.RouteTable{Name: m.GetName(), IgnorePort: m.GetIgnorePortInHostMatching(), SpecificLast: m.GetMostSpecificHeaderMutationsWins()}
	t.Request = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	t.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	outer := d.perFilter(m.GetTypedPerFilterConfig(), overrides{mirrors: d.mirrors(m.GetRequestMirrorPolicies(), nil)})
	seen := map[string]bool{}
	walk.Each(d.Walk, "virtual_hosts", m.GetVirtualHosts(), func(v *routev3.VirtualHost) {
		t.Hosts = append(t.Hosts, d.virtualHost(v, seen, outer))
	})
	if _, err := d.Problem(); err == nil {
		t.Seal()
	}
	return t
}

// virtualHost decodes one host; seen are the domains of those before it, because each may occur once in a table. outer is what
// the table says.
func (d *decoder) virtualHost(m *routev3.VirtualHost, seen map[string]bool, outer overrides) *conf.VirtualHost {
	d.Only(m, "name", "domains", "routes", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
		"response_headers_to_remove", "typed_per_filter_config", "require_tls", "cors", "retry_policy", "hedge_policy", "request_mirror_policies",
		"include_request_attempt_count", "include_attempt_count_in_response", "rate_limits",
		// Without effect: what Envoy counts by path, what it keeps of bodies for retries, and facts for people.
		"virtual_clusters", "per_request_buffer_limit_bytes", "metadata")
	v := &conf.VirtualHost{Name: m.GetName(), AttemptCount: m.GetIncludeRequestAttemptCount(), AttemptCountBack: m.GetIncludeAttemptCountInResponse()}
	if len(m.GetDomains()) == 0 {
		d.Fail("domains: at least one is required")
	}
	walk.Each(d.Walk, "domains", m.GetDomains(), func(name string) {
		d.domain(name)
		key := strings.ToLower(name)
		if seen[key] {
			d.Fail("%q occurs twice in the table", name)
		}
		seen[key] = true
		v.Domains = append(v.Domains, name)
	})
	v.LimitRules = d.limitRules("rate_limits", m.GetRateLimits())
	v.HeaderChange = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	v.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	if v.Routes = d.requireTLS(m.GetRequireTls()); m.GetCors() != nil {
		d.At("cors", func() { outer.cors = d.oldCORS(m.GetCors()) })
	}
	if m.GetRetryPolicy() != nil {
		d.At("retry_policy", func() { outer.retry = d.retry(m.GetRetryPolicy()) })
	}
	outer.hedge = d.hedge(m.GetHedgePolicy(), outer.hedge)
	outer.mirrors = d.mirrors(m.GetRequestMirrorPolicies(), outer.mirrors)
	outer = d.perFilter(m.GetTypedPerFilterConfig(), outer)
	walk.Each(d.Walk, "routes", m.GetRoutes(), func(r *routev3.Route) { v.Routes = append(v.Routes, d.route(r, outer)) })
	return v
}

// requireTLS makes a route of its own of what a host asks for: clients without TLS are sent away before any other route is tried.
// All clients are external to Envoy's mind that have not proven otherwise, so that both demands mean the same.
func (d *decoder) requireTLS(v routev3.VirtualHost_TlsRequirementType) []*conf.Route {
	switch v {
	case routev3.VirtualHost_NONE:
		return nil
	case routev3.VirtualHost_EXTERNAL_ONLY, routev3.VirtualHost_ALL:
		https := conf.StringMatch{Kind: conf.Exact, Value: "https"}
		return []*conf.Route{{Name: "require_tls", Redirect: &conf.Redirect{Status: 301, Scheme: "https"},
			Match: conf.Match{CaseSensitive: true, Headers: []conf.HeaderMatch{{Name: "x-forwarded-proto", Value: https, Invert: true, MissingAsEmpty: true}}}}}
	}
	d.At("require_tls", func() { d.Fail("%d is not known", v) })
	return nil
}

// domain checks that a star stands at one end only.
func (d *decoder) domain(s string) {
	inner := s
	if s != "*" {
		if inner = strings.TrimPrefix(s, "*"); inner == s {
			inner = strings.TrimSuffix(s, "*")
		}
		if inner == "" || strings.Contains(inner, "*") {
			d.Fail("%q is not a domain", s)
		}
	}
}

func (d *decoder) route(m *routev3.Route, outer overrides) *conf.Route {
	d.Only(m, "name", "match", "route", "redirect", "direct_response", "metadata", "decorator", "typed_per_filter_config",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		"stat_prefix", "per_request_buffer_limit_bytes", "request_body_buffer_limit",
		"tracing") // without effect: routes are counted by what they lead to, bodies are not collected, and the listener's sampling counts
	istio := walk.Metadata(m.GetMetadata(), "istio")
	r := &conf.Route{Name: m.GetName(), Object: istio("config"), Field: istio("field")}
	var variables []string
	d.At("match", func() { r.Match, variables = d.routeMatch(m.GetMatch()) })
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		d.At("route", func() { r.Forward = d.forward(a.Route, &r.Match, variables, &outer) })
	case *routev3.Route_Redirect:
		d.At("redirect", func() { r.Redirect = d.redirect(a.Redirect) })
	case *routev3.Route_DirectResponse:
		d.At("direct_response", func() { r.Direct = d.direct(a.DirectResponse) })
	case nil:
		d.Fail("action: is required")
	}
	d.At("decorator", func() {
		d.Only(m.GetDecorator(), "operation", "propagate") // propagate: the operation is never taken from or given to peers
		r.Decorator = m.GetDecorator().GetOperation()
	})
	r.Request = d.headerChange("request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove())
	r.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove())
	filters := d.perFilter(m.GetTypedPerFilterConfig(), outer)
	r.Fault, r.CORS, r.Session, r.Limits, r.RBAC = filters.fault, filters.cors, filters.session, filters.limits, filters.rbac
	return r
}
