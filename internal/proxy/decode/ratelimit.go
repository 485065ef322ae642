package decode

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"math"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

const (
	localLimitFilter = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
	// defaultDynamic is Envoy's bound of the values of open entries, and maxDynamic ours.
	defaultDynamic = 20
	maxDynamic     = 1 << 20
	tooMany        = 429
)

// localLimit decodes a limit; name is the filter's.
func (d *decoder) localLimit(name string, m *locallimitv3.LocalRateLimit) *conf.LocalLimit {
	d.Only(m, "stat_prefix", "status", "token_bucket", "filter_enabled", "filter_enforced", "request_headers_to_add_when_not_enforced",
		"response_headers_to_add", "descriptors", "stage", "enable_x_ratelimit_headers", "vh_rate_limits", "always_consume_default_token_bucket",
		"rate_limited_as_resource_exhausted", "rate_limits", "max_dynamic_descriptors")
	l := &conf.LocalLimit{Filter: name, Stage: m.GetStage(), Exhausted: m.GetRateLimitedAsResourceExhausted(),
		AlwaysBucket: m.GetAlwaysConsumeDefaultTokenBucket() == nil || m.GetAlwaysConsumeDefaultTokenBucket().GetValue(),
		MaxDynamic:   defaultDynamic, VirtualHost: conf.HostRules(m.GetVhRateLimits())}
	if v := m.GetMaxDynamicDescriptors(); v != nil {
		if l.MaxDynamic = int(min(v.GetValue(), math.MaxInt32)); l.MaxDynamic > maxDynamic {
			d.At("max_dynamic_descriptors", func() { d.Fail("%d is more than %d", l.MaxDynamic, maxDynamic) })
		}
	}
	if m.GetTokenBucket() != nil {
		d.At("token_bucket", func() { l.Bucket = d.tokenBucket(m.GetTokenBucket()) })
	}
	if f := m.GetFilterEnabled(); f != nil {
		l.Enabled = d.RuntimeFraction("filter_enabled", f)
	}
	if f := m.GetFilterEnforced(); f != nil {
		l.Enforced = d.RuntimeFraction("filter_enforced", f)
	}
	l.Status = d.limitStatus("status", m.GetStatus())
	l.Unenforced = d.headerChange("request_headers", m.GetRequestHeadersToAddWhenNotEnforced(), nil)
	l.Response = d.headerChange("response_headers", m.GetResponseHeadersToAdd(), nil)
	switch v := m.GetEnableXRatelimitHeaders(); v {
	case ratelimitv3.XRateLimitHeadersRFCVersion_OFF:
	case ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03:
		l.Report = true
	default:
		d.At("enable_x_ratelimit_headers", func() { d.Fail("%s is not known", v) })
	}
	if l.VirtualHost > conf.IgnoreHostRules {
		d.At("vh_rate_limits", func() { d.Fail("%s is not known", m.GetVhRateLimits()) })
	}
	walk.Each(d.Walk, "descriptors", m.GetDescriptors(), func(v *ratelimitv3.LocalRateLimitDescriptor) {
		l.Descriptors = append(l.Descriptors, d.limitDescriptor(v))
	})
	l.Rules = d.limitRules("rate_limits", m.GetRateLimits())
	l.Key = d.limitKey(m)
	return l
}

// limitKey tells limits apart: by their place, and by what they say.
func (d *decoder) limitKey(m proto.Message) string {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		d.Failed(err)
	}
	sum := sha256.Sum256(raw)
	return d.resource + "|" + d.Path() + "|" + hex.EncodeToString(sum[:])
}

func (d *decoder) limitStatus(field string, m *typev3.HttpStatus) int {
	d.At(field, func() { d.Only(m, "code") })
	// As in Envoy a status that is no failure means the default.
	if c := int(m.GetCode()); c >= 400 {
		return c
	}
	return tooMany
}

func (d *decoder) tokenBucket(m *typev3.TokenBucket) *conf.TokenBucket {
	d.Only(m, "max_tokens", "tokens_per_fill", "fill_interval")
	b := &conf.TokenBucket{Max: m.GetMaxTokens(), Fill: 1, Interval: d.Duration("fill_interval", m.GetFillInterval())}
	if f := m.GetTokensPerFill(); f != nil {
		b.Fill = f.GetValue()
	}
	switch {
	case b.Max == 0 || b.Fill == 0:
		d.Fail("max_tokens and tokens_per_fill must be more than 0")
	case b.Interval <= 0:
		d.At("fill_interval", func() { d.Fail("must be more than 0") })
	case float64(b.Max)*float64(b.Interval)/float64(b.Fill) > math.MaxInt64/4:
		d.Fail("it takes longer than a lifetime to fill")
	}
	return b
}

func (d *decoder) limitDescriptor(m *ratelimitv3.LocalRateLimitDescriptor) (out conf.LimitDescriptor) {
	d.Only(m, "entries", "token_bucket")
	if len(m.GetEntries()) == 0 {
		d.Fail("entries: at least one is required")
	}
	walk.Each(d.Walk, "entries", m.GetEntries(), func(e *ratelimitv3.RateLimitDescriptor_Entry) {
		d.Only(e, "key", "value")
		if e.GetKey() == "" {
			d.At("key", func() { d.Failed(walk.ErrRequired) })
		}
		out.Entries = append(out.Entries, conf.LimitEntry{Key: e.GetKey(), Value: e.GetValue()})
	})
	d.At("token_bucket", func() {
		if m.GetTokenBucket() == nil {
			d.Failed(walk.ErrRequired)
			return
		}
		out.Bucket = *d.tokenBucket(m.GetTokenBucket())
	})
	return out
}

