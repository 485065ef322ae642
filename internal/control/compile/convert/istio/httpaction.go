package istio

import (
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// retryConditions are those of Envoy's that proxies carry out, and one of ours, which Istio's retryOn takes beside status codes.
var retryConditions = []string{"5xx", "gateway-error", "reset", "safe-reset", "reset-before-request", "connect-failure", "refused-stream",
	"retriable-4xx", "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func (p converter) retries(r *networkingapi.HTTPRetry, field string) *model.Retries {
	if r == nil {
		return nil
	}
	p.Only(r, field, "attempts", "perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff", "retryIgnorePreviousHosts")
	if r.Attempts < 0 {
		p.Err("InvalidValue", field+".attempts", "", "%d attempts", r.Attempts)
	}
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "") {
		p.Err("ConflictingFields", field, "", "attempts is 0, which turns retries off: nothing else can be set")
	}
	for _, c := range parts.SplitList(r.RetryOn) {
		code, err := strconv.ParseUint(c, 10, 16)
		if !slices.Contains(retryConditions, c) && (err != nil || code < 100 || code > 599) {
			p.Err("InvalidValue", field+".retryOn", "use "+strings.Join(retryConditions, ", ")+" or status codes", "%q is not a retry condition that proxies carry out", c)
		}
	}
	return &model.Retries{Attempts: uint32(max(r.Attempts, 0)), PerTryTimeout: p.Timeout(r.PerTryTimeout, field+".perTryTimeout"),
		RetryOn: r.RetryOn, BackOff: p.Timeout(r.Backoff, field+".backoff"), RemoteLocalities: r.RetryRemoteLocalities.GetValue(),
		SameHosts: r.RetryIgnorePreviousHosts != nil && !r.RetryIgnorePreviousHosts.GetValue()}
}

