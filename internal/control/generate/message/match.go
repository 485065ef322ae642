// Package message makes what Envoy's messages are built of: matches, addresses, filters, metadata. It knows neither node nor mesh.
package message

import (
	"cmp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
)

// RouteMatch translates the conditions of a match; nil matches everything.
func RouteMatch(m *model.HTTPMatch) *routev3.RouteMatch {
	out := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	if m == nil {
		return out
	}
	setPath(out, m.Path)
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h.Name, h.Match))
	}
	for _, h := range m.WithoutHeaders {
		out.Headers = append(out.Headers, without(headerMatch(h.Name, h.Match)))
	}
	slices.SortStableFunc(out.Headers, func(a, b *routev3.HeaderMatcher) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range []model.NamedMatch{{Name: ":method", Match: m.Method}, {Name: ":authority", Match: m.Authority}, {Name: ":scheme", Match: m.Scheme}} {
		if !p.Match.IsZero() {
			out.Headers = append(out.Headers, headerMatch(p.Name, p.Match))
		}
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, queryMatch(q))
	}
	slices.SortStableFunc(out.QueryParameters, func(a, b *routev3.QueryParameterMatcher) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func setPath(out *routev3.RouteMatch, m model.StringMatch) {
	switch {
	case m.Exact != "" || m.IsExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Exact}
	case m.SegmentPrefix && strings.TrimRight(m.Prefix, "/") != "":
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: strings.TrimRight(m.Prefix, "/")}
	case m.SegmentPrefix:
		// "/" is every path.
	case m.Prefix != "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Prefix}
	case m.Regex != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: Regex(m.Regex)}
	}
	if m.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(false)
	}
}

// Regex matches by a regular expression.
func Regex(pattern string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: pattern} }

// asksPresence: Istio takes the regular expression "*", which is none, for presence.
func asksPresence(m model.StringMatch) bool { return m.Present || m.IsZero() || m.Regex == "*" }

func headerMatch(name string, m model.StringMatch) *routev3.HeaderMatcher {
	if asksPresence(m) {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: StringMatch(m)}}
}

// without inverts a header match. An absent field must match too, which for values needs the absent one to count as empty.
func without(h *routev3.HeaderMatcher) *routev3.HeaderMatcher {
	h.InvertMatch = true
	if _, present := h.HeaderMatchSpecifier.(*routev3.HeaderMatcher_PresentMatch); !present {
		h.TreatMissingHeaderAsEmpty = true
	}
	return h
}

func queryMatch(q model.NamedMatch) *routev3.QueryParameterMatcher {
	if asksPresence(q.Match) {
		return &routev3.QueryParameterMatcher{Name: q.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.QueryParameterMatcher{Name: q.Name,
		QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: StringMatch(q.Match)}}
}

// StringMatch is a condition on a string.
func StringMatch(m model.StringMatch) *matcherv3.StringMatcher {
	switch {
	case m.Prefix != "":
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: m.Prefix}, IgnoreCase: m.IgnoreCase}
	case m.Regex != "":
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: Regex(m.Regex)}}
	}
	return Exactly(m.Exact, m.IgnoreCase)
}

// Exactly matches one string.
func Exactly(s string, ignoreCase bool) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}, IgnoreCase: ignoreCase}
}
