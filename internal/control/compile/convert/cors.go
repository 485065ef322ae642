package convert

import (
	"net/url"
	"regexp"
	"strings"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// cors converts what a VirtualService lets other origins do.
func (p *Part) cors(c *networkingapi.CorsPolicy, field string) *model.CORS {
	if c == nil {
		return nil
	}
	p.only(c, field, "allowOrigin", "allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials", "unmatchedPreflights")
	out := &model.CORS{Methods: c.AllowMethods, Headers: c.AllowHeaders, Expose: c.ExposeHeaders, Credentials: c.AllowCredentials.GetValue(),
		AnswerUnmatched: c.UnmatchedPreflights == networkingapi.CorsPolicy_IGNORE}
	for _, o := range c.AllowOrigin { //nolint:staticcheck // deprecated, and still in use
		out.Origins = append(out.Origins, model.StringMatch{Exact: o, IsExact: true})
	}
	for i, o := range c.AllowOrigins {
		out.Origins = append(out.Origins, p.stringMatch(o, At(field+".allowOrigins", i), false))
	}
	p.tokens(out.Methods, field+".allowMethods")
	p.tokens(out.Headers, field+".allowHeaders")
	p.tokens(out.Expose, field+".exposeHeaders")
	if c.MaxAge != nil {
		age := c.MaxAge.AsDuration()
		if age < 0 || age%time.Second != 0 {
			p.Err("InvalidDuration", field+".maxAge", "", "%s is not a number of whole seconds", age)
		}
		p.notTooLong(age, field+".maxAge")
		out.MaxAge = &age
	}
	p.anyOrigin(out, field)
	return out
}

// tokens checks names of methods or fields, which may be "*".
func (p *Part) tokens(list []string, field string) {
	for i, v := range list {
		if !headerName(v) {
			p.Err("InvalidHeaderName", At(field, i), "", "%q is not a name", v)
		}
	}
}

// anyOrigin warns of what opens a service to every page on the internet with its user's rights.
func (p *Part) anyOrigin(c *model.CORS, field string) {
	if len(c.Origins) == 0 {
		p.Warn("NoEffect", field+".allowOrigins", "", "no origin is allowed: the policy has no effect")
	}
	for i, o := range c.Origins {
		if c.Credentials && (o.Exact == "*" || o.Regex == ".*") {
			p.Warn("AnyOrigin", At(field+".allowOrigins", i), "name the origins", "every page on the internet may use its visitors' credentials here")
		}
	}
}

// defaultMaxAge is how long browsers keep an answer where an HTTPRoute does not say.
const defaultMaxAge = 5 * time.Second

// apiCORS converts the filter of an HTTPRoute.
func (p *Part) apiCORS(f *gatewayv1.HTTPCORSFilter, field string) *model.CORS {
	out := &model.CORS{Credentials: f.AllowCredentials != nil && *f.AllowCredentials, AnswerUnmatched: true}
	for i, o := range f.AllowOrigins {
		out.Origins = append(out.Origins, p.apiOrigin(string(o), At(field+".allowOrigins", i)))
	}
	for _, m := range f.AllowMethods {
		out.Methods = append(out.Methods, string(m))
	}
	for _, h := range f.AllowHeaders {
		out.Headers = append(out.Headers, string(h))
	}
	for _, h := range f.ExposeHeaders {
		out.Expose = append(out.Expose, string(h))
	}
	p.tokens(out.Methods, field+".allowMethods")
	p.tokens(out.Headers, field+".allowHeaders")
	p.tokens(out.Expose, field+".exposeHeaders")
	age := defaultMaxAge
	if f.MaxAge != 0 {
		if age = time.Duration(f.MaxAge) * time.Second; age < 0 {
			p.Err("InvalidValue", field+".maxAge", "", "%d is less than 1", f.MaxAge)
		}
	}
	out.MaxAge = &age
	p.anyOrigin(out, field)
	return out
}

// apiOrigin converts "*", "https://www.example.com", and "https://*.example.com", which any labels may precede.
func (p *Part) apiOrigin(o, field string) model.StringMatch {
	if o == "*" {
		return model.StringMatch{Exact: "*", IsExact: true}
	}
	u, err := url.Parse(strings.Replace(o, "*", "wildcard", 1))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path+u.RawQuery+u.Fragment != "" || u.User != nil {
		p.Err("InvalidValue", field, `write "*", "https://www.example.com" or "https://*.example.com"`, "%q is not an origin", o)
		return model.StringMatch{}
	}
	before, after, wild := strings.Cut(o, "*")
	if !wild {
		return model.StringMatch{Exact: o, IsExact: true}
	}
	if before != u.Scheme+"://" || strings.Contains(after, "*") || after != "" && after[0] != '.' && after[0] != ':' {
		p.Err("InvalidValue", field, "", "%q: a star stands for the first labels of a host", o)
		return model.StringMatch{}
	}
	return model.StringMatch{Regex: regexp.QuoteMeta(before) + "[a-zA-Z0-9.-]+" + regexp.QuoteMeta(after)}
}
