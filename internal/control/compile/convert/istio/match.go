package istio

import (
	"maps"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// stringMatch converts a condition. An empty one asks for presence (in maps of headers and parameters) where wanted.
func (p converter) stringMatch(m *networkingapi.StringMatch, field string, emptyIsPresent bool) model.StringMatch {
	hint := `write regex: ".*" to match anything`
	if emptyIsPresent {
		hint = "write {} to ask for presence, or leave the condition out to match anything"
	}
	switch t := m.GetMatchType().(type) {
	case *networkingapi.StringMatch_Exact:
		return model.StringMatch{Exact: t.Exact, IsExact: true}
	case *networkingapi.StringMatch_Prefix:
		if t.Prefix == "" {
			p.Err("InvalidValue", field+".prefix", hint, "the prefix is empty")
		}
		return model.StringMatch{Prefix: t.Prefix}
	case *networkingapi.StringMatch_Regex:
		p.Regex(t.Regex, field+".regex")
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

// headerMatches converts conditions on headers, sorted by name.
func (p converter) headerMatches(m map[string]*networkingapi.StringMatch, field string) []model.NamedMatch {
	var list []model.NamedMatch
	for _, name := range parts.SortedKeys(m) {
		at := parts.Key(field, name)
		lower := strings.ToLower(name)
		if of := ignoredHeaders[lower]; of != "" {
			p.Warn("IgnoredHeader", at, "match on "+of+" instead", "a header condition on %q is ignored, as in Istio", name)
			continue
		}
		switch {
		case strings.HasPrefix(lower, "@request.auth."):
			p.Err("Unsupported", at, "", "cannot be matched: tokens are not checked yet (RequestAuthentication)")
		case !parts.IsReadable(lower):
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

func (p converter) queryMatches(m map[string]*networkingapi.StringMatch, field string) []model.NamedMatch {
	var list []model.NamedMatch
	for _, name := range parts.SortedKeys(m) {
		at := parts.Key(field, name)
		if name == "" {
			p.Err("InvalidValue", at, "", "the parameter's name is empty")
		}
		list = append(list, model.NamedMatch{Name: name, Match: p.stringMatch(m[name], at, true)})
	}
	return list
}

// httpMatch converts one entry of an HTTP route's match.
func (p converter) httpMatch(m *networkingapi.HTTPMatchRequest, field string) model.HTTPMatch {
	p.Only(m, field, "name", "uri", "scheme", "method", "authority", "headers", "port", "sourceLabels", "gateways", "queryParams",
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
		SourceLabels:   p.ValidLabels(m.SourceLabels, field+".sourceLabels"), SourceNamespace: p.NamespaceName(m.SourceNamespace, field+".sourceNamespace"),
		StatPrefix: m.StatPrefix,
	}
	p.MethodMatches(out.Method.Exact, field+".method")
	if m.StatPrefix != "" {
		p.Info("NoEffect", field+".statPrefix", "", "Envoys count these requests under it; other proxies count all by service and version")
	}
	if m.Port != 0 {
		out.Port = p.ValidPort(m.Port, field+".port")
	}
	out.Gateways, out.Mesh = p.GatewayRefs(m.Gateways)
	return out
}

func (p converter) pathMatch(m *networkingapi.HTTPMatchRequest, field string) model.StringMatch {
	if m.Uri.GetMatchType() == nil {
		return model.StringMatch{} // any path, as in Istio, if it is there but empty
	}
	path := p.stringMatch(m.Uri, field, false)
	path.IgnoreCase = m.IgnoreUriCase
	if start := path.Exact + path.Prefix; path.Regex == "" && (start != "" || path.IsExact) && !strings.HasPrefix(start, "/") && start != "*" {
		p.Warn("PathNeverMatches", field, `paths start with "/"`, "%q can never match", start)
	}
	return path
}
