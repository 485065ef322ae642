package gatewayapi

import (
	"regexp"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// checkGRPCRoute converts a GRPCRoute: a call is a request whose path is its service and method
// (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md); all else is as in an HTTPRoute.
func (p converter) checkGRPCRoute(r *gatewayv1.GRPCRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	rules := r.Spec.Rules
	if len(rules) == 0 {
		rules = []gatewayv1.GRPCRouteRule{{}}
	}
	for i := range rules {
		rule, field := &rules[i], parts.At("spec.rules", i)
		var matches []model.HTTPMatch
		for j := range rule.Matches {
			matches = append(matches, p.callMatch(&rule.Matches[j], parts.At(field+".matches", j)))
		}
		same := &gatewayv1.HTTPRouteRule{Name: rule.Name, Filters: callFilters(rule.Filters), SessionPersistence: rule.SessionPersistence}
		for _, b := range rule.BackendRefs {
			same.BackendRefs = append(same.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef, Filters: callFilters(b.Filters)})
		}
		p.Routes.HTTP = append(p.Routes.HTTP, p.apiRule(i, same, matches, field))
	}
	p.SameNames(p.Routes)
}

// callFilters gives filters of a GRPCRoute as those of an HTTPRoute, which has all of them.
func callFilters(list []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range list {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	return out
}

func (p converter) callMatch(m *gatewayv1.GRPCRouteMatch, field string) model.HTTPMatch {
	out := model.HTTPMatch{Field: field, Path: model.StringMatch{Prefix: "/", SegmentPrefix: true}}
	if m.Method != nil {
		out.Path = p.callPath(m.Method, field+".method")
	}
	for i, h := range m.Headers {
		f := parts.At(field+".headers", i)
		if !parts.IsHeaderName(string(h.Name)) {
			p.Err("InvalidHeaderName", f+".name", "", "%q is not a header name", h.Name)
		}
		out.Headers = p.Named(out.Headers, strings.ToLower(string(h.Name)), h.Value, parts.OrEmpty(h.Type), f)
	}
	return out
}

// anySegment is a regular expression for a service or a method that may be any.
const anySegment = "[^/]+"

// callPath converts a service and a method, one of which may be left open.
func (p converter) callPath(m *gatewayv1.GRPCMethodMatch, field string) model.StringMatch {
	service, method := parts.OrEmpty(m.Service), parts.OrEmpty(m.Method)
	if service == "" && method == "" {
		p.Err("MissingField", field, "", "one of service and method is needed")
	}
	p.NotTooBig(service, field+".service")
	p.NotTooBig(method, field+".method")
	switch kind := parts.OrEmpty(m.Type); kind {
	case "", string(gatewayv1.GRPCMethodMatchExact):
		return exactCall(service, method)
	case string(gatewayv1.GRPCMethodMatchRegularExpression):
		part := func(expression, name string) string {
			if expression == "" {
				return anySegment
			}
			p.Regex(expression, field+name)
			return "(?:" + expression + ")"
		}
		return model.StringMatch{Regex: "/" + part(service, ".service") + "/" + part(method, ".method")}
	default:
		p.Err("InvalidValue", field+".type", "", "%q is neither Exact nor RegularExpression", kind)
	}
	return model.StringMatch{}
}

func exactCall(service, method string) model.StringMatch {
	switch {
	case method == "":
		return model.StringMatch{Prefix: "/" + service + "/"}
	case service == "":
		return model.StringMatch{Regex: "/" + anySegment + "/" + regexp.QuoteMeta(method)}
	}
	return model.StringMatch{Exact: "/" + service + "/" + method, IsExact: true}
}
