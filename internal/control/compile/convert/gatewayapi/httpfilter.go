package gatewayapi

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// apiFilter applies one filter of an HTTPRoute rule.
func (p converter) apiFilter(f *gatewayv1.HTTPRouteFilter, field string, out *model.HTTPRoute) {
	set := map[gatewayv1.HTTPRouteFilterType]bool{
		gatewayv1.HTTPRouteFilterRequestHeaderModifier:  f.RequestHeaderModifier != nil,
		gatewayv1.HTTPRouteFilterResponseHeaderModifier: f.ResponseHeaderModifier != nil,
		gatewayv1.HTTPRouteFilterRequestMirror:          f.RequestMirror != nil,
		gatewayv1.HTTPRouteFilterRequestRedirect:        f.RequestRedirect != nil,
		gatewayv1.HTTPRouteFilterURLRewrite:             f.URLRewrite != nil,
		gatewayv1.HTTPRouteFilterCORS:                   f.CORS != nil,
		gatewayv1.HTTPRouteFilterExternalAuth:           f.ExternalAuth != nil,
		gatewayv1.HTTPRouteFilterExtensionRef:           f.ExtensionRef != nil,
	}
	has := set[f.Type]
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier,
		gatewayv1.HTTPRouteFilterRequestMirror, gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite,
		gatewayv1.HTTPRouteFilterCORS:
	default:
		p.Err("Unsupported", field+".type", "", "filter %q is not supported yet", f.Type)
		return
	}
	for kind, other := range set {
		if kind != f.Type {
			has = has && !other
		}
	}
	if !has {
		p.Err("ConflictingFields", field, "", "a filter of type %s has that type's field and no other", f.Type)
		return
	}
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		p.once(field, !isZeroChange(out.Request))
		out.Request = p.apiHeaders(f.RequestHeaderModifier, field+".requestHeaderModifier", true)
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		p.once(field, !isZeroChange(out.Response))
		out.Response = p.apiHeaders(f.ResponseHeaderModifier, field+".responseHeaderModifier", false)
	case gatewayv1.HTTPRouteFilterRequestMirror:
		out.Mirrors = append(out.Mirrors, p.apiMirror(f.RequestMirror, field+".requestMirror"))
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		p.once(field, out.Redirect != nil)
		out.Redirect = p.apiRedirect(f.RequestRedirect, field+".requestRedirect")
	case gatewayv1.HTTPRouteFilterURLRewrite:
		p.once(field, out.Rewrite != nil)
		out.Rewrite = p.apiRewrite(f.URLRewrite, field+".urlRewrite")
	case gatewayv1.HTTPRouteFilterCORS:
		p.once(field, out.CORS != nil)
		out.CORS = p.apiCORS(f.CORS, field+".cors")
	}
}

func (p converter) once(field string, again bool) {
	if again {
		p.Err("ConflictingFields", field, "", "a rule can have one filter of this type")
	}
}

func isZeroChange(c model.HeaderChange) bool { return len(c.Set)+len(c.Add)+len(c.Remove) == 0 }

func (p converter) apiHeaders(f *gatewayv1.HTTPHeaderFilter, field string, request bool) model.HeaderChange {
	if f == nil {
		p.Err("MissingField", field, "", "the filter's field is missing")
		return model.HeaderChange{}
	}
	out := model.HeaderChange{Set: map[string]string{}, Add: map[string]string{}, Remove: f.Remove}
	for _, list := range []struct {
		name    string
		headers []gatewayv1.HTTPHeader
		into    map[string]string
	}{{".set", f.Set, out.Set}, {".add", f.Add, out.Add}} {
		for i, h := range list.headers {
			at := parts.At(field+list.name, i)
			if !parts.IsHeaderName(string(h.Name)) {
				p.Err("InvalidHeaderName", at+".name", "", "%q is not a header name", h.Name)
			}
			p.ValidHeaderValue(string(h.Name), h.Value, at+".value")
			if slices.ContainsFunc(list.headers[:i], func(o gatewayv1.HTTPHeader) bool { return strings.EqualFold(string(o.Name), string(h.Name)) }) {
				p.Warn("IgnoredHeader", at+".name", "", "header %q is there already: this one is ignored, as the Gateway API says", h.Name)
				continue
			}
			list.into[string(h.Name)] = h.Value
		}
	}
	if len(out.Set) == 0 {
		out.Set = nil
	}
	if len(out.Add) == 0 {
		out.Add = nil
	}
	p.HeaderChange(model.HeaderChange{Remove: out.Remove}, field, request)
	return out
}

