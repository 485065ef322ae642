package decode

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	globallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) http(m *hcmv3.HttpConnectionManager) *conf.HTTP {
	d.Only(m, "stat_prefix", "codec_type", "rds", "route_config", "http_filters", "tracing", "common_http_protocol_options",
		"server_name", "server_header_transformation", "max_request_headers_kb", "use_remote_address", "access_log",
		"forward_client_cert_details", "upgrade_configs", "normalize_path", "merge_slashes", "path_with_escaped_slashes_action", "stream_idle_timeout",
		// Without effect: which parts of a certificate x-forwarded-client-cert tells (the proxy tells URI and hash); that 100
		// Continue is passed on, request ids are made and kept, which the proxy always does.
		"http3_protocol_options", "set_current_client_cert_details", "proxy_100_continue", "generate_request_id", "preserve_external_request_id")
	h := &conf.HTTP{
		StatPrefix: m.GetStatPrefix(), UseRemoteAddress: m.GetUseRemoteAddress().GetValue(), ServerName: m.GetServerName(),
		NormalizePath: m.GetNormalizePath().GetValue(), MergeSlashes: m.GetMergeSlashes(),
	}
	if t := m.GetCodecType(); t != hcmv3.HttpConnectionManager_AUTO && t != hcmv3.HttpConnectionManager_HTTP1 && t != hcmv3.HttpConnectionManager_HTTP2 && (!d.quic || t != hcmv3.HttpConnectionManager_HTTP3) {
		d.At("codec_type", func() { d.Fail("%s is not supported", t) })
	}
	d.At("http3_protocol_options", func() { d.Only(m.GetHttp3ProtocolOptions()) })
	d.routeSource(m, h)
	d.httpFilters(m.GetHttpFilters(), h)
	d.httpLimits(m, h)
	h.AccessLogs = d.accessLogs(m.GetAccessLog())
	d.At("tracing", func() { h.TraceSampling = d.tracing(m.GetTracing()) })
	h.EscapedSlashes = d.escapedSlashes(m.GetPathWithEscapedSlashesAction())
	h.ForwardClientCert = d.clientCertMode(m.GetForwardClientCertDetails())
	walk.Each(d.Walk, "upgrade_configs", m.GetUpgradeConfigs(), func(u *hcmv3.HttpConnectionManager_UpgradeConfig) {
		d.Only(u, "upgrade_type", "enabled")
		d.upgradeType(u.GetUpgradeType())
		h.Upgrades = u.GetEnabled() == nil || u.GetEnabled().GetValue()
	})
	return h
}

func (d *decoder) routeSource(m *hcmv3.HttpConnectionManager, h *conf.HTTP) {
	switch r := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		d.At("rds", func() {
			d.Only(r.Rds, "config_source", "route_config_name")
			d.Aggregated("config_source", r.Rds.GetConfigSource())
			if h.RouteName = r.Rds.GetRouteConfigName(); h.RouteName == "" {
				d.At("route_config_name", func() { d.Failed(walk.ErrRequired) })
			}
		})
	case *hcmv3.HttpConnectionManager_RouteConfig:
		d.At("route_config", func() { h.Routes = d.routes(r.RouteConfig) })
	default:
		d.Fail("route_specifier: is required")
	}
}

// httpFilters decodes the filters; the router must be the last.
func (d *decoder) httpFilters(ms []*hcmv3.HttpFilter, h *conf.HTTP) {
	routed := false
	walk.Each(d.Walk, "http_filters", ms, func(m *hcmv3.HttpFilter) {
		if routed {
			d.Fail("comes after the router")
		}
		d.Only(m, "name", "typed_config")
		d.TypedConfig(m.GetTypedConfig(), func() { routed = d.httpFilter(m, h) })
	})
	if !routed {
		d.At("http_filters", func() { d.Fail("do not end in the router") })
	}
}

