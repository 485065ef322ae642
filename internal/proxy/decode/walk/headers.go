package walk

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// HeaderMatch decodes a condition on a field.
func (w *Walk) HeaderMatch(m *routev3.HeaderMatcher) conf.HeaderMatch {
	w.Only(m, "name", "exact_match", "safe_regex_match", "present_match", "prefix_match", "suffix_match", "contains_match",
		"string_match", "range_match", "invert_match", "treat_missing_header_as_empty")
	out := conf.HeaderMatch{Name: w.MatchedName(m.GetName()), Invert: m.GetInvertMatch(), MissingAsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		out.Present = true
	case *routev3.HeaderMatcher_PresentMatch:
		out.Present = s.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		w.Only(s.RangeMatch, "start", "end")
		out.Range = &conf.Range{Start: s.RangeMatch.GetStart(), End: s.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_StringMatch:
		out.Value = w.StringMatch("string_match", s.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		out.Value = conf.StringMatch{Kind: conf.Exact, Value: s.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		out.Value = w.NotEmpty(conf.PrefixOf, s.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		out.Value = w.NotEmpty(conf.Suffix, s.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		out.Value = w.NotEmpty(conf.Contains, s.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.Value = w.Pattern("safe_regex_match", s.SafeRegexMatch, true)
	}
	return out
}

// HeaderMatches decodes conditions on fields.
func (w *Walk) HeaderMatches(field string, ms []*routev3.HeaderMatcher) (out []conf.HeaderMatch) {
	Each(w, field, ms, func(m *routev3.HeaderMatcher) { out = append(out, w.HeaderMatch(m)) })
	return out
}

// MatchedName checks a field name that conditions may read, and gives it in lower case.
func (w *Walk) MatchedName(name string) string {
	switch name {
	case ":method", ":authority", ":path", ":scheme", ":status": // :status is a response's
	default:
		w.Token("name", name)
	}
	return strings.ToLower(name)
}

// Token checks the name of a field (RFC 9110 section 5.1).
func (w *Walk) Token(field, s string) {
	ok := s != ""
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			ok = false
		}
	}
	if !ok {
		w.At(field, func() { w.Fail("%q is not the name of a header field", s) })
	}
}
