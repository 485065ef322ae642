package gatewayapi

import (
	"net/url"
	"regexp"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// defaultMaxAge is how long browsers keep an answer where an HTTPRoute does not say.
const defaultMaxAge = 5 * time.Second

// apiCORS converts the filter of an HTTPRoute.
func (p converter) apiCORS(f *gatewayv1.HTTPCORSFilter, field string) *model.CORS {
	out := &model.CORS{Credentials: f.AllowCredentials != nil && *f.AllowCredentials, AnswerUnmatched: true}
	for i, o := range f.AllowOrigins {
		out.Origins = append(out.Origins, p.apiOrigin(string(o), parts.At(field+".allowOrigins", i)))
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
	p.Tokens(out.Methods, field+".allowMethods")
	p.Tokens(out.Headers, field+".allowHeaders")
	p.Tokens(out.Expose, field+".exposeHeaders")
	age := defaultMaxAge
	if f.MaxAge != 0 {
		if age = time.Duration(f.MaxAge) * time.Second; age < 0 {
			p.Err("InvalidValue", field+".maxAge", "", "%d is less than 1", f.MaxAge)
		}
	}
	out.MaxAge = &age
	p.AnyOrigin(out, field)
	return out
}

// apiOrigin converts "*", "https://www.example.com", and "https://*.example.com", which any labels may precede.
func (p converter) apiOrigin(o, field string) model.StringMatch {
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
