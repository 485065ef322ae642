package apirules

import (
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

var methods = []gatewayv1.HTTPMethod{gatewayv1.HTTPMethodGet, gatewayv1.HTTPMethodHead, gatewayv1.HTTPMethodPost, gatewayv1.HTTPMethodPut,
	gatewayv1.HTTPMethodDelete, gatewayv1.HTTPMethodConnect, gatewayv1.HTTPMethodOptions, gatewayv1.HTTPMethodTrace, gatewayv1.HTTPMethodPatch}

// maxWeight is that of one backend.
const maxWeight = 1_000_000

func (c checker) httpRule(r *gatewayv1.HTTPRouteRule, field string) {
	prefixes := 0
	for i, m := range r.Matches {
		f := at(field+".matches", i)
		if m.Path != nil && text(m.Path.Type) != string(gatewayv1.PathMatchRegularExpression) && m.Path.Value != nil {
			c.path(*m.Path.Value, f+".path.value")
		}
		if m.Path != nil && (m.Path.Type == nil || *m.Path.Type == gatewayv1.PathMatchPathPrefix) {
			prefixes++
		}
		if m.Method != nil && !slices.Contains(methods, *m.Method) {
			c.say("InvalidValue", f+".method", "match a header or a path instead", "%q is not a method that can be matched", *m.Method)
		}
		for j, h := range m.Headers {
			c.filled(h.Value, at(f+".headers", j)+".value")
		}
		for j, q := range m.QueryParams {
			c.filled(q.Value, at(f+".queryParams", j)+".value")
		}
	}
	for i := range r.Filters {
		f := &r.Filters[i]
		c.filter(f, at(field+".filters", i))
		if replacesPrefix(f) && len(r.Matches) > 1 && prefixes == len(r.Matches) {
			c.say("ConflictingFields", field+".matches", "make a rule of each", "ReplacePrefixMatch needs one match: there are %d", len(r.Matches))
		}
	}
	for i := range r.BackendRefs {
		b, f := &r.BackendRefs[i], at(field+".backendRefs", i)
		c.backend(&b.BackendRef, f)
		c.once(filterTypes(b.Filters), f+".filters")
		for j := range b.Filters {
			c.filter(&b.Filters[j], at(f+".filters", j))
		}
	}
}

// Names of services and methods of gRPC.
var (
	service = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	method  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (c checker) grpcRule(r *gatewayv1.GRPCRouteRule, field string) {
	for i, m := range r.Matches {
		f := at(field+".matches", i)
		if m.Method != nil && text(m.Method.Type) != string(gatewayv1.GRPCMethodMatchRegularExpression) {
			if s := m.Method.Service; s != nil && !service.MatchString(*s) {
				c.say("InvalidValue", f+".method.service", "", "%q is not the name of a service of gRPC", *s)
			}
			if n := m.Method.Method; n != nil && !method.MatchString(*n) {
				c.say("InvalidValue", f+".method.method", "", "%q is not the name of a method of gRPC", *n)
			}
		}
		for j, h := range m.Headers {
			c.filled(h.Value, at(f+".headers", j)+".value")
		}
	}
	for i := range r.BackendRefs {
		b, f := &r.BackendRefs[i], at(field+".backendRefs", i)
		c.backend(&b.BackendRef, f)
		var types []string
		for _, filter := range b.Filters {
			types = append(types, string(filter.Type))
		}
		c.once(types, f+".filters")
	}
}

func (c checker) filled(value, field string) {
	if value == "" {
		c.say("MissingField", field, "", "a value is needed")
	}
}

func (c checker) backends(list []gatewayv1.BackendRef, field string) {
	for i := range list {
		c.backend(&list[i], at(field+".backendRefs", i))
	}
}

func (c checker) backend(b *gatewayv1.BackendRef, field string) {
	if b.Name == "" {
		c.say("MissingField", field+".name", "", "a backend has a name")
	}
	if b.Weight != nil && *b.Weight > maxWeight {
		c.say("InvalidWeight", field+".weight", "", "weight %d is above %d", *b.Weight, maxWeight)
	}
}

// pathText is what may stand in a path.
var pathText = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)

// path judges a path beyond what conversion knows of it. Paths are matched as they are after normalization, which has none of this.
func (c checker) path(v, field string) {
	if bad := badPart(v); bad != "" {
		c.say("InvalidValue", field, "", "%q has %q, which no normalized path has", v, bad)
		return
	}
	if strings.HasPrefix(v, "/") && !strings.ContainsAny(v, "?#") && !pathText.MatchString(v) {
		c.say("InvalidValue", field, "", "%q has characters that are not allowed in a path", v)
	}
}

// badPart gives the first part of a path that no path has after normalization; "" where there is none.
func badPart(v string) string {
	for _, part := range []string{"/./", "/../", "%2f", "%2F"} {
		if strings.Contains(v, part) {
			return part
		}
	}
	for _, end := range []string{"/..", "/."} {
		if strings.HasSuffix(v, end) {
			return end
		}
	}
	return ""
}

func filterTypes(list []gatewayv1.HTTPRouteFilter) []string {
	var out []string
	for _, f := range list {
		out = append(out, string(f.Type))
	}
	return out
}

// once judges the filters of a backend, of which each type is there once; mirrors may be several.
func (c checker) once(types []string, field string) {
	for i, t := range types {
		if t != string(gatewayv1.HTTPRouteFilterRequestMirror) && slices.Contains(types[:i], t) {
			c.say("ConflictingFields", at(field, i), "", "there is a filter of type %s already", t)
		}
	}
}

func replacesPrefix(f *gatewayv1.HTTPRouteFilter) bool {
	replaces := func(m *gatewayv1.HTTPPathModifier) bool {
		return m != nil && m.Type == gatewayv1.PrefixMatchHTTPPathModifier
	}
	return f.RequestRedirect != nil && replaces(f.RequestRedirect.Path) || f.URLRewrite != nil && replaces(f.URLRewrite.Path)
}

func (c checker) filter(f *gatewayv1.HTTPRouteFilter, field string) {
	if h := f.RequestHeaderModifier; h != nil {
		c.headers(h, field+".requestHeaderModifier")
	}
	if h := f.ResponseHeaderModifier; h != nil {
		c.headers(h, field+".responseHeaderModifier")
	}
	if r := f.RequestRedirect; r != nil {
		c.precise(r.Hostname, field+".requestRedirect.hostname")
		c.modifier(r.Path, field+".requestRedirect.path")
	}
	if u := f.URLRewrite; u != nil {
		c.precise(u.Hostname, field+".urlRewrite.hostname")
		c.modifier(u.Path, field+".urlRewrite.path")
	}
	if s := f.CORS; s != nil {
		c.alone(texts(s.AllowOrigins), field+".cors.allowOrigins")
		c.alone(texts(s.AllowMethods), field+".cors.allowMethods")
		c.alone(texts(s.AllowHeaders), field+".cors.allowHeaders")
	}
}

func (c checker) headers(h *gatewayv1.HTTPHeaderFilter, field string) {
	for _, list := range []struct {
		name    string
		headers []gatewayv1.HTTPHeader
	}{{".set", h.Set}, {".add", h.Add}} {
		for i, x := range list.headers {
			c.filled(x.Value, at(field+list.name, i)+".value")
		}
	}
	for i, name := range h.Remove {
		if slices.Contains(h.Remove[:i], name) {
			c.say("DuplicateValue", at(field+".remove", i), "", "%q is there already", name)
		}
	}
}

func (c checker) modifier(m *gatewayv1.HTTPPathModifier, field string) {
	switch {
	case m == nil:
	case m.Type == gatewayv1.FullPathHTTPPathModifier && m.ReplacePrefixMatch != nil:
		c.say("ConflictingFields", field+".replacePrefixMatch", "", "type ReplaceFullPath has no prefix")
	case m.Type == gatewayv1.PrefixMatchHTTPPathModifier && m.ReplaceFullPath != nil:
		c.say("ConflictingFields", field+".replaceFullPath", "", "type ReplacePrefixMatch has no full path")
	}
}

// alone judges a list in which "*" stands for all.
func (c checker) alone(list []string, field string) {
	if i := slices.Index(list, "*"); i >= 0 && len(list) > 1 {
		c.say("ConflictingFields", at(field, i), "", `"*" stands for all and cannot be combined with others`)
	}
}

func texts[T ~string](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}
