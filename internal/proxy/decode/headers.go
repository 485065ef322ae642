package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// headerMatch decodes a condition on a field.
func (d *decoder) headerMatch(m *routev3.HeaderMatcher) conf.HeaderMatch {
	d.only(m, "name", "exact_match", "safe_regex_match", "present_match", "prefix_match", "suffix_match", "contains_match",
		"string_match", "range_match", "invert_match", "treat_missing_header_as_empty")
	out := conf.HeaderMatch{Name: d.matchedName(m.GetName()), Invert: m.GetInvertMatch(), MissingAsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		out.Present = true
	case *routev3.HeaderMatcher_PresentMatch:
		out.Present = s.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		d.only(s.RangeMatch, "start", "end")
		out.Range = &conf.Range{Start: s.RangeMatch.GetStart(), End: s.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_StringMatch:
		out.Value = d.stringMatch("string_match", s.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		out.Value = conf.StringMatch{Kind: conf.Exact, Value: s.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		out.Value = d.notEmpty(conf.PrefixOf, s.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		out.Value = d.notEmpty(conf.Suffix, s.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		out.Value = d.notEmpty(conf.Contains, s.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.Value = d.pattern("safe_regex_match", s.SafeRegexMatch, true)
	}
	return out
}

func (d *decoder) headerMatches(field string, ms []*routev3.HeaderMatcher) (out []conf.HeaderMatch) {
	each(d, field, ms, func(m *routev3.HeaderMatcher) { out = append(out, d.headerMatch(m)) })
	return out
}

// matchedName checks a field name that conditions may read, and gives it in lower case.
func (d *decoder) matchedName(name string) string {
	switch name {
	case ":method", ":authority", ":path", ":scheme", ":status": // :status is a response's
	default:
		d.token("name", name)
	}
	return strings.ToLower(name)
}

// token checks the name of a field (RFC 9110 section 5.1).
func (d *decoder) token(field, s string) {
	ok := s != ""
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			ok = false
		}
	}
	if !ok {
		d.at(field, func() { d.fail("%q is not the name of a header field", s) })
	}
}

// headerChange decodes what to add and remove. prefix is "request_headers" or "response_headers".
func (d *decoder) headerChange(prefix string, add []*corev3.HeaderValueOption, remove []string) (h conf.HeaderChange) {
	each(d, prefix+"_to_add", add, func(m *corev3.HeaderValueOption) { d.headerValue(m, &h) })
	each(d, prefix+"_to_remove", remove, func(name string) {
		d.token("", name)
		if strings.EqualFold(name, "host") {
			d.fail("host cannot be removed")
		}
		h.Remove = append(h.Remove, name)
	})
	return h
}

func (d *decoder) headerValue(m *corev3.HeaderValueOption, h *conf.HeaderChange) {
	d.only(m, "header", "append", "append_action", "keep_empty_value")
	d.only(m.GetHeader(), "key", "value", "raw_value")
	v := conf.HeaderValue{Name: m.GetHeader().GetKey(), Value: m.GetHeader().GetValue(), KeepEmpty: m.GetKeepEmptyValue()}
	if raw := m.GetHeader().GetRawValue(); len(raw) > 0 {
		v.Value = string(raw)
	}
	d.checkValue(v.Value)
	action := m.GetAppendAction()
	if m.GetAppend() != nil && !m.GetAppend().GetValue() {
		action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	}
	switch {
	case strings.EqualFold(v.Name, "host") || v.Name == ":authority":
		overwrite := action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
		d.setHost(v.Value, overwrite, h) // there is always one
		return
	default:
		d.token("header.key", v.Name)
	}
	if v.Value == "" && !m.GetKeepEmptyValue() {
		return // Envoy's rule: an empty value leaves the message as it is
	}
	lists := map[corev3.HeaderValueOption_HeaderAppendAction]*[]conf.HeaderValue{
		corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD: &h.Add, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD: &h.Set,
		corev3.HeaderValueOption_ADD_IF_ABSENT: &h.Default, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS: &h.Replace,
	}
	list := lists[action]
	if list == nil {
		d.at("append_action", func() { d.fail("%d is not known", action) })
		return
	}
	*list = append(*list, v)
}

func (d *decoder) setHost(value string, replace bool, h *conf.HeaderChange) {
	if !replace {
		d.fail("host can be replaced, not added to")
	}
	if value == "" || strings.ContainsAny(value, "% /?#@") {
		d.at("header.value", func() { d.fail("%q is not a host", value) })
	}
	h.Host = value
}

// checkValue checks the characters (RFC 9110 section 5.5) and operators of a value. "%%" is a percent sign.
func (d *decoder) checkValue(v string) {
	d.at("header.value", func() {
		d.fieldValue(v)
		for rest := v; ; {
			_, after, found := strings.Cut(rest, "%")
			if !found {
				return
			}
			op, after, closed := strings.Cut(after, "%")
			if !closed {
				d.fail("%q has a single percent sign (write %%%%)", v)
				return
			}
			if op != "" && !wire.KnownOperator(op) {
				d.fail("operator %%%s%% is not supported", op)
			}
			rest = after
		}
	})
}

// fieldValue checks the characters of a value (RFC 9110 section 5.5).
func (d *decoder) fieldValue(v string) {
	if strings.ContainsAny(v, "\r\n\x00") {
		d.fail("contains a line break or NUL")
	}
}
