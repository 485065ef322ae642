package convert

import (
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// retryConditions are those of Envoy's that proxies carry out, and one of ours, which Istio's retryOn takes beside status codes.
var retryConditions = []string{"5xx", "gateway-error", "reset", "safe-reset", "reset-before-request", "connect-failure", "refused-stream",
	"retriable-4xx", "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func (p *Part) retries(r *networkingapi.HTTPRetry, field string) *model.Retries {
	if r == nil {
		return nil
	}
	p.only(r, field, "attempts", "perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff", "retryIgnorePreviousHosts")
	if r.Attempts < 0 {
		p.Err("InvalidValue", field+".attempts", "", "%d attempts", r.Attempts)
	}
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "") {
		p.Err("ConflictingFields", field, "", "attempts is 0, which turns retries off: nothing else can be set")
	}
	for _, c := range splitList(r.RetryOn) {
		code, err := strconv.ParseUint(c, 10, 16)
		if !slices.Contains(retryConditions, c) && (err != nil || code < 100 || code > 599) {
			p.Err("InvalidValue", field+".retryOn", "use "+strings.Join(retryConditions, ", ")+" or status codes", "%q is not a retry condition that proxies carry out", c)
		}
	}
	return &model.Retries{Attempts: uint32(max(r.Attempts, 0)), PerTryTimeout: p.timeout(r.PerTryTimeout, field+".perTryTimeout"),
		RetryOn: r.RetryOn, BackOff: p.timeout(r.Backoff, field+".backoff"), RemoteLocalities: r.RetryRemoteLocalities.GetValue(),
		SameHosts: r.RetryIgnorePreviousHosts != nil && !r.RetryIgnorePreviousHosts.GetValue()}
}

func (p *Part) percent(v float64, field string) float64 {
	if v < 0 || v > 100 {
		p.Err("InvalidPercentage", field, "", "%g is not between 0 and 100", v)
	}
	return v
}

func (p *Part) fault(f *networkingapi.HTTPFaultInjection, field string) *model.Fault {
	if f == nil {
		return nil
	}
	if f.Delay == nil && f.Abort == nil {
		p.Err("MissingField", field, "", "one of delay and abort is needed")
	}
	out := &model.Fault{}
	p.delay(f.Delay, field+".delay", out)
	p.abort(f.Abort, field+".abort", out)
	return out
}

func (p *Part) delay(d *networkingapi.HTTPFaultInjection_Delay, field string, out *model.Fault) {
	if d == nil {
		return
	}
	p.only(d, field, "fixedDelay", "percentage", "percent")
	out.DelayPercent = p.percent(float64(d.Percent), field+".percent") //nolint:staticcheck // deprecated, and still in use
	if d.Percentage != nil {
		out.DelayPercent = p.percent(d.Percentage.Value, field+".percentage.value")
	}
	if d.GetFixedDelay() == nil {
		p.Err("MissingField", field+".fixedDelay", "", "a fixedDelay is needed")
		return
	}
	out.Delay = p.timeout(d.GetFixedDelay(), field+".fixedDelay")
	p.neverInjected(out.DelayPercent, field)
}

// grpcStatuses are the names that an abort may use (gRPC's status codes).
var grpcStatuses = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
	"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

func (p *Part) abort(a *networkingapi.HTTPFaultInjection_Abort, field string, out *model.Fault) {
	if a == nil {
		return
	}
	p.only(a, field, "httpStatus", "grpcStatus", "percentage")
	switch t := a.ErrorType.(type) {
	case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
		p.status(uint32(max(t.HttpStatus, 0)), field+".httpStatus")
		out.AbortStatus = int(t.HttpStatus)
	case *networkingapi.HTTPFaultInjection_Abort_GrpcStatus:
		if !slices.Contains(grpcStatuses, t.GrpcStatus) {
			p.Err("InvalidValue", field+".grpcStatus", "", "%q is not one of %s", t.GrpcStatus, strings.Join(grpcStatuses, ", "))
		}
		out.AbortGRPC = t.GrpcStatus
	default:
		p.Err("MissingField", field, "", "one of httpStatus and grpcStatus is needed")
	}
	if a.Percentage != nil {
		out.AbortPercent = p.percent(a.Percentage.Value, field+".percentage.value")
	}
	p.neverInjected(out.AbortPercent, field)
}

func (p *Part) neverInjected(percent float64, field string) {
	if percent == 0 {
		p.Warn("FaultNeverInjected", field, "set percentage.value", "no request is affected: the percentage is 0, which is the default")
	}
}

