package convert

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Bounds of regular expressions: of the text, in bytes, and of the instructions that proxies take.
const (
	maxRegex   = 1024
	maxProgram = 10000
)

// regex checks an expression of RE2's syntax; nil when it is none.
func (p *Part) regex(expression, field string) *regexp.Regexp {
	switch {
	case expression == "":
		p.Err("InvalidRegex", field, "", "the regular expression is empty")
	case len(expression) > maxRegex:
		p.Err("InvalidRegex", field, "", "the regular expression has %d bytes, more than %d", len(expression), maxRegex)
	default:
		compiled, err := compileRegex(expression)
		if err == nil {
			return compiled
		}
		p.Err("InvalidRegex", field, "see https://github.com/google/re2/wiki/Syntax", "not a regular expression of RE2: %s",
			strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// compileRegex compiles an expression as proxies do, where it has to match from start to end.
func compileRegex(expression string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > maxProgram {
		return nil, fmt.Errorf("it becomes %d instructions, more than %d", n, maxProgram)
	}
	return regexp.Compile("^(?:" + expression + ")$")
}

// substitution checks what replaces a match: a backslash stands before another, or before the number of a group.
func (p *Part) substitution(by string, pattern *regexp.Regexp, field string) {
	if pattern == nil {
		return
	}
	for i := 0; i < len(by); i++ {
		if by[i] != '\\' {
			continue
		}
		i++
		group := i < len(by) && by[i] >= '0' && by[i] <= '9' && int(by[i]-'0') <= pattern.NumSubexp()
		if !group && (i == len(by) || by[i] != '\\') {
			p.Err("InvalidValue", field, `write \\ for a backslash`, "%q refers to a group that the expression does not have", by)
			return
		}
	}
}

// stringMatch converts a condition. An empty one asks for presence (in maps of headers and parameters) where wanted.
func (p *Part) stringMatch(m *networkingapi.StringMatch, field string, emptyIsPresent bool) model.StringMatch {
	switch t := m.GetMatchType().(type) {
	case *networkingapi.StringMatch_Exact:
		return model.StringMatch{Exact: t.Exact, IsExact: true}
	case *networkingapi.StringMatch_Prefix:
		if t.Prefix == "" {
			p.Err("InvalidValue", field+".prefix", "leave the condition out to match anything", "the prefix is empty")
		}
		return model.StringMatch{Prefix: t.Prefix}
	case *networkingapi.StringMatch_Regex:
		p.regex(t.Regex, field+".regex")
		return model.StringMatch{Regex: t.Regex}
	}
	if m != nil && !emptyIsPresent {
		p.Err("MissingField", field, "", "one of exact, prefix and regex is needed")
	}
	if emptyIsPresent {
		return model.StringMatch{Present: true}
	}
	return model.StringMatch{}
}

// ignoredHeaders are keys of a header match that Istio ignores.
var ignoredHeaders = map[string]string{"uri": "uri", "scheme": "scheme", "method": "method", "authority": "authority"}

// pseudoHeaders are what header conditions may read beside fields.
var pseudoHeaders = []string{":method", ":authority", ":path", ":scheme"}

// headerMatches converts conditions on headers, sorted by name.
func (p *Part) headerMatches(m map[string]*networkingapi.StringMatch, field string) []model.NamedMatch {
	var list []model.NamedMatch
	for _, name := range sortedKeys(m) {
		at := Key(field, name)
		lower := strings.ToLower(name)
		if of := ignoredHeaders[lower]; of != "" {
			p.Warn("IgnoredHeader", at, "match on "+of+" instead", "a header condition on %q is ignored, as in Istio", name)
			continue
		}
		if !headerName(lower) && !slices.Contains(pseudoHeaders, lower) {
			p.Err("InvalidHeaderName", at, "", "%q is not a header name", name)
		}
		list = append(list, model.NamedMatch{Name: lower, Match: p.stringMatch(m[name], at, true)})
	}
	return list
}

// presences reads the expression "*", which is none, as a question for presence: so Istio does it in withoutHeaders.
func presences(m map[string]*networkingapi.StringMatch) map[string]*networkingapi.StringMatch {
	out := maps.Clone(m)
	for name, c := range m {
		if c.GetRegex() == "*" {
			out[name] = &networkingapi.StringMatch{}
		}
	}
	return out
}

func (p *Part) queryMatches(m map[string]*networkingapi.StringMatch, field string) []model.NamedMatch {
	var list []model.NamedMatch
	for _, name := range sortedKeys(m) {
		at := Key(field, name)
		if name == "" {
			p.Err("InvalidValue", at, "", "the parameter's name is empty")
		}
		list = append(list, model.NamedMatch{Name: name, Match: p.stringMatch(m[name], at, true)})
	}
	return list
}

// headerName reports whether a name is a token (RFC 9110, section 5.6.2).
func headerName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

// headerValue reports whether a value has no byte that would break a message (RFC 9110, section 5.5).
func headerValue(value string) bool { return !strings.ContainsAny(value, "\r\n\x00") }

// httpMatch converts one entry of an HTTP route's match.
func (p *Part) httpMatch(m *networkingapi.HTTPMatchRequest, field string) model.HTTPMatch {
	p.only(m, field, "name", "uri", "scheme", "method", "authority", "headers", "port", "sourceLabels", "gateways", "queryParams",
		"ignoreUriCase", "withoutHeaders", "sourceNamespace", "statPrefix")
	out := model.HTTPMatch{
		Name: m.Name, Field: field,
		Path:           p.pathMatch(m, field+".uri"),
		Scheme:         p.stringMatch(m.Scheme, field+".scheme", false),
		Method:         p.stringMatch(m.Method, field+".method", false),
		Authority:      p.stringMatch(m.Authority, field+".authority", false),
		Headers:        p.headerMatches(m.Headers, field+".headers"),
		WithoutHeaders: p.headerMatches(presences(m.WithoutHeaders), field+".withoutHeaders"),
		Query:          p.queryMatches(m.QueryParams, field+".queryParams"),
		SourceLabels:   p.validLabels(m.SourceLabels, field+".sourceLabels"), SourceNamespace: p.namespaceName(m.SourceNamespace, field+".sourceNamespace"),
		StatPrefix: m.StatPrefix,
	}
	if m.StatPrefix != "" {
		p.Info("NoEffect", field+".statPrefix", "", "Envoys count these requests under it; other proxies count all by service and version")
	}
	if m.Port != 0 {
		out.Port = p.ValidPort(m.Port, field+".port")
	}
	out.Gateways, out.Mesh = p.GatewayRefs(m.Gateways)
	return out
}

func (p *Part) pathMatch(m *networkingapi.HTTPMatchRequest, field string) model.StringMatch {
	if m.Uri == nil {
		return model.StringMatch{}
	}
	path := p.stringMatch(m.Uri, field, false)
	path.IgnoreCase = m.IgnoreUriCase
	if start := path.Exact + path.Prefix; path.Regex == "" && !strings.HasPrefix(start, "/") && start != "*" {
		p.Warn("PathNeverMatches", field, `paths start with "/"`, "%q can never match", start)
	}
	return path
}

// GatewayRefs reads names of Istio gateways, of which "mesh" means the sidecars.
func (p *Part) GatewayRefs(names []string) (refs []model.GatewayRef, mesh bool) {
	for _, name := range names {
		if name == "mesh" {
			mesh = true
			continue
		}
		namespace := p.GetNamespace()
		if ns, short, ok := strings.Cut(name, "/"); ok {
			namespace, name = ns, short
		}
		refs = append(refs, model.GatewayRef{Kind: "Gateway.istio", Namespace: namespace, Name: name})
	}
	return refs, mesh
}

// matchesAll reports whether a match takes every request that reaches it.
func matchesAll(m model.HTTPMatch) bool {
	return (m.Path.IsZero() || m.Path.Prefix == "/" || m.Path.Regex == ".*" || m.Path.Regex == "/.*") &&
		m.Scheme.IsZero() && m.Method.IsZero() && m.Authority.IsZero() && len(m.Headers)+len(m.WithoutHeaders)+len(m.Query) == 0 &&
		m.Port == 0 && len(m.SourceLabels) == 0 && m.SourceNamespace == "" && len(m.Gateways) == 0 && !m.Mesh
}
