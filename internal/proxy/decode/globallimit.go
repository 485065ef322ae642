package decode

import (
	"cmp"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	globallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

const globalLimitFilter = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"

// defaultAskTime is Envoy's.
const defaultAskTime = 20 * time.Millisecond

func (d *decoder) globalLimit(m *globallimitv3.RateLimit) *conf.GlobalLimit {
	d.only(m, "domain", "stage", "timeout", "failure_mode_deny", "rate_limited_as_resource_exhausted", "rate_limit_service",
		"enable_x_ratelimit_headers", "disable_x_envoy_ratelimited_header", "rate_limited_status", "response_headers_to_add", "status_on_error",
		"filter_enabled", "request_type", "rate_limits",
		"stat_prefix") // without effect: names of statistics
	l := &conf.GlobalLimit{Domain: m.GetDomain(), Stage: m.GetStage(), Timeout: cmp.Or(d.duration("timeout", m.GetTimeout()), defaultAskTime),
		Deny: m.GetFailureModeDeny(), Exhausted: m.GetRateLimitedAsResourceExhausted(), Mark: !m.GetDisableXEnvoyRatelimitedHeader(), Enabled: million}
	d.given("domain", l.Domain)
	if l.Stage > maxStage {
		d.at("stage", func() { d.fail("%d is more than %d", l.Stage, maxStage) })
	}
	if t := m.GetRequestType(); t != "" && t != "both" {
		d.at("request_type", func() { d.fail("%q is not supported, only both is", t) })
	}
	switch v := m.GetEnableXRatelimitHeaders(); v {
	case globallimitv3.RateLimit_OFF:
	case globallimitv3.RateLimit_DRAFT_VERSION_03:
		l.Report = true
	default:
		d.at("enable_x_ratelimit_headers", func() { d.fail("%s is not known", v) })
	}
	if f := m.GetFilterEnabled(); f != nil {
		l.Enabled = d.runtimeFraction("filter_enabled", f)
	}
	l.Rules = d.limitRules("rate_limits", m.GetRateLimits())
	for i, r := range l.Rules {
		if r.Stage != 0 {
			d.at("rate_limits", func() { d.fail("[%d].stage: a filter's own rules have no stages", i) })
		}
	}
	l.Status = d.limitStatus("rate_limited_status", m.GetRateLimitedStatus())
	l.ErrorStatus = d.errorStatus(m.GetStatusOnError())
	l.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), nil)
	d.at("rate_limit_service", func() {
		s := m.GetRateLimitService()
		d.only(s, "grpc_service", "transport_api_version")
		if v := s.GetTransportApiVersion(); v != corev3.ApiVersion_V3 {
			d.at("transport_api_version", func() { d.fail("%s is not supported, only V3 is", v) })
		}
		d.at("grpc_service", func() { d.limitService(s.GetGrpcService(), l) })
	})
	return l
}

// errorStatus is 500 unless it is given.
func (d *decoder) errorStatus(m *typev3.HttpStatus) int {
	d.at("status_on_error", func() { d.only(m, "code") })
	if c := int(m.GetCode()); c >= 400 {
		return c
	}
	return 500
}

func (d *decoder) limitService(m *corev3.GrpcService, l *conf.GlobalLimit) {
	d.only(m, "envoy_grpc", "timeout")
	d.at("envoy_grpc", func() {
		e := m.GetEnvoyGrpc()
		d.only(e, "cluster_name", "authority") // authority has no effect: the service is told none
		l.Cluster = d.clusterName("cluster_name", e.GetClusterName())
	})
	if t := d.duration("timeout", m.GetTimeout()); t > 0 {
		l.Timeout = min(l.Timeout, t)
	}
}
