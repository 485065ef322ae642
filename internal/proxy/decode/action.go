package decode

import (
	"math"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// defaultRouteTimeout is Envoy's for routes that say nothing.
const defaultRouteTimeout = 15 * time.Second

func (d *decoder) forward(m *routev3.RouteAction) *conf.Forward {
	d.only(m, "cluster", "weighted_clusters", "prefix_rewrite", "path_rewrite", "regex_rewrite", "host_rewrite_literal", "timeout",
		"idle_timeout", "retry_policy", "request_mirror_policies", "hash_policy", "upgrade_configs",
		"max_grpc_timeout") // without effect: the timeout of a route never comes from the request
	f := &conf.Forward{Timeout: defaultRouteTimeout, IdleTimeout: d.duration("idle_timeout", m.GetIdleTimeout())}
	if m.GetTimeout() != nil {
		f.Timeout = d.duration("timeout", m.GetTimeout())
	}
	switch c := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Clusters, f.TotalWeight = []conf.WeightedCluster{{Cluster: d.clusterName("cluster", c.Cluster), Weight: 1}}, 1
	case *routev3.RouteAction_WeightedClusters:
		d.at("weighted_clusters", func() { f.Clusters, f.TotalWeight = d.split(c.WeightedClusters) })
	default:
		d.fail("cluster_specifier: is required")
	}
	f.PrefixRewrite, f.PathRewrite, f.HostRewrite = m.GetPrefixRewrite(), m.GetPathRewrite(), m.GetHostRewriteLiteral()
	f.RegexRewrite = d.rewrite("regex_rewrite", m.GetRegexRewrite())
	d.rewrites(f)
	if m.GetRetryPolicy() != nil {
		d.at("retry_policy", func() { f.Retry = d.retry(m.GetRetryPolicy()) })
	}
	each(d, "request_mirror_policies", m.GetRequestMirrorPolicies(), func(p *routev3.RouteAction_RequestMirrorPolicy) {
		f.Mirrors = append(f.Mirrors, d.mirror(p))
	})
	each(d, "hash_policy", m.GetHashPolicy(), func(p *routev3.RouteAction_HashPolicy) { f.Hash = append(f.Hash, d.hash(p)) })
	each(d, "upgrade_configs", m.GetUpgradeConfigs(), func(u *routev3.RouteAction_UpgradeConfig) {
		d.only(u, "upgrade_type", "enabled")
		d.upgradeType(u.GetUpgradeType())
		f.Upgrades = u.GetEnabled() == nil || u.GetEnabled().GetValue()
	})
	return f
}

func (d *decoder) clusterName(field, name string) string {
	if name == "" {
		d.at(field, func() { d.failed(errRequired) })
	}
	return name
}

// upgradeType: what is upgraded to passes through unseen, so that every protocol would do; CONNECT is another matter.
func (d *decoder) upgradeType(t string) {
	if !strings.EqualFold(t, "websocket") {
		d.at("upgrade_type", func() { d.fail("%q is not supported", t) })
	}
}

// rewrites refuses two rewrites of the path.
func (d *decoder) rewrites(f *conf.Forward) {
	n := 0
	for _, set := range []bool{f.PrefixRewrite != "", f.PathRewrite != "", f.RegexRewrite != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		d.fail("prefix_rewrite, path_rewrite and regex_rewrite exclude each other")
	}
}

func (d *decoder) split(m *routev3.WeightedCluster) (out []conf.WeightedCluster, total uint32) {
	d.only(m, "clusters", "total_weight", "runtime_key_prefix") // total_weight is the sum; there is no runtime
	sum := uint64(0)
	each(d, "clusters", m.GetClusters(), func(c *routev3.WeightedCluster_ClusterWeight) {
		d.only(c, "name", "weight", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
			"response_headers_to_remove", "host_rewrite_literal")
		w := conf.WeightedCluster{Cluster: d.clusterName("name", c.GetName()), Weight: c.GetWeight().GetValue()}
		w.HeaderChange = d.headerChange("request_headers", c.GetRequestHeadersToAdd(), c.GetRequestHeadersToRemove())
		if c.GetHostRewriteLiteral() != "" {
			d.at("host_rewrite_literal", func() { d.setHost(c.GetHostRewriteLiteral(), true, &w.HeaderChange) })
		}
		w.Response = d.headerChange("response_headers", c.GetResponseHeadersToAdd(), c.GetResponseHeadersToRemove())
		sum += uint64(w.Weight)
		out = append(out, w)
	})
	if sum == 0 || sum > math.MaxUint32 {
		d.at("clusters", func() { d.fail("weights add up to %d", sum) })
	}
	return out, uint32(sum)
}

