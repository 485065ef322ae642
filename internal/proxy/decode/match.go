package decode

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

// pattern compiles a regular expression, anchored at both ends when it must match all of the input.
func (d *decoder) pattern(field string, m *matcherv3.RegexMatcher, anchored bool) (out conf.StringMatch) {
	d.at(field, func() {
		d.only(m, "regex", "google_re2") // google_re2 names the only engine that there is
		p := m.GetRegex()
		if p == "" {
			d.fail("regex: is required")
			return
		}
		re, err := compileRegexp(p, anchored)
		if err != nil {
			d.failed(err)
			return
		}
		out = conf.StringMatch{Kind: conf.Regex, Value: p, Regexp: re}
	})
	return out
}

func compileRegexp(p string, anchored bool) (*regexp.Regexp, error) {
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

// stringMatch decodes a condition on a string.
func (d *decoder) stringMatch(field string, m *matcherv3.StringMatcher) (out conf.StringMatch) {
	d.at(field, func() {
		if m == nil {
			d.failed(errRequired)
			return
		}
		d.only(m, "exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case")
		out = d.stringPattern(m)
		if m.GetIgnoreCase() {
			if out.Kind == conf.Regex {
				d.fail("ignore_case: has no effect on a regular expression, write (?i)")
			}
			out.IgnoreCase, out.Value = true, conf.Fold(out.Value)
		}
	})
	return out
}

func (d *decoder) stringPattern(m *matcherv3.StringMatcher) conf.StringMatch {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return conf.StringMatch{Kind: conf.Exact, Value: p.Exact}
	case *matcherv3.StringMatcher_Prefix:
		return d.notEmpty(conf.PrefixOf, p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return d.notEmpty(conf.Suffix, p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		return d.notEmpty(conf.Contains, p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		return d.pattern("safe_regex", p.SafeRegex, true)
	}
	d.fail("match_pattern: is required")
	return conf.StringMatch{}
}

// notEmpty refuses the empty string where it would match everything by accident.
func (d *decoder) notEmpty(k conf.MatchKind, v string) conf.StringMatch {
	if v == "" {
		d.fail("match_pattern: may not be empty")
	}
	return conf.StringMatch{Kind: k, Value: v}
}

// rewrite decodes a substitution by regular expression.
func (d *decoder) rewrite(field string, m *matcherv3.RegexMatchAndSubstitute) (out *conf.RegexRewrite) {
	if m == nil {
		return nil
	}
	d.at(field, func() {
		d.only(m, "pattern", "substitution")
		p := d.pattern("pattern", m.GetPattern(), false)
		if p.Regexp != nil {
			d.checkSubstitution(m.GetSubstitution(), p.Regexp.NumSubexp())
		}
		out = &conf.RegexRewrite{Pattern: p, Substitution: m.GetSubstitution()}
	})
	return out
}

// checkSubstitution checks that every backslash stands before another, or before a group that there is.
func (d *decoder) checkSubstitution(s string, groups int) {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		i++
		switch {
		case i < len(s) && s[i] == '\\':
		case i < len(s) && '0' <= s[i] && s[i] <= '9' && int(s[i]-'0') <= groups:
		default:
			d.at("substitution", func() { d.fail("%q refers to a group that the pattern does not have", s) })
			return
		}
	}
}