func (p converter) apiMirror(f *gatewayv1.HTTPRequestMirrorFilter, field string) model.Mirror {
	m := model.Mirror{Destination: p.apiRef(f.BackendRef, field+".backendRef"), Percent: 100}
	switch {
	case f.Percent != nil && f.Fraction != nil:
		p.Err("ConflictingFields", field+".fraction", "", "only one of percent and fraction can be set")
	case f.Percent != nil:
		m.Percent = p.Percent(float64(*f.Percent), field+".percent")
	case f.Fraction != nil:
		of := int32(100)
		if f.Fraction.Denominator != nil {
			of = *f.Fraction.Denominator
		}
		if of < 1 {
			p.Err("InvalidValue", field+".fraction.denominator", "", "%d is less than 1", of)
			return m
		}
		m.Percent = p.Percent(100*float64(f.Fraction.Numerator)/float64(of), field+".fraction")
	}
	return m
}

func (p converter) apiRedirect(f *gatewayv1.HTTPRequestRedirectFilter, field string) *model.Redirect {
	out := &model.Redirect{Code: 302, Scheme: parts.OrEmpty(f.Scheme), Authority: parts.OrEmpty(f.Hostname)}
	if f.StatusCode != nil {
		out.Code = *f.StatusCode
	}
	p.ValidRedirectCode(out.Code, field+".statusCode")
	if out.Scheme != "" && out.Scheme != "http" && out.Scheme != "https" {
		p.Err("InvalidValue", field+".scheme", "", "%q is neither http nor https", out.Scheme)
	}
	if out.Authority != "" {
		p.ValidHost(out.Authority, field+".hostname", false)
	}
	switch {
	case f.Port != nil:
		out.Port = p.ValidPort(uint32(max(*f.Port, 0)), field+".port")
	case out.Scheme != "":
		out.DerivePort = "FROM_PROTOCOL_DEFAULT"
	default:
		out.DerivePort = "FROM_REQUEST_PORT" // the listener's
	}
	if full, prefix := p.apiPathModifier(f.Path, field+".path"); full != nil {
		out.URI = *full
	} else {
		out.Prefix = prefix
	}
	return out
}

func (p converter) apiRewrite(f *gatewayv1.HTTPURLRewriteFilter, field string) *model.Rewrite {
	out := &model.Rewrite{Authority: parts.OrEmpty(f.Hostname)}
	if out.Authority != "" {
		p.ValidHost(out.Authority, field+".hostname", false)
	}
	full, prefix := p.apiPathModifier(f.Path, field+".path")
	out.FullPath = full
	if prefix != nil {
		// An empty replacement takes the prefix away, which leaves the root.
		if out.URI = *prefix; out.URI == "" {
			out.URI = "/"
		}
	}
	return out
}

// apiPathModifier gives the full path or the prefix that a modifier puts in place.
func (p converter) apiPathModifier(m *gatewayv1.HTTPPathModifier, field string) (full, prefix *string) {
	if m == nil {
		return nil, nil
	}
	var value *string
	switch m.Type {
	case gatewayv1.FullPathHTTPPathModifier:
		value, full = m.ReplaceFullPath, m.ReplaceFullPath
	case gatewayv1.PrefixMatchHTTPPathModifier:
		value, prefix = m.ReplacePrefixMatch, m.ReplacePrefixMatch
	default:
		p.Err("InvalidValue", field+".type", "", "%q is neither ReplaceFullPath nor ReplacePrefixMatch", m.Type)
		return nil, nil
	}
	switch {
	case value == nil:
		p.Err("MissingField", field, "", "type %s needs its value", m.Type)
	case *value != "" && !strings.HasPrefix(*value, "/") || !parts.IsHeaderValue(*value) || strings.Contains(*value, " "):
		p.Err("InvalidValue", field, "", "%q is not an absolute path", *value)
	}
	return full, prefix
}
