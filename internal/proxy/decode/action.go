package decode

import (
	"math"
	"regexp"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templaterewritev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// defaultRouteTimeout is Envoy's for routes that say nothing.
const defaultRouteTimeout = 15 * time.Second

// forward decodes where a route leads. match is the route's, variables are those of its template; outer is what is inherited.
func (d *decoder) forward(m *routev3.RouteAction, match *conf.Match, variables []string, outer *overrides) *conf.Forward {
	d.Only(m, "cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code", "prefix_rewrite", "path_rewrite",
		"regex_rewrite", "path_rewrite_policy", "host_rewrite_literal", "host_rewrite_header", "host_rewrite_path_regex",
		"append_x_forwarded_host", "timeout", "idle_timeout", "max_stream_duration", "max_grpc_timeout", "grpc_timeout_offset",
		"retry_policy", "hedge_policy", "request_mirror_policies", "hash_policy", "upgrade_configs", "cors", "rate_limits",
		"include_vh_rate_limits", "priority",
		"early_data_policy") // without effect: nothing is sent early
	f := &conf.Forward{Timeout: defaultRouteTimeout, IdleTimeout: d.Duration("idle_timeout", m.GetIdleTimeout())}
	f.LimitRules, f.HostLimits = d.limitRules("rate_limits", m.GetRateLimits()), m.GetIncludeVhRateLimits().GetValue()
	if m.GetTimeout() != nil {
		f.Timeout = d.Duration("timeout", m.GetTimeout())
	}
	switch c := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Clusters, f.TotalWeight = []conf.WeightedCluster{{Cluster: d.clusterName("cluster", c.Cluster), Weight: 1}}, 1
	case *routev3.RouteAction_ClusterHeader:
		d.Token("cluster_header", c.ClusterHeader)
		f.ClusterHeader = c.ClusterHeader
	case *routev3.RouteAction_WeightedClusters:
		d.At("weighted_clusters", func() { f.Clusters, f.TotalWeight = d.split(c.WeightedClusters) })
	default:
		d.Fail("cluster_specifier: is required")
	}
	f.High = d.High(m.GetPriority())
	f.UnknownStatus = d.unknownStatus(m.GetClusterNotFoundResponseCode())
	d.pathRewrites(m, f, match, variables)
	d.hostRewrites(m, f)
	d.streamLimits(m, f)
	if f.Retry = outer.retry; m.GetRetryPolicy() != nil {
		d.At("retry_policy", func() { f.Retry = d.retry(m.GetRetryPolicy()) })
	}
	if f.Retry != nil && d.hedge(m.GetHedgePolicy(), outer.hedge) {
		hedged := *f.Retry // the policy may be the virtual host's
		hedged.Hedge, f.Retry = true, &hedged
	}
	if m.GetCors() != nil {
		d.At("cors", func() { outer.cors = d.oldCORS(m.GetCors()) })
	}
	f.Mirrors = d.mirrors(m.GetRequestMirrorPolicies(), outer.mirrors)
	walk.Each(d.Walk, "hash_policy", m.GetHashPolicy(), func(p *routev3.RouteAction_HashPolicy) { f.Hash = append(f.Hash, d.hash(p)) })
	walk.Each(d.Walk, "upgrade_configs", m.GetUpgradeConfigs(), func(u *routev3.RouteAction_UpgradeConfig) {
		d.Only(u, "upgrade_type", "enabled")
		d.upgradeType(u.GetUpgradeType())
		f.Upgrades = u.GetEnabled() == nil || u.GetEnabled().GetValue()
	})
	return f
}

func (d *decoder) clusterName(field, name string) string {
	if name == "" {
		d.At(field, func() { d.Failed(walk.ErrRequired) })
	}
	return name
}

// upgradeType: what is upgraded to passes through unseen, so that every protocol would do; CONNECT is another matter.
func (d *decoder) upgradeType(t string) {
	if !strings.EqualFold(t, "websocket") {
		d.At("upgrade_type", func() { d.Fail("%q is not supported", t) })
	}
}

func (d *decoder) unknownStatus(c routev3.RouteAction_ClusterNotFoundResponseCode) int {
	status, ok := map[routev3.RouteAction_ClusterNotFoundResponseCode]int{
		routev3.RouteAction_SERVICE_UNAVAILABLE: 503, routev3.RouteAction_NOT_FOUND: 404, routev3.RouteAction_INTERNAL_SERVER_ERROR: 500,
	}[c]
	if !ok {
		d.At("cluster_not_found_response_code", func() { d.Fail("%d is not known", c) })
	}
	return status
}

// operator is what newer Envoys would fill in; an escaped byte ("%2F") is none.
var operator = regexp.MustCompile(`%[A-Z][A-Z_]{2,}[(%]`)