// status checks a status that the proxy itself answers with.
func (p *Part) status(code uint32, field string) {
	if code < 200 || code > 599 {
		p.Err("InvalidStatus", field, "", "status %d is not between 200 and 599", code)
	}
}

func (p *Part) mirrors(r *networkingapi.HTTPRoute, field string) []model.Mirror {
	if r.Mirror != nil && len(r.Mirrors) > 0 {
		p.Err("ConflictingFields", field+".mirrors", "", "only one of mirror and mirrors can be set")
	}
	if r.Mirror == nil && (r.MirrorPercentage != nil || r.MirrorPercent != nil) {
		p.Err("ConflictingFields", field+".mirrorPercentage", "", "it is set without mirror")
	}
	var out []model.Mirror
	if r.Mirror != nil {
		m := model.Mirror{Destination: p.destination(r.Mirror, field+".mirror"), Percent: 100}
		switch {
		case r.MirrorPercentage != nil:
			m.Percent = p.percent(r.MirrorPercentage.Value, field+".mirrorPercentage.value")
		case r.MirrorPercent != nil:
			m.Percent = p.percent(float64(r.MirrorPercent.Value), field+".mirrorPercent")
		}
		out = append(out, m)
	}
	for i, mp := range r.Mirrors {
		f := At(field+".mirrors", i)
		p.only(mp, f, "destination", "percentage")
		m := model.Mirror{Destination: p.destination(mp.Destination, f+".destination"), Percent: 100}
		if mp.Percentage != nil {
			m.Percent = p.percent(mp.Percentage.Value, f+".percentage.value")
		}
		out = append(out, m)
	}
	return out
}

// headers converts changes to request and response.
func (p *Part) headers(h *networkingapi.Headers, field string) (request, response model.HeaderChange) {
	if h == nil {
		return request, response
	}
	return p.headerChange(h.Request, field+".request", true), p.headerChange(h.Response, field+".response", false)
}

func (p *Part) headerChange(h *networkingapi.Headers_HeaderOperations, field string, request bool) model.HeaderChange {
	if h == nil {
		return model.HeaderChange{}
	}
	return p.checkedChange(model.HeaderChange{Set: h.Set, Add: h.Add, Remove: h.Remove}, field, request)
}

// checkedChange checks names and values. ":authority" can be set on a request, and no other pseudo-header.
func (p *Part) checkedChange(c model.HeaderChange, field string, request bool) model.HeaderChange {
	check := func(name, at string, set bool) {
		switch {
		case !headerName(name) && !(set && request && name == ":authority"):
			p.Err("InvalidHeaderName", at, "", "%q is not a header name", name)
		case set && !request && strings.EqualFold(name, "host"):
			p.Err("InvalidHeaderName", at, "", "a response has no Host")
		}
	}
	for _, name := range sortedKeys(c.Set) {
		check(name, Key(field+".set", name), true)
		p.checkValue(name, c.Set[name], Key(field+".set", name))
	}
	for _, name := range sortedKeys(c.Add) {
		check(name, Key(field+".add", name), false)
		p.checkValue(name, c.Add[name], Key(field+".add", name))
	}
	for i, name := range c.Remove {
		check(name, At(field+".remove", i), false)
		if strings.EqualFold(name, "host") && request {
			p.Err("InvalidHeaderName", At(field+".remove", i), "", "the Host header cannot be removed")
		}
	}
	return c
}

func (p *Part) checkValue(name, v, field string) {
	if !headerValue(v) {
		p.Err("InvalidHeaderValue", field, "", "a header value cannot contain line ends")
	}
	if strings.EqualFold(name, "host") || name == ":authority" {
		p.authority(v, field)
		return
	}
	p.operators(v, field)
}

// authority checks what takes the place of a request's host.
func (p *Part) authority(v, field string) {
	if strings.ContainsAny(v, "% /?#@") || !headerValue(v) {
		p.Err("InvalidHeaderValue", field, "", "%q is not a host", v)
	}
}

// operators refuses those of Envoy's substitutions (%REQ(x)%, %PROTOCOL%) that proxies do not make. A percent sign is written twice,
// or it would begin one.
func (p *Part) operators(v, field string) {
	for rest := v; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return
		}
		operator, after, closed := strings.Cut(after, "%")
		switch {
		case !closed:
			p.Err("InvalidHeaderValue", field, "write %% for a percent sign", "%q has a single percent sign", v)
			return
		case operator != "" && !wire.KnownOperator(operator):
			p.Unsupported(field, "proxies do not fill in %"+operator+"%; write %% for a percent sign")
			return
		}
		rest = after
	}
}