func (d *decoder) mirror(m *routev3.RouteAction_RequestMirrorPolicy) conf.Mirror {
	d.only(m, "cluster", "runtime_fraction", "disable_shadow_host_suffix_append", "trace_sampled")
	if m.GetTraceSampled().GetValue() {
		d.at("trace_sampled", func() { d.fail("mirrored requests are not traced") })
	}
	out := conf.Mirror{Cluster: d.clusterName("cluster", m.GetCluster()), Fraction: million, KeepHost: m.GetDisableShadowHostSuffixAppend()}
	if f := m.GetRuntimeFraction(); f != nil {
		out.Fraction = d.runtimeFraction("runtime_fraction", f)
	}
	return out
}

// cookiePart refuses what would end an attribute of Set-Cookie.
func (d *decoder) cookiePart(field, s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == ';' || r >= 0x7f }) {
		d.at(field, func() { d.fail("%q does not fit into a cookie", s) })
	}
}

func (d *decoder) hash(m *routev3.RouteAction_HashPolicy) conf.HashPolicy {
	d.only(m, "header", "cookie", "connection_properties", "query_parameter", "terminal")
	out := conf.HashPolicy{Terminal: m.GetTerminal()}
	switch p := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		d.only(p.Header, "header_name")
		d.token("header.header_name", p.Header.GetHeaderName())
		out.Header = p.Header.GetHeaderName()
	case *routev3.RouteAction_HashPolicy_Cookie_:
		d.only(p.Cookie, "name", "ttl", "path", "attributes")
		d.token("cookie.name", p.Cookie.GetName())
		out.Cookie, out.CookiePath = p.Cookie.GetName(), p.Cookie.GetPath()
		out.CookieTTL, out.CookieGenerate = d.duration("cookie.ttl", p.Cookie.GetTtl()), p.Cookie.GetTtl() != nil
		d.cookiePart("cookie.path", out.CookiePath)
		each(d, "cookie.attributes", p.Cookie.GetAttributes(), func(a *routev3.RouteAction_HashPolicy_CookieAttribute) {
			d.token("name", a.GetName())
			d.cookiePart("value", a.GetValue())
			out.CookieAttributes = append(out.CookieAttributes, conf.HeaderValue{Name: a.GetName(), Value: a.GetValue()})
		})
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		d.only(p.ConnectionProperties, "source_ip")
		out.SourceIP = p.ConnectionProperties.GetSourceIp()
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		d.only(p.QueryParameter, "name")
		out.Query = p.QueryParameter.GetName()
	}
	if out.Header == "" && out.Cookie == "" && !out.SourceIP && out.Query == "" {
		d.fail("policy_specifier: is required")
	}
	return out
}

// retryConditions are the names of RetryPolicy.retry_on. Source: Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on.
var retryConditions = map[string]conf.RetryOn{
	"5xx": conf.On5xx, "gateway-error": conf.OnGatewayError, "reset": conf.OnReset, "connect-failure": conf.OnConnectFailure,
	"refused-stream": conf.OnRefusedStream, "retriable-4xx": conf.OnRetriable4xx, "retriable-status-codes": conf.OnStatus,
	"reset-before-request": conf.OnResetBeforeRequest, "cancelled": conf.OnGRPCCancelled, "deadline-exceeded": conf.OnGRPCDeadline,
	"internal": conf.OnGRPCInternal, "resource-exhausted": conf.OnGRPCExhausted, "unavailable": conf.OnGRPCUnavailable,
}

