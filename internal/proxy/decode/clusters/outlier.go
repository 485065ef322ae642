package clusters

import (
	"cmp"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) outlier(m *clusterv3.OutlierDetection) *conf.Outlier {
	d.Only(m, "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
		"enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
		"consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", "split_external_local_origin_errors",
		"consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
		"failure_percentage_threshold", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
		"failure_percentage_minimum_hosts", "failure_percentage_request_volume", "max_ejection_time", "max_ejection_time_jitter",
		"always_eject_one_host") // without effect: one may always be ejected
	number := func(v *wrapperspb.UInt32Value, otherwise uint32) uint32 {
		if v == nil {
			return otherwise
		}
		return v.GetValue()
	}
	enforce := func(field string, v *wrapperspb.UInt32Value, otherwise uint32) uint32 {
		n := number(v, otherwise)
		if n > 100 {
			d.At(field, func() { d.Fail("%d is no percentage", n) })
		}
		return n
	}
	o := &conf.Outlier{
		SplitLocalOrigin:   m.GetSplitExternalLocalOriginErrors(),
		Interval:           cmp.Or(d.Duration("interval", m.GetInterval()), 10*time.Second),
		BaseEjection:       cmp.Or(d.Duration("base_ejection_time", m.GetBaseEjectionTime()), 30*time.Second),
		MaxEjection:        cmp.Or(d.Duration("max_ejection_time", m.GetMaxEjectionTime()), 300*time.Second),
		EjectionJitter:     d.Duration("max_ejection_time_jitter", m.GetMaxEjectionTimeJitter()),
		MaxEjectionPercent: enforce("max_ejection_percent", m.GetMaxEjectionPercent(), 10),
	}
	o.Consecutive5xx = conf.Threshold{Count: number(m.GetConsecutive_5Xx(), 5),
		Enforce: enforce("enforcing_consecutive_5xx", m.GetEnforcingConsecutive_5Xx(), 100)}
	o.ConsecutiveGatewayError = conf.Threshold{Count: number(m.GetConsecutiveGatewayFailure(), 5),
		Enforce: enforce("enforcing_consecutive_gateway_failure", m.GetEnforcingConsecutiveGatewayFailure(), 0)}
	o.ConsecutiveLocalOrigin = conf.Threshold{Count: number(m.GetConsecutiveLocalOriginFailure(), 5),
		Enforce: enforce("enforcing_consecutive_local_origin_failure", m.GetEnforcingConsecutiveLocalOriginFailure(), 100)}
	o.SuccessRate = conf.RateThreshold{MinHosts: number(m.GetSuccessRateMinimumHosts(), 5), MinVolume: number(m.GetSuccessRateRequestVolume(), 100),
		Limit: number(m.GetSuccessRateStdevFactor(), 1900), Enforce: enforce("enforcing_success_rate", m.GetEnforcingSuccessRate(), 100)}
	o.LocalSuccessRate = o.SuccessRate
	o.LocalSuccessRate.Enforce = enforce("enforcing_local_origin_success_rate", m.GetEnforcingLocalOriginSuccessRate(), 100)
	o.FailurePercentage = conf.RateThreshold{MinHosts: number(m.GetFailurePercentageMinimumHosts(), 5),
		MinVolume: number(m.GetFailurePercentageRequestVolume(), 50), Limit: enforce("failure_percentage_threshold", m.GetFailurePercentageThreshold(), 85),
		Enforce: enforce("enforcing_failure_percentage", m.GetEnforcingFailurePercentage(), 0)}
	o.LocalFailurePercentage = o.FailurePercentage
	o.LocalFailurePercentage.Enforce = enforce("enforcing_failure_percentage_local_origin", m.GetEnforcingFailurePercentageLocalOrigin(), 0)
	return o
}

// errorCodes decodes a condition on responses: statuses, or one of several.
func (d *decoder) errorCodes(m *matcherv3.MatchPredicate) (codes []int) {
	switch r := m.GetRule().(type) {
	case *matcherv3.MatchPredicate_OrMatch:
		walk.Each(d.Walk, "or_match.rules", r.OrMatch.GetRules(), func(m *matcherv3.MatchPredicate) { codes = append(codes, d.errorCodes(m)...) })
	case *matcherv3.MatchPredicate_HttpResponseHeadersMatch:
		d.At("http_response_headers_match.headers", func() {
			h := r.HttpResponseHeadersMatch.GetHeaders()
			if len(h) != 1 {
				d.Fail("wants one field, has %d", len(h))
				return
			}
			f := d.HeaderMatch(h[0])
			code, err := strconv.Atoi(f.Value.Value)
			if f.Name != ":status" || f.Value.Kind != conf.Exact || f.Value.IgnoreCase || f.Present || f.Range != nil || f.Invert || f.MissingAsEmpty || err != nil {
				d.Fail("only an exact :status is supported")
			}
			codes = append(codes, code)
		})
	default:
		d.Fail("only http_response_headers_match and or_match are supported")
	}
	return codes
}
