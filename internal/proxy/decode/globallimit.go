package decode

import (
	"cmp"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	globallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

const globalLimitFilter = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"

// defaultAskTime is Envoy's.
const defaultAskTime = 20 * time.Millisecond

func (d *decoder) globalLimit(m *globallimitv3.RateLimit) *conf.GlobalLimit {
	d.Only(m, "domain", "stage", "timeout", "failure_mode_deny", "rate_limited_as_resource_exhausted", "rate_limit_service",
		"enable_x_ratelimit_headers", "disable_x_envoy_ratelimited_header", "rate_limited_status", "response_headers_to_add", "status_on_error",
		"filter_enabled", "request_type", "rate_limits",
		"stat_prefix") // without effect: names of statistics
	l := &conf.GlobalLimit{Domain: m.GetDomain(), Stage: m.GetStage(), Timeout: cmp.Or(d.Duration("timeout", m.GetTimeout()), defaultAskTime),
		Deny: m.GetFailureModeDeny(), Exhausted: m.GetRateLimitedAsResourceExhausted(), Mark: !m.GetDisableXEnvoyRatelimitedHeader(), Enabled: walk.Million}
	d.given("domain", l.Domain)
	if l.Stage > maxStage {
		d.At("stage", func() { d.Fail("%d is more than %d", l.Stage, maxStage) })
	}
	if t := m.GetRequestType(); t != "" && t != "both" {
		d.At("request_type", func() { d.Fail("%q is not supported, only both is", t) })
	}
	switch v := m.GetEnableXRatelimitHeaders(); v {
	case globallimitv3.RateLimit_OFF:
	case globallimitv3.RateLimit_DRAFT_VERSION_03:
		l.Report = true
	default:
		d.At("enable_x_ratelimit_headers", func() { d.Fail("%s is not known", v) })
	}
	if f := m.GetFilterEnabled(); f != nil {
		l.Enabled = d.RuntimeFraction("filter_enabled", f)
	}
	l.Rules = d.limitRules("rate_limits", m.GetRateLimits())
	for i, r := range l.Rules {
		if r.Stage != 0 {
			d.At("rate_limits", func() { d.Fail("[%d].stage: a filter's own rules have no stages", i) })
		}
	}
	l.Status = d.limitStatus("rate_limited_status", m.GetRateLimitedStatus())
	l.ErrorStatus = d.errorStatus(m.GetStatusOnError())
	l.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), nil)
	d.At("rate_limit_service", func() {
		s := m.GetRateLimitService()
		d.Only(s, "grpc_service", "transport_api_version")
		if v := s.GetTransportApiVersion(); v != corev3.ApiVersion_V3 {
			d.At("transport_api_version", func() { d.Fail("%s is not supported, only V3 is", v) })
		}
		d.At("grpc_service", func() { d.limitService(s.GetGrpcService(), l) })
	})
	return l
}

// errorStatus is 500 unless it is given.
func (d *decoder) errorStatus(m *typev3.HttpStatus) int {
	d.At("status_on_error", func() { d.Only(m, "code") })
	if c := int(m.GetCode()); c >= 400 {
		return c
	}
	return 500
}

func (d *decoder) limitService(m *corev3.GrpcService, l *conf.GlobalLimit) {
	d.Only(m, "envoy_grpc", "timeout")
	d.At("envoy_grpc", func() {
		e := m.GetEnvoyGrpc()
		d.Only(e, "cluster_name", "authority") // authority has no effect: the service is told none
		l.Cluster = d.clusterName("cluster_name", e.GetClusterName())
	})
	if t := d.Duration("timeout", m.GetTimeout()); t > 0 {
		l.Timeout = min(l.Timeout, t)
	}
}
