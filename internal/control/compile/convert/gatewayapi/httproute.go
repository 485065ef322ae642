package gatewayapi

import (
	"cmp"
	"strconv"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// checkHTTPRoute converts an HTTPRoute's rules. Whose hosts they are for is known when parents are looked up.
func (p converter) checkHTTPRoute(r *gatewayv1.HTTPRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	rules := r.Spec.Rules
	if len(rules) == 0 {
		rules = []gatewayv1.HTTPRouteRule{{}}
	}
	for i := range rules {
		field := parts.At("spec.rules", i)
		var matches []model.HTTPMatch
		for j := range rules[i].Matches {
			matches = append(matches, p.apiMatch(&rules[i].Matches[j], parts.At(field+".matches", j)))
		}
		p.Routes.HTTP = append(p.Routes.HTTP, p.apiRule(i, &rules[i], matches, field))
	}
	p.SameNames(p.Routes)
}

// apiRoute begins the routes of a part.
func (p converter) apiRoute(common *gatewayv1.CommonRouteSpec, hostnames []gatewayv1.Hostname) {
	scope := common.UseDefaultGateways
	if scope != "" && scope != gatewayv1.GatewayDefaultScopeAll && scope != gatewayv1.GatewayDefaultScopeNone {
		p.Unsupported("spec.useDefaultGateways", "use All or None")
	}
	p.Routes = &model.RouteSet{Ref: p.Ref(), Namespace: p.GetNamespace(), ByPrecedence: true, Created: p.Born}
	p.API = &parts.APIRoute{Parents: common.ParentRefs, DefaultGateways: scope == gatewayv1.GatewayDefaultScopeAll}
	for i, h := range hostnames {
		if p.ValidHost(string(h), parts.At("spec.hostnames", i), false) {
			p.Routes.Hosts = append(p.Routes.Hosts, strings.ToLower(string(h)))
		}
	}
}

// apiRule converts a rule, whose matches were converted already.
func (p converter) apiRule(n int, r *gatewayv1.HTTPRouteRule, matches []model.HTTPMatch, field string) model.HTTPRoute {
	out := model.HTTPRoute{Name: parts.OrEmpty(r.Name), Field: field, Matches: matches}
	if len(matches) == 0 {
		out.Matches = []model.HTTPMatch{{Field: field, Path: model.StringMatch{Prefix: "/", SegmentPrefix: true}}}
	}
	for i := range r.BackendRefs {
		at := parts.At(field+".backendRefs", i)
		out.Destinations = append(out.Destinations, p.apiBackend(&r.BackendRefs[i], at))
		p.API.Backends = append(p.API.Backends, parts.APIBackend{Rule: n, Index: i, Ref: r.BackendRefs[i].BackendObjectReference, Field: at})
	}
	p.WeightSum(out.Destinations, field+".backendRefs")
	for i := range r.Filters {
		f, at := &r.Filters[i], parts.At(field+".filters", i)
		if p.apiFilter(f, at, &out); f.RequestMirror != nil && f.Type == gatewayv1.HTTPRouteFilterRequestMirror {
			p.API.Backends = append(p.API.Backends, parts.APIBackend{Rule: n, Index: len(out.Mirrors) - 1, Mirror: true,
				Ref: f.RequestMirror.BackendRef, Field: at + ".requestMirror.backendRef"})
		}
	}
	out.Session = p.session(r.SessionPersistence, n, field+".sessionPersistence")
	p.apiRetry(r.Retry, field+".retry", &out)
	p.apiTimeouts(r.Timeouts, field+".timeouts", &out)
	p.prefixOnly(&out, field)
	switch {
	case out.Redirect != nil && len(out.Destinations) > 0:
		p.Err("ConflictingFields", field+".backendRefs", "", "a rule that redirects has no backends")
	case out.Redirect != nil && out.Rewrite != nil:
		p.Err("ConflictingFields", field+".filters", "", "a redirect cannot be combined with a URLRewrite")
	case out.Redirect == nil:
		if len(r.BackendRefs) == 0 && p.Written(field) {
			p.Warn("MissingField", field+".backendRefs", "name a backend, or add a RequestRedirect", "the rule has no backends: its requests are answered 500")
		}
		noBackend(&out)
	}
	return out
}

// noBackend answers 500 where no backend can take the request, as the Gateway API asks.
func noBackend(r *model.HTTPRoute) {
	for _, d := range r.Destinations {
		if d.Weight > 0 {
			return
		}
	}
	r.Destinations, r.Direct = nil, &model.DirectResponse{Status: 500}
}

// prefixOnly checks that a prefix is replaced only where one is matched.
func (p converter) prefixOnly(r *model.HTTPRoute, field string) {
	replaces := r.Redirect != nil && r.Redirect.Prefix != nil || r.Rewrite != nil && r.Rewrite.URI != ""
	for _, m := range r.Matches {
		if replaces && !m.Path.SegmentPrefix {
			p.Err("ConflictingFields", field+".filters", "match by PathPrefix, or use ReplaceFullPath", "ReplacePrefixMatch needs all matches of the rule to be of type PathPrefix")
			return
		}
	}
}

func (p converter) apiMatch(m *gatewayv1.HTTPRouteMatch, field string) model.HTTPMatch {
	out := model.HTTPMatch{Field: field, Path: model.StringMatch{Prefix: "/", SegmentPrefix: true}}
	if m.Path != nil {
		out.Path = p.apiPath(m.Path, field+".path")
	}
	if m.Method != nil {
		out.Method = model.StringMatch{Exact: string(*m.Method), IsExact: true}
	}
	for i, h := range m.Headers {
		f := parts.At(field+".headers", i)
		if !parts.IsHeaderName(string(h.Name)) {
			p.Err("InvalidHeaderName", f+".name", "", "%q is not a header name", h.Name)
		}
		out.Headers = p.Named(out.Headers, strings.ToLower(string(h.Name)), h.Value, parts.OrEmpty(h.Type), f)
	}
	for i, q := range m.QueryParams {
		f := parts.At(field+".queryParams", i)
		if q.Name == "" {
			p.Err("InvalidValue", f+".name", "", "the parameter's name is empty")
		}
		out.Query = p.Named(out.Query, string(q.Name), q.Value, parts.OrEmpty(q.Type), f)
	}
	return out
}

func (p converter) apiPath(m *gatewayv1.HTTPPathMatch, field string) model.StringMatch {
	value := "/"
	if m.Value != nil {
		value = *m.Value
	}
	p.NotTooBig(value, field+".value")
	kind := parts.OrEmpty(m.Type)
	if kind != "RegularExpression" && (!strings.HasPrefix(value, "/") || strings.Contains(value, "//") || strings.ContainsAny(value, "?#")) {
		p.Err("InvalidValue", field+".value", "", `%q is not an absolute path: it starts with "/" and has neither "//", "?" nor "#"`, value)
	}
	switch kind {
	case "", "PathPrefix":
		if value != "/" {
			value = strings.TrimSuffix(value, "/")
		}
		return model.StringMatch{Prefix: value, SegmentPrefix: true}
	case "Exact":
		return model.StringMatch{Exact: value, IsExact: true}
	case "RegularExpression":
		p.Regex(value, field+".value")
		return model.StringMatch{Regex: value}
	}
	p.Err("InvalidValue", field+".type", "", "%q is not one of Exact, PathPrefix, RegularExpression", kind)
	return model.StringMatch{}
}

// apiBackend converts a backend; whether it exists and may be used is looked up later.
func (p converter) apiBackend(b *gatewayv1.HTTPBackendRef, field string) model.WeightedDestination {
	out := p.apiRef(b.BackendObjectReference, field)
	out.Weight = 1
	if b.Weight != nil {
		out.Weight = p.Weight(*b.Weight, field+".weight")
	}
	for i := range b.Filters {
		f, at := &b.Filters[i], parts.At(field+".filters", i)
		switch f.Type {
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
			out.Request = p.apiHeaders(f.RequestHeaderModifier, at+".requestHeaderModifier", true)
		case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
			out.Response = p.apiHeaders(f.ResponseHeaderModifier, at+".responseHeaderModifier", false)
		default:
			p.Unsupported(at, "on a backend, only header modifiers can be used")
		}
	}
	return out
}

func (p converter) apiRef(b gatewayv1.BackendObjectReference, field string) model.WeightedDestination {
	group, kind := parts.OrEmpty(b.Group), cmp.Or(parts.OrEmpty(b.Kind), "Service")
	out := model.WeightedDestination{Host: parts.ServiceHost(string(b.Name), parts.NamespaceOr(b.Namespace, p.GetNamespace()), p.Mesh)}
	switch {
	case NamesHost(b):
		out.Host = parts.HostName(string(b.Name))
		if b.Namespace != nil {
			p.Err("ConflictingFields", field+".namespace", "leave it out", "a host is of no namespace")
		}
	case group != "" && group != "core" || kind != "Service":
		p.Warn("InvalidKind", field+".kind", "use a Service, or a Hostname of "+source.GroupNetworking, "a %s (%s) cannot be a backend: %s", kind, group, p.Fate())
		return model.WeightedDestination{Host: string(b.Name), Invalid: "InvalidKind"}
	}
	if b.Port == nil {
		p.Err("MissingField", field+".port", "", "a %s needs a port", kind)
		return out
	}
	out.Port = p.ValidPort(uint32(max(*b.Port, 0)), field+".port")
	return out
}

// NamesHost reports whether a backend is named by its host, as Istio has it for what is outside of the cluster.
func NamesHost(b gatewayv1.BackendObjectReference) bool {
	return parts.OrEmpty(b.Group) == source.GroupNetworking && parts.OrEmpty(b.Kind) == "Hostname"
}

func (p converter) apiTimeouts(t *gatewayv1.HTTPRouteTimeouts, field string, out *model.HTTPRoute) {
	if t == nil {
		return
	}
	out.Timeout = p.APIDuration(t.Request, field+".request")
	backend := p.APIDuration(t.BackendRequest, field+".backendRequest")
	switch {
	case backend == 0:
	case out.Timeout > 0 && backend > out.Timeout:
		p.Err("InvalidDuration", field+".backendRequest", "", "%s is longer than the request's %s", backend, out.Timeout)
	case out.Retries != nil && out.Retries.Attempts > 0:
		out.Retries.PerTryTimeout = backend
	default:
		out.Timeout = backend // there is one try
	}
}

func (p converter) apiRetry(r *gatewayv1.HTTPRouteRetry, field string, out *model.HTTPRoute) {
	if r == nil {
		return
	}
	out.Retries = &model.Retries{Attempts: 1, BackOff: p.APIDuration(r.Backoff, field+".backoff")}
	if r.Attempts != nil {
		if *r.Attempts < 0 {
			p.Err("InvalidValue", field+".attempts", "", "%d attempts", *r.Attempts)
		}
		out.Retries.Attempts = uint32(max(*r.Attempts, 0))
	}
	var on []string
	for i, code := range r.Codes {
		if code < 400 || code > 599 {
			p.Err("InvalidStatus", parts.At(field+".codes", i), "", "status %d is not between 400 and 599", code)
		}
		on = append(on, strconv.Itoa(int(code)))
	}
	// Who asks for retries is to get them on all that may happen to a connection, as the Gateway API says.
	out.Retries.RetryOn = strings.Join(append(on, "connect-failure", "reset", "refused-stream", "reset-before-request"), ",")
}
