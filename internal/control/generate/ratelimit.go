package generate

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
)

// maxLimitValues bounds the values of a rule's keys that have a bucket at a time.
const maxLimitValues = 10_000

// rateLimits gives a filter for each rule that holds for the node's workload, and one for all rules for a service.
func (g *Generator) rateLimits() []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, l := range g.mesh.RateLimits(g.node.Namespace) {
		if l.Namespace != "" && l.Namespace != g.node.Namespace || !subsetOf(l.Selector, g.node.Labels) {
			continue
		}
		name := "ratelimit/" + l.Ref.Namespace + "/" + l.Ref.Name
		if l.Service != nil {
			if !g.serves(l.Service.Host) {
				out = append(out, httpFilter(name, globalLimit(l)))
			}
			continue
		}
		for i := range l.Rules {
			out = append(out, httpFilter(name+"/"+l.Rules[i].Name, localLimit(l, &l.Rules[i])))
		}
	}
	return out
}

func localLimit(l *model.RateLimit, r *model.RateLimitRule) *locallimitv3.LocalRateLimit {
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
