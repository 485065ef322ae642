package traffic

import (
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// errorCodes says which responses count as errors; nil for those from 500 on.
func errorCodes(o *model.Outlier) *upstreamsv3.HttpProtocolOptions_OutlierDetection {
	if o == nil || len(o.ErrorCodes) == 0 {
		return nil
	}
	var rules []*matcherv3.MatchPredicate
	for _, code := range o.ErrorCodes {
		rules = append(rules, &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &matcherv3.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{{Name: ":status",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: message.Exactly(strconv.Itoa(int(code)), false)}}}}}})
	}
	if len(rules) == 1 {
		return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: rules[0]}
	}
	return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &matcherv3.MatchPredicate{
		Rule: &matcherv3.MatchPredicate_OrMatch{OrMatch: &matcherv3.MatchPredicate_MatchSet{Rules: rules}}}}
}

// Outlier translates outlier detection as Istio does: only what is asked for ejects, and success rates never do.
func Outlier(o *model.Outlier) *clusterv3.OutlierDetection {
	out := &clusterv3.OutlierDetection{EnforcingSuccessRate: wrapperspb.UInt32(0)}
	enforce := func(n *uint32) (threshold, share *wrapperspb.UInt32Value) {
		if n == nil {
			return nil, nil
		}
		if *n == 0 {
			return wrapperspb.UInt32(0), wrapperspb.UInt32(0)
		}
		return wrapperspb.UInt32(*n), wrapperspb.UInt32(100)
	}
	out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = enforce(o.Consecutive5xx)
	out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = enforce(o.ConsecutiveGateway)
	if o.SplitLocalOrigin {
		out.SplitExternalLocalOriginErrors = true
		out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = enforce(o.ConsecutiveLocal)
		out.EnforcingLocalOriginSuccessRate = wrapperspb.UInt32(0)
	}
	if o.Interval > 0 {
		out.Interval = durationpb.New(o.Interval)
	}
	if o.BaseEjection > 0 {
		out.BaseEjectionTime = durationpb.New(o.BaseEjection)
	}
	if o.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = wrapperspb.UInt32(o.MaxEjectionPercent)
	}
	return out
}
