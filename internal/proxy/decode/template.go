package decode

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// template makes a condition of a URI template: "*" or "{name}" is one segment, "**" or "{name=**}" is any number of them, and
// "{name=a/*}" a sequence. Source: envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig. names are those of the
// variables, in the order of the pattern's groups.
func (d *decoder) template(t string) (out *conf.StringMatch, names []string) {
	out = &conf.StringMatch{}
	p, names, err := templatePattern(t)
	if err != nil {
		d.At("path_template", func() { d.Failed(err) })
		return out, nil
	}
	re, err := walk.CompileRegexp(p, true)
	if err != nil {
		d.Failed(err)
	}
	return &conf.StringMatch{Kind: conf.Regex, Value: t, Regexp: re}, names
}

func templatePattern(t string) (pattern string, names []string, err error) {
	if !strings.HasPrefix(t, "/") {
		return "", nil, fmt.Errorf("%q does not start with a slash", t)
	}
	if !utf8.ValidString(t) {
		return "", nil, fmt.Errorf("%q is not UTF-8", t)
	}
	var b strings.Builder
	for rest := t[1:]; ; {
		b.WriteByte('/')
		var seg, glob string
		if strings.HasPrefix(rest, "{") {
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return "", nil, fmt.Errorf("%q: a brace is not closed", t)
			}
			name, sub, has := strings.Cut(rest[1:end], "=")
			if seg = sub; !has {
				seg = "*"
			}
			if slices.Contains(names, name) {
				return "", nil, fmt.Errorf("%q: {%s} occurs twice", t, name)
			}
			names, rest = append(names, name), rest[end+1:]
			if glob, err = globs(seg); err != nil {
				return "", nil, fmt.Errorf("%q: %w", t, err)
			}
			b.WriteString("(" + glob + ")")
		}
		seg, after, more := strings.Cut(rest, "/")
		if glob, err = globs(seg); err != nil {
			return "", nil, fmt.Errorf("%q: %w", t, err)
		}
		b.WriteString(glob)
		if rest = after; !more {
			return b.String(), names, nil
		}
	}
}

// globs makes a regular expression of segments, each of which is a text, "*", or "**" with a text behind it.
func globs(segments string) (string, error) {
	var out []string
	for _, seg := range strings.Split(segments, "/") {
		before, after, any := strings.Cut(seg, "**")
		switch {
		case any && before == "" && !strings.ContainsAny(after, "*{}"):
			out = append(out, ".*"+regexp.QuoteMeta(after))
		case seg == "*":
			out = append(out, "[^/]+")
		case strings.ContainsAny(seg, "*{}"):
			return "", fmt.Errorf("segment %q is not supported", seg)
		default:
			out = append(out, regexp.QuoteMeta(seg))
		}
	}
	return strings.Join(out, "/"), nil
}

// templateRewrite makes a substitution of a template with the variables of the one that a path was matched by.
// Source: envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig.
func templateRewrite(t string, names []string) (string, error) {
	if !strings.HasPrefix(t, "/") {
		return "", fmt.Errorf("%q does not start with a slash", t)
	}
	var b strings.Builder
	for rest := t; ; {
		text, after, found := strings.Cut(rest, "{")
		b.WriteString(strings.ReplaceAll(text, `\`, `\\`))
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(after, "}")
		i := slices.Index(names, name)
		if !closed || i < 0 || i > 8 {
			return "", fmt.Errorf("%q: {%s} is no variable of the path's template", t, name)
		}
		b.WriteString(`\` + strconv.Itoa(i+1))
		rest = after
	}
}
