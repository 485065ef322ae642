package proxyless

import (
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Routes gives what a client reads of a route table.
func Routes(t *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{Name: t.Name}
	for _, v := range t.VirtualHosts {
		host := &routev3.VirtualHost{Name: v.Name, Domains: v.Domains}
		for _, r := range v.Routes {
			host.Routes = append(host.Routes, routes(r, v.Domains)...)
		}
		out.VirtualHosts = append(out.VirtualHosts, host)
	}
	return out
}

// routes gives the routes that together match the calls that one matches; none where no call can be matched.
func routes(r *routev3.Route, authorities []string) []*routev3.Route {
	matches := calls(r.GetMatch(), authorities)
	var out []*routev3.Route
	for _, m := range matches {
		route := &routev3.Route{Name: r.Name, Match: m, Metadata: r.Metadata}
		setAction(route, r)
		if f := r.TypedPerFilterConfig[faultFilter]; f != nil {
			route.TypedPerFilterConfig = map[string]*anypb.Any{faultFilter: f}
		}
		out = append(out, route)
	}
	return out
}

// calls gives the conditions on a call that stand for one on a request. A call is a POST without query, whose authority is a name of
// its target.
func calls(m *routev3.RouteMatch, authorities []string) []*routev3.RouteMatch {
	if len(m.GetQueryParameters()) > 0 {
		return nil
	}
	out := &routev3.RouteMatch{PathSpecifier: m.GetPathSpecifier(), CaseSensitive: m.GetCaseSensitive(), RuntimeFraction: m.GetRuntimeFraction()}
	if p, ok := m.GetPathSpecifier().(*routev3.RouteMatch_PathSeparatedPrefix); ok {
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
			Regex: ignoring(m.GetCaseSensitive()) + regexp.QuoteMeta(p.PathSeparatedPrefix) + "(/.*)?"}}
	}
	all := []*routev3.RouteMatch{out}
	for _, h := range m.GetHeaders() {
		switch values := known(h.Name, authorities); {
		case values != nil && fulfilled(h, values):
		case values != nil:
			return nil
		case h.TreatMissingHeaderAsEmpty && h.InvertMatch && len(all) < maxTwins:
			all = withOrWithout(all, h)
		default:
			for _, m := range all {
				m.Headers = append(m.Headers, h)
			}
		}
	}
	return all
}

// maxTwins bounds the routes that one becomes.
const maxTwins = 16

// withOrWithout makes two conditions of each: a client takes no absent field for one with another value.
func withOrWithout(all []*routev3.RouteMatch, h *routev3.HeaderMatcher) []*routev3.RouteMatch {
	other := proto.CloneOf(h)
	other.TreatMissingHeaderAsEmpty = false
	absent := &routev3.HeaderMatcher{Name: h.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: false}}
	var out []*routev3.RouteMatch
	for _, m := range all {
		twin := proto.CloneOf(m)
		m.Headers, twin.Headers = append(m.Headers, absent), append(twin.Headers, other)
		out = append(out, m, twin)
	}
	return out
}

func ignoring(caseSensitive *wrapperspb.BoolValue) string {
	if caseSensitive != nil && !caseSensitive.Value {
		return "(?i)"
	}
	return ""
}

// known gives the values that a field has in every call; nil where they are the caller's.
func known(name string, authorities []string) []string {
	switch strings.ToLower(name) {
	case ":method":
		return []string{"POST"}
	case ":scheme":
		return []string{"http"}
	case ":authority", "host":
		return authorities
	}
	return nil
}

// fulfilled evaluates a condition on a field whose possible values are known.
func fulfilled(h *routev3.HeaderMatcher, values []string) bool {
	switch m := h.HeaderMatchSpecifier.(type) {
	case *routev3.HeaderMatcher_PresentMatch:
		return m.PresentMatch != h.InvertMatch
	case *routev3.HeaderMatcher_StringMatch:
		return slices.ContainsFunc(values, func(v string) bool { return v != "*" && matches(m.StringMatch, v) }) != h.InvertMatch
	}
	return false
}

func matches(m *matcherv3.StringMatcher, v string) bool {
	fold := func(s string) string {
		if m.IgnoreCase {
			return strings.ToLower(s)
		}
		return s
	}
	v = fold(v)
	switch p := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return v == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(v, fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(v, fold(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(v, fold(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := regexp.Compile("^(?:" + p.SafeRegex.GetRegex() + ")$")
		return err == nil && re.MatchString(v)
	}
	return false
}

// setAction keeps of a route's action where calls go, their time limit, repetition and key. Clients answer nothing by themselves: calls
// that would be answered fail as unavailable.
func setAction(out, r *routev3.Route) {
	a := r.GetRoute()
	if a == nil {
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 503}}
		return
	}
	kept := &routev3.RouteAction{ClusterSpecifier: a.ClusterSpecifier, MaxStreamDuration: a.MaxStreamDuration, RetryPolicy: retries(a.RetryPolicy)}
	if w := a.GetWeightedClusters(); w != nil {
		clusters := &routev3.WeightedCluster{}
		for _, c := range w.Clusters {
			clusters.Clusters = append(clusters.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: c.Name, Weight: c.Weight})
		}
		kept.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: clusters}
	}
	for _, p := range a.HashPolicy {
		if key := hashKey(p); key != nil {
			kept.HashPolicy = append(kept.HashPolicy, key)
		}
	}
	out.Action = &routev3.Route_Route{Route: kept}
}

// channelKey is the state by which clients know the channel that a call is made on (gRFC A42).
const channelKey = "io.grpc.channel_id"

// hashKey keeps keys of metadata. That of the client's address becomes its channel's; calls have neither cookies nor queries.
func hashKey(p *routev3.RouteAction_HashPolicy) *routev3.RouteAction_HashPolicy {
	switch {
	case p.GetHeader() != nil:
		return p
	case p.GetConnectionProperties().GetSourceIp():
		return &routev3.RouteAction_HashPolicy{Terminal: p.Terminal, PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
			FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: channelKey}}}
	}
	return nil
}

// retriable are the statuses of gRPC after which clients may repeat a call (gRFC A44).
var retriable = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

// retries keeps what names statuses of gRPC. Errors of HTTP that say that a server cannot be had become "unavailable", which is what
// a client takes them for. Nil where no status is repeated: calls that no server has seen, clients repeat anyway.
func retries(p *routev3.RetryPolicy) *routev3.RetryPolicy {
	var on []string
	add := func(s string) {
		if !slices.Contains(on, s) {
			on = append(on, s)
		}
	}
	for _, c := range strings.Split(p.GetRetryOn(), ",") {
		switch c = strings.TrimSpace(c); {
		case slices.Contains(retriable, c):
			add(c)
		case c == "5xx" || c == "gateway-error":
			add("unavailable")
		}
	}
	for _, s := range p.GetRetriableStatusCodes() {
		if s >= 502 && s <= 504 {
			add("unavailable")
		}
	}
	if len(on) == 0 || p.GetNumRetries() != nil && p.GetNumRetries().Value == 0 {
		return nil
	}
	return &routev3.RetryPolicy{RetryOn: strings.Join(on, ","), NumRetries: p.NumRetries, RetryBackOff: p.RetryBackOff}
}