func (d *decoder) pathRewrites(m *routev3.RouteAction, f *conf.Forward, match *conf.Match, variables []string) {
	f.PrefixRewrite, f.PathRewrite = m.GetPrefixRewrite(), m.GetPathRewrite()
	f.RegexRewrite = d.Rewrite("regex_rewrite", m.GetRegexRewrite())
	d.At("prefix_rewrite", func() { d.fieldValue(f.PrefixRewrite) })
	d.At("path_rewrite", func() { d.fieldValue(f.PathRewrite) })
	if operator.MatchString(f.PathRewrite) {
		d.At("path_rewrite", func() { d.Fail("%q has an operator, which is not supported here", f.PathRewrite) })
	}
	d.rewrites(f)
	p := m.GetPathRewritePolicy()
	if p == nil {
		return
	}
	d.At("path_rewrite_policy", func() {
		t := &templaterewritev3.UriTemplateRewriteConfig{}
		if d.Only(p, "name", "typed_config"); !d.Typed(p.GetTypedConfig(), t) {
			return
		}
		d.Only(t, "path_template_rewrite")
		by, err := templateRewrite(t.GetPathTemplateRewrite(), variables)
		switch {
		case match.Template == "":
			d.Fail("needs a match by path_match_policy")
		case err != nil:
			d.Failed(err)
		case f.PrefixRewrite+f.PathRewrite != "" || f.RegexRewrite != nil:
			d.Fail("and the other rewrites of the path exclude each other")
		}
		f.RegexRewrite = &conf.RegexRewrite{Pattern: match.Path, Substitution: by}
	})
}

func (d *decoder) hostRewrites(m *routev3.RouteAction, f *conf.Forward) {
	f.AppendHost = m.GetAppendXForwardedHost()
	switch h := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		f.HostRewrite = h.HostRewriteLiteral
		d.At("host_rewrite_literal", func() { d.fieldValue(f.HostRewrite) })
	case *routev3.RouteAction_HostRewriteHeader:
		d.Token("host_rewrite_header", h.HostRewriteHeader)
		f.HostRewriteHeader = h.HostRewriteHeader
	case *routev3.RouteAction_HostRewritePathRegex:
		f.HostRewriteRegex = d.Rewrite("host_rewrite_path_regex", h.HostRewritePathRegex)
	}
}

// streamLimits decodes what bounds a request beside the time-out, and how much of it a client of gRPC may ask for.
func (d *decoder) streamLimits(m *routev3.RouteAction, f *conf.Forward) {
	f.MaxGRPCTimeout = d.Duration("max_grpc_timeout", m.GetMaxGrpcTimeout())
	f.GRPCTimeoutOffset = d.Duration("grpc_timeout_offset", m.GetGrpcTimeoutOffset())
	s := m.GetMaxStreamDuration()
	if s == nil {
		return
	}
	d.At("max_stream_duration", func() {
		d.Only(s, "max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")
		if most := d.Duration("max_stream_duration", s.GetMaxStreamDuration()); most > 0 && (f.Timeout == 0 || most < f.Timeout) {
			f.Timeout = most
		}
		if s.GetGrpcTimeoutHeaderMax() != nil {
			f.MaxGRPCTimeout = d.Duration("grpc_timeout_header_max", s.GetGrpcTimeoutHeaderMax())
		}
		if s.GetGrpcTimeoutHeaderOffset() != nil {
			f.GRPCTimeoutOffset = d.Duration("grpc_timeout_header_offset", s.GetGrpcTimeoutHeaderOffset())
		}
	})
}

// mirrors decodes where copies go; without any, those of further out hold.
func (d *decoder) mirrors(ms []*routev3.RouteAction_RequestMirrorPolicy, outer []conf.Mirror) []conf.Mirror {
	if len(ms) == 0 {
		return outer
	}
	var out []conf.Mirror
	walk.Each(d.Walk, "request_mirror_policies", ms, func(m *routev3.RouteAction_RequestMirrorPolicy) { out = append(out, d.mirror(m)) })
	return out
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
		d.Fail("prefix_rewrite, path_rewrite and regex_rewrite exclude each other")
	}
}

func (d *decoder) split(m *routev3.WeightedCluster) (out []conf.WeightedCluster, total uint32) {
	d.Only(m, "clusters", "total_weight", "runtime_key_prefix") // there is no runtime
	sum := uint64(0)
	walk.Each(d.Walk, "clusters", m.GetClusters(), func(c *routev3.WeightedCluster_ClusterWeight) {
		d.Only(c, "name", "weight", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
			"response_headers_to_remove", "host_rewrite_literal")
		w := conf.WeightedCluster{Cluster: d.clusterName("name", c.GetName()), Weight: c.GetWeight().GetValue()}
		w.HeaderChange = d.headerChange("request_headers", c.GetRequestHeadersToAdd(), c.GetRequestHeadersToRemove())
		if c.GetHostRewriteLiteral() != "" {
			d.At("host_rewrite_literal", func() { d.setHost(c.GetHostRewriteLiteral(), true, &w.HeaderChange) })
		}
		w.Response = d.headerChange("response_headers", c.GetResponseHeadersToAdd(), c.GetResponseHeadersToRemove())
		sum += uint64(w.Weight)
		out = append(out, w)
	})
	if want := m.GetTotalWeight(); want != nil && uint64(want.GetValue()) != sum {
		d.At("total_weight", func() { d.Fail("is %d, and the weights add up to %d", want.GetValue(), sum) })
	}
	if sum == 0 || sum > math.MaxUint32 {
		d.At("clusters", func() { d.Fail("weights add up to %d", sum) })
	}
	return out, uint32(sum)
}