func (p *Part) redirect(r *networkingapi.HTTPRedirect, field string) *model.Redirect {
	if r == nil {
		return nil
	}
	p.only(r, field, "uri", "authority", "port", "derivePort", "scheme", "redirectCode", "prefixRewrite")
	out := &model.Redirect{Code: 301, Scheme: r.Scheme, Authority: r.Authority, URI: r.Uri}
	if r.RedirectCode != 0 {
		out.Code = int(r.RedirectCode)
	}
	p.redirectCode(out.Code, field+".redirectCode")
	if r.PrefixRewrite != "" {
		out.Prefix = &r.PrefixRewrite
	}
	switch port := r.RedirectPort.(type) {
	case *networkingapi.HTTPRedirect_Port:
		out.Port = p.ValidPort(port.Port, field+".port")
	case *networkingapi.HTTPRedirect_DerivePort:
		out.DerivePort = port.DerivePort.String()
	}
	if r.Uri != "" && r.PrefixRewrite != "" {
		p.Err("ConflictingFields", field+".prefixRewrite", "", "only one of uri and prefixRewrite can be set")
	}
	if strings.Contains(r.Uri, "%PREFIX()%") {
		p.Unsupported(field+".uri", "use prefixRewrite")
	}
	if !headerValue(r.Uri + r.PrefixRewrite + r.Authority) {
		p.Err("InvalidValue", field, "", "a location cannot contain line ends")
	}
	if r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https" {
		p.Err("InvalidValue", field+".scheme", "", "%q is neither http nor https", r.Scheme)
	}
	if r.Uri+r.PrefixRewrite+r.Authority+r.Scheme == "" && r.RedirectPort == nil {
		p.Err("MissingField", field, "", "one of uri, prefixRewrite, authority, scheme and port is needed")
	}
	return out
}

func (p *Part) redirectCode(code int, field string) {
	if !slices.Contains([]int{301, 302, 303, 307, 308}, code) {
		p.Err("InvalidStatus", field, "", "status %d is not one of 301, 302, 303, 307, 308", code)
	}
}

// maxDirectBody bounds the body of a direct response, in bytes, as proxies do.
const maxDirectBody = 64 << 10

func (p *Part) directResponse(d *networkingapi.HTTPDirectResponse, field string) *model.DirectResponse {
	if d == nil {
		return nil
	}
	p.status(d.Status, field+".status")
	out := &model.DirectResponse{Status: int(d.Status)}
	switch b := d.Body.GetSpecifier().(type) {
	case *networkingapi.HTTPBody_String_:
		out.Body = []byte(b.String_)
	case *networkingapi.HTTPBody_Bytes:
		out.Body = b.Bytes
	}
	if len(out.Body) > maxDirectBody {
		p.Err("InvalidValue", field+".body", "", "the body has %d bytes, more than %d", len(out.Body), maxDirectBody)
	}
	return out
}

func (p *Part) rewrite(r *networkingapi.HTTPRewrite, field string) *model.Rewrite {
	if r == nil {
		return nil
	}
	out := &model.Rewrite{URI: r.Uri, Authority: r.Authority}
	if r.UriRegexRewrite != nil {
		p.substitution(r.UriRegexRewrite.Rewrite, p.regex(r.UriRegexRewrite.Match, field+".uriRegexRewrite.match"), field+".uriRegexRewrite.rewrite")
		if r.UriRegexRewrite.Rewrite == "" {
			p.Err("MissingField", field+".uriRegexRewrite.rewrite", "", "what takes the place of the match is missing")
		}
		out.Regex = &model.RegexRewrite{Match: r.UriRegexRewrite.Match, Rewrite: r.UriRegexRewrite.Rewrite}
	}
	switch {
	case r.Uri != "" && r.UriRegexRewrite != nil:
		p.Err("ConflictingFields", field+".uriRegexRewrite", "", "only one of uri and uriRegexRewrite can be set")
	case r.Uri == "" && r.Authority == "" && r.UriRegexRewrite == nil:
		p.Err("MissingField", field, "", "one of uri, authority and uriRegexRewrite is needed")
	}
	if !headerValue(r.Uri) || strings.ContainsAny(r.Uri, " ") {
		p.Err("InvalidValue", field+".uri", "", "a path cannot contain spaces or line ends")
	}
	p.authority(r.Authority, field+".authority")
	return out
}