func (d *decoder) httpFilter(m *hcmv3.HttpFilter, h *conf.HTTP) (router bool) {
	a := m.GetTypedConfig()
	switch string(a.MessageName()) {
	case "envoy.extensions.filters.http.router.v3.Router":
		v := &routerv3.Router{}
		if d.Typed(a, v) {
			// Without effect: what Envoy counts, and spans of its own.
			d.Only(v, "suppress_envoy_headers", "dynamic_stats", "start_child_span")
			h.Discreet = v.GetSuppressEnvoyHeaders()
		}
		return true
	case "envoy.extensions.filters.http.fault.v3.HTTPFault":
		if v := (&faultv3.HTTPFault{}); d.Typed(a, v) {
			d.Only(v) // faults belong to routes
			h.Fault = true
		}
	case "envoy.extensions.filters.http.stateful_session.v3.StatefulSession":
		if v := (&sessionv3.StatefulSession{}); d.Typed(a, v) {
			d.Only(v) // what routes say counts
			h.Sessions = true
		}
	case "envoy.extensions.filters.http.cors.v3.Cors":
		if v := (&corsv3.Cors{}); d.Typed(a, v) {
			d.Only(v) // what is allowed belongs to routes
			h.CORS = true
		}
	case "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb":
		if v := (&grpcwebv3.GrpcWeb{}); d.Typed(a, v) {
			d.Only(v)
			h.GRPCWeb = true
		}
	case "envoy.extensions.filters.http.rbac.v3.RBAC":
		if v := (&rbacv3.RBAC{}); d.Typed(a, v) {
			h.RBAC = append(h.RBAC, d.httpPolicies(m.GetName(), v)...)
		}
	case globalLimitFilter:
		if v := (&globallimitv3.RateLimit{}); d.Typed(a, v) {
			h.GlobalLimits = append(h.GlobalLimits, d.globalLimit(v))
		}
	case localLimitFilter:
		if v := (&locallimitv3.LocalRateLimit{}); d.Typed(a, v) {
			h.Limits = append(h.Limits, d.localLimit(m.GetName(), v))
		}
	default:
		d.Fail("filter %q of type %q is not supported", m.GetName(), a.GetTypeUrl())
	}
	return false
}

// maxHeaderKB is the largest max_request_headers_kb that Envoy takes.
const maxHeaderKB = 8192

func (d *decoder) httpLimits(m *hcmv3.HttpConnectionManager, h *conf.HTTP) {
	d.At("common_http_protocol_options", func() {
		o := m.GetCommonHttpProtocolOptions()
		d.Only(o, "idle_timeout", "headers_with_underscores_action")
		h.IdleTimeout = d.Duration("idle_timeout", o.GetIdleTimeout())
		h.Underscores = d.underscores(o.GetHeadersWithUnderscoresAction())
	})
	if h.StreamIdle = d.Duration("stream_idle_timeout", m.GetStreamIdleTimeout()); h.StreamIdle == 0 && m.GetStreamIdleTimeout() != nil {
		h.StreamIdle = -1
	}
	kb := m.GetMaxRequestHeadersKb().GetValue()
	if kb > maxHeaderKB {
		d.At("max_request_headers_kb", func() { d.Fail("%d is more than %d", kb, maxHeaderKB) })
	}
	h.MaxHeaderBytes = int(kb) << 10
	switch t := m.GetServerHeaderTransformation(); t {
	case hcmv3.HttpConnectionManager_OVERWRITE:
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		h.KeepServer = true
	default:
		d.At("server_header_transformation", func() { d.Fail("%s is not supported", t) })
	}
}

func (d *decoder) escapedSlashes(a hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction) conf.EscapedSlashes {
	switch a {
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
		return conf.KeepEscaped
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		return conf.RefuseEscaped
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		return conf.RedirectUnescaped
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		return conf.Unescape
	}
	d.At("path_with_escaped_slashes_action", func() { d.Fail("%d is not known", a) })
	return conf.KeepEscaped
}

func (d *decoder) underscores(a corev3.HttpProtocolOptions_HeadersWithUnderscoresAction) conf.UnderscoreAction {
	switch a {
	case corev3.HttpProtocolOptions_ALLOW:
		return conf.AllowUnderscores
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		return conf.RefuseUnderscores
	case corev3.HttpProtocolOptions_DROP_HEADER:
		return conf.DropUnderscores
	}
	d.At("headers_with_underscores_action", func() { d.Fail("%d is not known", a) })
	return conf.AllowUnderscores
}

func (d *decoder) tracing(m *hcmv3.HttpConnectionManager_Tracing) float64 {
	// Without effect: what clients and operators may force; spans carry the facts that they need by themselves.
	d.Only(m, "random_sampling", "client_sampling", "overall_sampling", "verbose")
	if m == nil {
		return 0
	}
	if m.GetRandomSampling() == nil {
		return 1
	}
	return d.Percent("random_sampling", m.GetRandomSampling())
}

func (d *decoder) clientCertMode(m hcmv3.HttpConnectionManager_ForwardClientCertDetails) conf.ClientCertMode {
	switch m {
	case hcmv3.HttpConnectionManager_SANITIZE:
		return conf.SanitizeClientCert
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		return conf.AppendClientCert
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		return conf.SanitizeSetClientCert
	}
	d.At("forward_client_cert_details", func() { d.Fail("%s is not supported", m) })
	return conf.SanitizeClientCert
}