func (d *decoder) mirror(m *routev3.RouteAction_RequestMirrorPolicy) conf.Mirror {
	d.Only(m, "cluster", "runtime_fraction", "disable_shadow_host_suffix_append", "trace_sampled")
	if m.GetTraceSampled().GetValue() {
		d.At("trace_sampled", func() { d.Fail("mirrored requests are not traced") })
	}
	out := conf.Mirror{Cluster: d.clusterName("cluster", m.GetCluster()), Fraction: walk.Million, KeepHost: m.GetDisableShadowHostSuffixAppend()}
	if f := m.GetRuntimeFraction(); f != nil {
		out.Fraction = d.RuntimeFraction("runtime_fraction", f)
	}
	return out
}

// cookiePart refuses what would end an attribute of Set-Cookie.
func (d *decoder) cookiePart(field, s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == ';' || r >= 0x7f }) {
		d.At(field, func() { d.Fail("%q does not fit into a cookie", s) })
	}
}

func (d *decoder) hash(m *routev3.RouteAction_HashPolicy) conf.HashPolicy {
	d.Only(m, "header", "cookie", "connection_properties", "query_parameter", "terminal")
	out := conf.HashPolicy{Terminal: m.GetTerminal()}
	switch p := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		d.Only(p.Header, "header_name")
		d.Token("header.header_name", p.Header.GetHeaderName())
		out.Header = p.Header.GetHeaderName()
	case *routev3.RouteAction_HashPolicy_Cookie_:
		d.Only(p.Cookie, "name", "ttl", "path", "attributes")
		d.Token("cookie.name", p.Cookie.GetName())
		out.Cookie, out.CookiePath = p.Cookie.GetName(), p.Cookie.GetPath()
		out.CookieTTL, out.CookieGenerate = d.Duration("cookie.ttl", p.Cookie.GetTtl()), p.Cookie.GetTtl() != nil
		d.cookiePart("cookie.path", out.CookiePath)
		walk.Each(d.Walk, "cookie.attributes", p.Cookie.GetAttributes(), func(a *routev3.RouteAction_HashPolicy_CookieAttribute) {
			d.Token("name", a.GetName())
			d.cookiePart("value", a.GetValue())
			out.CookieAttributes = append(out.CookieAttributes, conf.HeaderValue{Name: a.GetName(), Value: a.GetValue()})
		})
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		d.Only(p.ConnectionProperties, "source_ip")
		out.SourceIP = p.ConnectionProperties.GetSourceIp()
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		d.Only(p.QueryParameter, "name")
		out.Query = p.QueryParameter.GetName()
	}
	if out.Header == "" && out.Cookie == "" && !out.SourceIP && out.Query == "" {
		d.Fail("policy_specifier: is required")
	}
	return out
}

// redirectStatus translates RedirectAction.response_code.
var redirectStatus = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func (d *decoder) redirect(m *routev3.RedirectAction) *conf.Redirect {
	d.Only(m, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
		"regex_rewrite", "response_code", "strip_query")
	r := &conf.Redirect{
		Status: redirectStatus[m.GetResponseCode()], Scheme: m.GetSchemeRedirect(), Host: m.GetHostRedirect(),
		Port: d.Port("port_redirect", m.GetPortRedirect()), Path: m.GetPathRedirect(), PrefixRewrite: m.GetPrefixRewrite(),
		RegexRewrite: d.Rewrite("regex_rewrite", m.GetRegexRewrite()), StripQuery: m.GetStripQuery(),
	}
	if m.GetHttpsRedirect() {
		r.Scheme = "https"
	}
	if r.Status == 0 {
		d.At("response_code", func() { d.Fail("%d is not known", m.GetResponseCode()) })
	}
	for _, s := range []string{r.Scheme, r.Host, r.Path, r.PrefixRewrite} {
		d.fieldValue(s)
	}
	return r
}

// maxDirectBody bounds the body of a direct response, in bytes.
const maxDirectBody = 64 << 10

func (d *decoder) direct(m *routev3.DirectResponseAction) *conf.Direct {
	d.Only(m, "status", "body")
	if s := m.GetStatus(); s < 200 || s > 599 {
		d.At("status", func() { d.Fail("%d is not a final status", s) })
	}
	b := d.Bytes("body", m.GetBody())
	if len(b) > maxDirectBody {
		d.At("body", func() { d.Fail("has %d bytes, more than %d", len(b), maxDirectBody) })
	}
	return &conf.Direct{Status: int(m.GetStatus()), Body: b}
}