func (d *decoder) retry(m *routev3.RetryPolicy) *conf.Retry {
	d.only(m, "retry_on", "num_retries", "per_try_timeout", "retry_host_predicate", "retriable_status_codes", "retry_back_off",
		"retry_priority",
		"host_selection_retry_max_attempts") // without effect: the choice of another host needs no bound here
	r := &conf.Retry{Attempts: 1, PerTry: d.duration("per_try_timeout", m.GetPerTryTimeout())}
	if m.GetNumRetries() != nil {
		r.Attempts = m.GetNumRetries().GetValue()
	}
	for _, name := range strings.Split(m.GetRetryOn(), ",") {
		name = strings.TrimSpace(name)
		on, known := retryConditions[name]
		if !known && name != "" {
			d.at("retry_on", func() { d.fail("condition %q is not supported", name) })
		}
		r.On |= on
	}
	each(d, "retriable_status_codes", m.GetRetriableStatusCodes(), func(code uint32) {
		if code < 100 || code > 599 {
			d.fail("%d is not a status", code)
		}
		r.StatusCodes = append(r.StatusCodes, int(code))
	})
	each(d, "retry_host_predicate", m.GetRetryHostPredicate(), func(p *routev3.RetryPolicy_RetryHostPredicate) {
		d.only(p, "name", "typed_config") // the message of previous_hosts has no fields
		if p.GetName() != "envoy.retry_host_predicates.previous_hosts" {
			d.fail("predicate %q is not supported", p.GetName())
		}
		r.OtherHosts = true
	})
	if p := m.GetRetryPriority(); p != nil {
		d.at("retry_priority", func() {
			d.only(p, "name", "typed_config") // how often priorities are reconsidered: at every attempt
			if r.OtherLocalities = p.GetName() == "envoy.retry_priorities.previous_priorities"; !r.OtherLocalities {
				d.fail("%q is not supported", p.GetName())
			}
		})
	}
	d.at("retry_back_off", func() {
		b := m.GetRetryBackOff()
		d.only(b, "base_interval", "max_interval")
		r.BackOff, r.MaxBackOff = d.duration("base_interval", b.GetBaseInterval()), d.duration("max_interval", b.GetMaxInterval())
	})
	if r.BackOff == 0 {
		r.BackOff = 25 * time.Millisecond
	}
	if r.MaxBackOff == 0 {
		r.MaxBackOff = 10 * r.BackOff
	}
	return r
}

// redirectStatus translates RedirectAction.response_code.
var redirectStatus = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func (d *decoder) redirect(m *routev3.RedirectAction) *conf.Redirect {
	d.only(m, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
		"regex_rewrite", "response_code", "strip_query")
	r := &conf.Redirect{
		Status: redirectStatus[m.GetResponseCode()], Scheme: m.GetSchemeRedirect(), Host: m.GetHostRedirect(),
		Port: d.port("port_redirect", m.GetPortRedirect()), Path: m.GetPathRedirect(), PrefixRewrite: m.GetPrefixRewrite(),
		RegexRewrite: d.rewrite("regex_rewrite", m.GetRegexRewrite()), StripQuery: m.GetStripQuery(),
	}
	if m.GetHttpsRedirect() {
		r.Scheme = "https"
	}
	if r.Status == 0 {
		d.at("response_code", func() { d.fail("%d is not known", m.GetResponseCode()) })
	}
	for _, s := range []string{r.Scheme, r.Host, r.Path, r.PrefixRewrite} {
		if strings.ContainsAny(s, "\r\n\x00") {
			d.fail("contains a line break or NUL")
		}
	}
	return r
}

// maxDirectBody bounds the body of a direct response, in bytes.
const maxDirectBody = 64 << 10

func (d *decoder) direct(m *routev3.DirectResponseAction) *conf.Direct {
	d.only(m, "status", "body")
	if s := m.GetStatus(); s < 200 || s > 599 {
		d.at("status", func() { d.fail("%d is not a final status", s) })
	}
	b := d.bytes("body", m.GetBody())
	if len(b) > maxDirectBody {
		d.at("body", func() { d.fail("has %d bytes, more than %d", len(b), maxDirectBody) })
	}
	return &conf.Direct{Status: int(m.GetStatus()), Body: b}
}
