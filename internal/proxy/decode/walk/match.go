package walk

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Bounds of regular expressions: of the text, and of the program it becomes. Matching is linear in both the program and the input.
const (
	maxPattern = 4096 // bytes
	maxProgram = 10000
)

// Pattern compiles a regular expression, anchored at both ends when it must match all of the input.
func (w *Walk) Pattern(field string, m *matcherv3.RegexMatcher, anchored bool) (out conf.StringMatch) {
	w.At(field, func() {
		w.Only(m, "regex", "google_re2") // google_re2 names the only engine that there is
		p := m.GetRegex()
		if p == "" {
			w.Fail("regex: is required")
			return
		}
		re, err := CompileRegexp(p, anchored)
		if err != nil {
			w.Failed(err)
			return
		}
		out = conf.StringMatch{Kind: conf.Regex, Value: p, Regexp: re}
	})
	return out
}

// CompileRegexp compiles a regular expression that is small enough; when anchored, it must match all of the input.
func CompileRegexp(p string, anchored bool) (*regexp.Regexp, error) {
	if len(p) > maxPattern {
		return nil, fmt.Errorf("regular expression has %d bytes, more than %d", len(p), maxPattern)
	}
	tree, err := syntax.Parse(p, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxProgram {
		return nil, fmt.Errorf("regular expression %q becomes %d instructions, more than %d", p, len(prog.Inst), maxProgram)
	}
	if anchored {
		p = "^(?:" + p + ")$"
	}
	return regexp.Compile(p)
}

// StringMatch decodes a condition on a string.
func (w *Walk) StringMatch(field string, m *matcherv3.StringMatcher) (out conf.StringMatch) {
	w.At(field, func() {
		if m == nil {
			w.Failed(ErrRequired)
			return
		}
		w.Only(m, "exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case")
		out = w.stringPattern(m)
		if m.GetIgnoreCase() {
			if out.Kind == conf.Regex {
				w.Fail("ignore_case: has no effect on a regular expression, write (?i)")
			}
			out.IgnoreCase, out.Value = true, conf.Fold(out.Value)
		}
	})
	return out
}

func (w *Walk) stringPattern(m *matcherv3.StringMatcher) conf.StringMatch {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return conf.StringMatch{Kind: conf.Exact, Value: p.Exact}
	case *matcherv3.StringMatcher_Prefix:
		return w.NotEmpty(conf.PrefixOf, p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return w.NotEmpty(conf.Suffix, p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		return w.NotEmpty(conf.Contains, p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		return w.Pattern("safe_regex", p.SafeRegex, true)
	}
	w.Fail("match_pattern: is required")
	return conf.StringMatch{}
}

// NotEmpty refuses the empty string where it would match everything by accident.
func (w *Walk) NotEmpty(k conf.MatchKind, v string) conf.StringMatch {
	if v == "" {
		w.Fail("match_pattern: may not be empty")
	}
	return conf.StringMatch{Kind: k, Value: v}
}

// Rewrite decodes a substitution by regular expression.
func (w *Walk) Rewrite(field string, m *matcherv3.RegexMatchAndSubstitute) (out *conf.RegexRewrite) {
	if m == nil {
		return nil
	}
	w.At(field, func() {
		w.Only(m, "pattern", "substitution")
		p := w.Pattern("pattern", m.GetPattern(), false)
		if p.Regexp != nil {
			w.checkSubstitution(m.GetSubstitution(), p.Regexp.NumSubexp())
		}
		out = &conf.RegexRewrite{Pattern: p, Substitution: m.GetSubstitution()}
	})
	return out
}

// checkSubstitution checks that every backslash stands before another, or before a group that there is.
func (w *Walk) checkSubstitution(s string, groups int) {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		i++
		switch {
		case i < len(s) && s[i] == '\\':
		case i < len(s) && '0' <= s[i] && s[i] <= '9' && int(s[i]-'0') <= groups:
		default:
			w.At("substitution", func() { w.Fail("%q refers to a group that the pattern does not have", s) })
			return
		}
	}
}
