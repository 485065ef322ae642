package security

import (
	"math"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/weftapi"
)

// rateLimit converts a RateLimit.
func (p converter) rateLimit(r *weftapi.RateLimit) {
	out := &model.RateLimit{Ref: p.Ref(), Namespace: r.Namespace, Status: 429, Report: r.Spec.ReportQuota, Created: p.Born}
	if r.Namespace == p.Mesh.RootNamespace {
		out.Namespace = ""
	}
	if s := r.Spec.Selector; s != nil {
		out.Selector = p.ValidLabels(s.MatchLabels, "spec.selector.matchLabels")
	}
	switch s := r.Spec.Status; {
	case s == 0:
	case s < 400 || s > 599:
		p.Err("InvalidStatus", "spec.status", "", "%d is not the status of a failure (400 to 599)", s)
	default:
		out.Status = uint32(s)
	}
	if s := r.Spec.Service; s != nil {
		out.Service = p.limitService(s, "spec.service")
	}
	if len(r.Spec.Rules) == 0 {
		p.Err("MissingField", "spec.rules", "", "at least one rule is needed")
	}
	names := map[string]int{}
	for i := range r.Spec.Rules {
		field, rule := parts.At("spec.rules", i), &r.Spec.Rules[i]
		if rule.Name == "" {
			p.Err("MissingField", field+".name", "", "a rule needs a name")
		} else if first, ok := names[rule.Name]; ok {
			p.Err("InvalidName", field+".name", "", "name %q is already that of spec.rules[%d]", rule.Name, first)
		}
		names[rule.Name] = i
		out.Rules = append(out.Rules, p.limitRule(rule, field, out.Service != nil))
	}
	p.RateLimit = out
}

func (p converter) limitRule(r *weftapi.RateLimitRule, field string, global bool) model.RateLimitRule {
	out := model.RateLimitRule{Name: r.Name, DryRun: r.DryRun}
	if r.Match != nil {
		p.limitMatch(r.Match, field+".match", &out)
	}
	if global {
		p.limitEntries(r, field, &out)
		return out
	}
	if len(r.Descriptor) > 0 {
		p.Err("ConflictingFields", field+".descriptor", "use each, or give spec.service", "only a rate-limit service takes descriptors")
	}
	for i := range r.Each {
		out.Keys = append(out.Keys, p.limitKey(&r.Each[i], parts.At(field+".each", i)))
	}
	p.limitValue(&r.Limit, field+".limit", &out)
	return out
}

func (p converter) limitMatch(m *weftapi.RateLimitMatch, field string, out *model.RateLimitRule) {
	if len(m.Methods)+len(m.Paths)+len(m.Headers) == 0 {
		p.Err("MissingField", field, "leave it out to limit all requests", "one of methods, paths and headers is needed")
	}
	for i, method := range m.Methods {
		if !parts.IsHeaderName(method) {
			p.Err("InvalidValue", parts.At(field+".methods", i), "", "%q is not a method", method)
		}
	}
	for i, path := range m.Paths {
		f := parts.At(field+".paths", i)
		if inner := strings.TrimSuffix(path, "*"); strings.Contains(inner, "*") || strings.ContainsAny(inner, "?#") || !strings.HasPrefix(inner, "/") {
			p.Err("InvalidValue", f, `write an exact path, or a prefix like "/api/*"`, "%q is not a path", path)
		}
		p.NotTooBig(path, f)
	}
	out.Methods, out.Paths = m.Methods, m.Paths
	for i, h := range m.Headers {
		f := parts.At(field+".headers", i)
		if !parts.IsHeaderName(h.Name) {
			p.Err("InvalidHeaderName", f+".name", "", "%q is not a header name", h.Name)
		}
		set := 0
		for _, v := range []string{h.Exact, h.Prefix, h.Regex} {
			if v != "" {
				set++
			}
		}
		if set > 1 {
			p.Err("ConflictingFields", f, "", "only one of exact, prefix and regex can be set")
		}
		if h.Regex != "" {
			p.Regex(h.Regex, f+".regex")
		}
		out.Headers = append(out.Headers, model.NamedMatch{Name: strings.ToLower(h.Name),
			Match: model.StringMatch{Exact: h.Exact, Prefix: h.Prefix, Regex: h.Regex, Present: set == 0}})
	}
}

func (p converter) limitKey(k *weftapi.RateLimitKey, field string) model.RateLimitKey {
	set := 0
	for _, is := range []bool{k.Header != "", k.Query != "", k.ClientAddress != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		p.Err("ConflictingFields", field, "", "exactly one of header, query and clientAddress is needed")
	}
	if k.Header != "" && !parts.IsHeaderName(k.Header) {
		p.Err("InvalidHeaderName", field+".header", "", "%q is not a header name", k.Header)
	}
	out := model.RateLimitKey{Header: strings.ToLower(k.Header), Query: k.Query}
	if n := k.ClientAddress; n != nil {
		if out.V4, out.V6 = n.IPv4PrefixLength, n.IPv6PrefixLength; out.V4 > 32 || out.V6 > 128 {
			p.Err("InvalidValue", field+".clientAddress", "", "a prefix is longer than the address")
		}
	}
	return out
}

func (p converter) limitValue(v *weftapi.RateLimitValue, field string, out *model.RateLimitRule) {
	out.Requests, out.Burst = v.Requests, v.Burst
	if v.Requests == 0 {
		p.Err("InvalidValue", field+".requests", "", "a limit of 0 lets nothing through: use an AuthorizationPolicy")
	}
	if v.Burst == 0 {
		out.Burst = v.Requests
	}
	per, err := time.ParseDuration(v.Per)
	if err != nil || per < time.Millisecond || per > 31*24*time.Hour {
		p.Err("InvalidDuration", field+".per", `write it like "1s", "1m" or "1h"`, "%q is not a duration between 1ms and 31 days", v.Per)
	}
	if out.Per = per; float64(out.Burst)*float64(per)/float64(max(v.Requests, 1)) > math.MaxInt64/4 {
		p.Err("InvalidValue", field+".burst", "", "so many take longer than a lifetime")
	}
}
