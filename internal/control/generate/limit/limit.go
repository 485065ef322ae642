// Package limit says rate limits in Envoy's filters: those that a proxy counts itself, and those that it asks a service about.
package limit

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	serviceconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	globallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// maxLimitValues bounds the values of a rule's keys that have a bucket at a time.
const maxLimitValues = 10_000

// Local is a limit that the proxy counts itself.
func Local(l *model.RateLimit, r *model.RateLimitRule) *locallimitv3.LocalRateLimit {
	share := func(percent uint32) *corev3.RuntimeFractionalPercent {
		return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: percent}}
	}
	actions, entries := limitActions(r)
	m := &locallimitv3.LocalRateLimit{
		StatPrefix: "ratelimit", Status: &typev3.HttpStatus{Code: typev3.StatusCode(l.Status)},
		FilterEnabled: share(100), FilterEnforced: share(100),
		Descriptors: []*ratelimitv3.LocalRateLimitDescriptor{{Entries: entries, TokenBucket: &typev3.TokenBucket{MaxTokens: r.Burst,
			TokensPerFill: wrapperspb.UInt32(r.Requests), FillInterval: durationpb.New(r.Per)}}},
		RateLimits:            []*routev3.RateLimit{{Actions: actions}},
		MaxDynamicDescriptors: wrapperspb.UInt32(maxLimitValues),
	}
	if r.DryRun {
		m.FilterEnforced = share(0)
	}
	if l.Report {
		m.EnableXRatelimitHeaders = ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03
	}
	return m
}

// limitActions describe the requests of a rule, by its name, by what they match, and by the keys, whose values are left open.
func limitActions(r *model.RateLimitRule) (actions []*routev3.RateLimit_Action, entries []*ratelimitv3.RateLimitDescriptor_Entry) {
	add := func(a *routev3.RateLimit_Action, key, value string) {
		actions = append(actions, a)
		entries = append(entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	add(genericKey("rule", r.Name), "rule", r.Name)
	if headers := limitMatch(r); len(headers) > 0 {
		add(headerValueMatch("match", "yes", headers), "match", "yes")
	}
	for _, k := range r.Keys {
		key := "remote_address"
		switch {
		case k.Header != "":
			key = "header:" + k.Header
		case k.Query != "":
			key = "query:" + k.Query
		case k.V4 > 0 || k.V6 > 0:
			key = "masked_remote_address"
		}
		add(keyAction(key, k), key, "")
	}
	return actions, entries
}

func genericKey(key, value string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: value}}}
}

func headerValueMatch(key, value string, headers []*routev3.HeaderMatcher) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_HeaderValueMatch_{
		HeaderValueMatch: &routev3.RateLimit_Action_HeaderValueMatch{DescriptorKey: key, DescriptorValue: value, Headers: headers}}}
}

// keyAction tells what a request has under a key. That of the client's address is fixed.
func keyAction(key string, k model.RateLimitKey) *routev3.RateLimit_Action {
	switch {
	case k.Header != "":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: k.Header, DescriptorKey: key}}}
	case k.Query != "":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_QueryParameters_{
			QueryParameters: &routev3.RateLimit_Action_QueryParameters{QueryParameterName: k.Query, DescriptorKey: key}}}
	case k.V4 == 0 && k.V6 == 0:
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{
			RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}}
	}
	mask := &routev3.RateLimit_Action_MaskedRemoteAddress{}
	if k.V4 > 0 {
		mask.V4PrefixMaskLen = wrapperspb.UInt32(k.V4)
	}
	if k.V6 > 0 {
		mask.V6PrefixMaskLen = wrapperspb.UInt32(k.V6)
	}
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{MaskedRemoteAddress: mask}}
}

// limitMatch turns a rule's conditions into conditions on headers, which all hold.
func limitMatch(r *model.RateLimitRule) []*routev3.HeaderMatcher {
	var out []*routev3.HeaderMatcher
	oneOf := func(name string, patterns []string, tail string) {
		if len(patterns) > 0 {
			out = append(out, limitHeader(name, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
				SafeRegex: &matcherv3.RegexMatcher{Regex: "(?:" + strings.Join(patterns, "|") + ")" + tail}}}))
		}
	}
	var methods, paths []string
	for _, m := range r.Methods {
		methods = append(methods, regexp.QuoteMeta(m))
	}
	for _, p := range r.Paths {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			paths = append(paths, regexp.QuoteMeta(prefix)+"[^?]*")
		} else {
			paths = append(paths, regexp.QuoteMeta(p))
		}
	}
	oneOf(":method", methods, "")
	oneOf(":path", paths, `(?:\?.*)?`)
	for _, h := range r.Headers {
		if h.Match.Present {
			out = append(out, &routev3.HeaderMatcher{Name: h.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}})
			continue
		}
		m := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: h.Match.Exact}}
		switch {
		case h.Match.Prefix != "":
			m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: h.Match.Prefix}
		case h.Match.Regex != "":
			m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: h.Match.Regex}}
		}
		out = append(out, limitHeader(h.Name, m))
	}
	return out
}

func limitHeader(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

// Global asks the service about each request once, with a description for each rule that has something to say.
func Global(l *model.RateLimit) *globallimitv3.RateLimit {
	s := l.Service
	m := &globallimitv3.RateLimit{
		Domain: s.Domain, FailureModeDeny: s.Deny, RateLimitedStatus: &typev3.HttpStatus{Code: typev3.StatusCode(l.Status)},
		RateLimitService: &serviceconfigv3.RateLimitServiceConfig{TransportApiVersion: corev3.ApiVersion_V3,
			GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: wire.OutboundCluster(s.Port, "", s.Host)}}}},
	}
	if s.Timeout > 0 {
		m.Timeout = durationpb.New(s.Timeout)
	}
	if l.Report {
		m.EnableXRatelimitHeaders = globallimitv3.RateLimit_DRAFT_VERSION_03
	}
	for i := range l.Rules {
		m.RateLimits = append(m.RateLimits, &routev3.RateLimit{Actions: descriptorActions(&l.Rules[i])})
	}
	return m
}

// descriptorActions describe the requests of a rule. The first entry with a value is told of those alone that match.
func descriptorActions(r *model.RateLimitRule) (actions []*routev3.RateLimit_Action) {
	headers := limitMatch(r)
	for _, e := range r.Entries {
		switch {
		case e.Value != "" && len(headers) > 0:
			actions = append(actions, headerValueMatch(e.Key, e.Value, headers))
			headers = nil
		case e.Value != "":
			actions = append(actions, genericKey(e.Key, e.Value))
		default:
			actions = append(actions, keyAction(e.Key, e.From))
		}
	}
	return actions
}