func (p converter) fault(f *networkingapi.HTTPFaultInjection, field string) *model.Fault {
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

func (p converter) delay(d *networkingapi.HTTPFaultInjection_Delay, field string, out *model.Fault) {
	if d == nil {
		return
	}
	p.Only(d, field, "fixedDelay", "percentage", "percent")
	out.DelayPercent = p.Percent(float64(d.Percent), field+".percent") //nolint:staticcheck // deprecated, and still in use
	if d.Percentage != nil {
		out.DelayPercent = p.Percent(d.Percentage.Value, field+".percentage.value")
	}
	if d.GetFixedDelay() == nil {
		if d.HttpDelayType == nil { // another is refused
			p.Err("MissingField", field+".fixedDelay", "", "a fixedDelay is needed")
		}
		return
	}
	out.Delay = p.Timeout(d.GetFixedDelay(), field+".fixedDelay")
	p.neverInjected(out.DelayPercent, field)
}

// grpcStatuses are the names that an abort may use (gRPC's status codes).
var grpcStatuses = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
	"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

func (p converter) abort(a *networkingapi.HTTPFaultInjection_Abort, field string, out *model.Fault) {
	if a == nil {
		return
	}
	p.Only(a, field, "httpStatus", "grpcStatus", "percentage")
	switch t := a.ErrorType.(type) {
	case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
		p.ValidStatus(uint32(max(t.HttpStatus, 0)), field+".httpStatus")
		out.AbortStatus = int(t.HttpStatus)
	case *networkingapi.HTTPFaultInjection_Abort_GrpcStatus:
		if !slices.Contains(grpcStatuses, t.GrpcStatus) {
			p.Err("InvalidValue", field+".grpcStatus", "", "%q is not one of %s", t.GrpcStatus, strings.Join(grpcStatuses, ", "))
		}
		out.AbortGRPC = t.GrpcStatus
	case nil: // others are refused
		p.Err("MissingField", field, "", "one of httpStatus and grpcStatus is needed")
	}
	if a.Percentage != nil {
		out.AbortPercent = p.Percent(a.Percentage.Value, field+".percentage.value")
	}
	p.neverInjected(out.AbortPercent, field)
}

func (p converter) neverInjected(percent float64, field string) {
	if percent == 0 {
		p.Warn("FaultNeverInjected", field, "set percentage.value", "no request is affected: the percentage is 0, which is the default")
	}
}

// mirrorPercent gives the part of a rule's requests that its mirror gets.
func (p converter) mirrorPercent(r *networkingapi.HTTPRoute, field string) float64 {
	percent, name := 100.0, ""
	switch {
	case r.MirrorPercentage != nil:
		name, percent = ".mirrorPercentage", p.Percent(r.MirrorPercentage.Value, field+".mirrorPercentage.value")
	case r.MirrorPercent != nil:
		name, percent = ".mirrorPercent", p.Percent(float64(r.MirrorPercent.Value), field+".mirrorPercent")
	}
	if r.Mirror == nil && name != "" {
		p.Warn("NoEffect", field+name, "", "nothing is mirrored without mirror")
	}
	return percent
}

func (p converter) mirrors(r *networkingapi.HTTPRoute, field string) []model.Mirror {
	if r.Mirror != nil && len(r.Mirrors) > 0 {
		p.Err("ConflictingFields", field+".mirrors", "", "only one of mirror and mirrors can be set")
	}
	var out []model.Mirror
	if percent := p.mirrorPercent(r, field); r.Mirror != nil {
		out = append(out, model.Mirror{Destination: p.destination(r.Mirror, field+".mirror"), Percent: percent})
	}
	for i, mp := range r.Mirrors {
		f := parts.At(field+".mirrors", i)
		p.Only(mp, f, "destination", "percentage")
		m := model.Mirror{Destination: p.destination(mp.Destination, f+".destination"), Percent: 100}
		if mp.Percentage != nil {
			m.Percent = p.Percent(mp.Percentage.Value, f+".percentage.value")
		}
		out = append(out, m)
	}
	return out
}

// headers converts changes to request and response.
func (p converter) headers(h *networkingapi.Headers, field string) (request, response model.HeaderChange) {
	if h == nil {
		return request, response
	}
	return p.headerChange(h.Request, field+".request", true), p.headerChange(h.Response, field+".response", false)
}

func (p converter) headerChange(h *networkingapi.Headers_HeaderOperations, field string, request bool) model.HeaderChange {
	if h == nil {
		return model.HeaderChange{}
	}
	return p.HeaderChange(model.HeaderChange{Set: h.Set, Add: h.Add, Remove: h.Remove}, field, request)
}

func (p converter) redirect(r *networkingapi.HTTPRedirect, field string) *model.Redirect {
	if r == nil {
		return nil
	}
	p.Only(r, field, "uri", "authority", "port", "derivePort", "scheme", "redirectCode", "prefixRewrite")
	out := &model.Redirect{Code: 301, Scheme: r.Scheme, Authority: r.Authority, URI: r.Uri}
	if r.RedirectCode != 0 {
		out.Code = int(r.RedirectCode)
	}
	p.ValidRedirectCode(out.Code, field+".redirectCode")
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
	if !parts.IsHeaderValue(r.Uri + r.PrefixRewrite + r.Authority) {
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

// maxDirectBody bounds the body of a direct response, in bytes, as proxies do.
const maxDirectBody = 64 << 10

func (p converter) directResponse(d *networkingapi.HTTPDirectResponse, field string) *model.DirectResponse {
	if d == nil {
		return nil
	}
	p.ValidStatus(d.Status, field+".status")
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

func (p converter) rewrite(r *networkingapi.HTTPRewrite, field string) *model.Rewrite {
	if r == nil {
		return nil
	}
	out := &model.Rewrite{URI: r.Uri, Authority: r.Authority}
	if r.UriRegexRewrite != nil {
		p.Substitution(r.UriRegexRewrite.Rewrite, p.Regex(r.UriRegexRewrite.Match, field+".uriRegexRewrite.match"), field+".uriRegexRewrite.rewrite")
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
	if !parts.IsHeaderValue(r.Uri) || strings.ContainsAny(r.Uri, " ") {
		p.Err("InvalidValue", field+".uri", "", "a path cannot contain spaces or line ends")
	}
	p.ValidAuthority(r.Authority, field+".authority")
	return out
}