// maxStage is the highest stage of rules.
const maxStage = 10

func (d *decoder) limitRules(field string, ms []*routev3.RateLimit) (out []conf.LimitRule) {
	walk.Each(d.Walk, field, ms, func(m *routev3.RateLimit) {
		d.Only(m, "stage", "actions",
			"disable_key") // without effect: there is no runtime that would have the key
		r := conf.LimitRule{Stage: m.GetStage().GetValue()}
		if r.Stage > maxStage {
			d.At("stage", func() { d.Fail("%d is more than %d", r.Stage, maxStage) })
		}
		if len(m.GetActions()) == 0 {
			d.Fail("actions: at least one is required")
		}
		walk.Each(d.Walk, "actions", m.GetActions(), func(a *routev3.RateLimit_Action) { r.Actions = append(r.Actions, d.limitAction(a)) })
		out = append(out, r)
	})
	return out
}

func (d *decoder) limitAction(m *routev3.RateLimit_Action) (a conf.LimitAction) {
	switch v := m.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_SourceCluster_:
		d.Only(v.SourceCluster)
		return conf.LimitAction{Kind: conf.LimitSource, Key: "source_cluster"}
	case *routev3.RateLimit_Action_DestinationCluster_:
		d.Only(v.DestinationCluster)
		return conf.LimitAction{Kind: conf.LimitDestination, Key: "destination_cluster"}
	case *routev3.RateLimit_Action_RemoteAddress_:
		d.Only(v.RemoteAddress)
		return conf.LimitAction{Kind: conf.LimitRemote, Key: "remote_address"}
	case *routev3.RateLimit_Action_MaskedRemoteAddress_:
		return d.maskedAddress(v.MaskedRemoteAddress)
	case *routev3.RateLimit_Action_GenericKey_:
		d.Only(v.GenericKey, "descriptor_value", "descriptor_key")
		a = conf.LimitAction{Kind: conf.LimitGeneric, Key: cmp.Or(v.GenericKey.GetDescriptorKey(), "generic_key"), Value: v.GenericKey.GetDescriptorValue()}
		d.given("generic_key.descriptor_value", a.Value)
	case *routev3.RateLimit_Action_RequestHeaders_:
		d.Only(v.RequestHeaders, "header_name", "descriptor_key", "skip_if_absent")
		a = conf.LimitAction{Kind: conf.LimitHeader, Key: v.RequestHeaders.GetDescriptorKey(), Name: v.RequestHeaders.GetHeaderName(),
			SkipAbsent: v.RequestHeaders.GetSkipIfAbsent()}
		d.given("request_headers.header_name", a.Name)
	case *routev3.RateLimit_Action_QueryParameters_:
		d.Only(v.QueryParameters, "query_parameter_name", "descriptor_key", "skip_if_absent")
		a = conf.LimitAction{Kind: conf.LimitQuery, Key: v.QueryParameters.GetDescriptorKey(), Name: v.QueryParameters.GetQueryParameterName(),
			SkipAbsent: v.QueryParameters.GetSkipIfAbsent()}
		d.given("query_parameters.query_parameter_name", a.Name)
	case *routev3.RateLimit_Action_HeaderValueMatch_:
		h := v.HeaderValueMatch
		d.Only(h, "descriptor_key", "descriptor_value", "expect_match", "headers")
		a = conf.LimitAction{Kind: conf.LimitHeaders, Key: cmp.Or(h.GetDescriptorKey(), "header_match"), Value: h.GetDescriptorValue(),
			Expect: h.GetExpectMatch() == nil || h.GetExpectMatch().GetValue(), Headers: d.HeaderMatches("headers", h.GetHeaders())}
		d.given("header_value_match.descriptor_value", a.Value)
	case *routev3.RateLimit_Action_QueryParameterValueMatch_:
		q := v.QueryParameterValueMatch
		d.Only(q, "descriptor_key", "descriptor_value", "expect_match", "query_parameters")
		a = conf.LimitAction{Kind: conf.LimitParams, Key: cmp.Or(q.GetDescriptorKey(), "query_match"), Value: q.GetDescriptorValue(),
			Expect: q.GetExpectMatch() == nil || q.GetExpectMatch().GetValue()}
		walk.Each(d.Walk, "query_parameters", q.GetQueryParameters(), func(p *routev3.QueryParameterMatcher) { a.Query = append(a.Query, d.queryMatch(p)) })
		d.given("query_parameter_value_match.descriptor_value", a.Value)
	default:
		d.Fail("this kind of action is not supported")
	}
	d.given("descriptor_key", a.Key)
	return a
}

func (d *decoder) given(field, v string) {
	if v == "" {
		d.At(field, func() { d.Failed(walk.ErrRequired) })
	}
}

func (d *decoder) maskedAddress(m *routev3.RateLimit_Action_MaskedRemoteAddress) conf.LimitAction {
	d.Only(m, "v4_prefix_mask_len", "v6_prefix_mask_len")
	a := conf.LimitAction{Kind: conf.LimitRemote, Key: "masked_remote_address", Masked: true, V4: 32, V6: 128}
	if v := m.GetV4PrefixMaskLen(); v != nil {
		a.V4 = int(min(v.GetValue(), 1000))
	}
	if v := m.GetV6PrefixMaskLen(); v != nil {
		a.V6 = int(min(v.GetValue(), 1000))
	}
	if a.V4 > 32 || a.V6 > 128 {
		d.At("masked_remote_address", func() { d.Fail("a mask is longer than the address") })
	}
	return a
}
