package istio

import (
	"slices"
	"strings"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// corsMethods are those that Istio knows.
var corsMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"}

// cors converts what a VirtualService lets other origins do.
func (p converter) cors(c *networkingapi.CorsPolicy, field string) *model.CORS {
	if c == nil {
		return nil
	}
	p.Only(c, field, "allowOrigin", "allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials", "unmatchedPreflights")
	out := &model.CORS{Methods: c.AllowMethods, Headers: c.AllowHeaders, Expose: c.ExposeHeaders, Credentials: c.AllowCredentials.GetValue(),
		AnswerUnmatched: c.UnmatchedPreflights == networkingapi.CorsPolicy_IGNORE}
	for _, o := range c.AllowOrigin { //nolint:staticcheck // deprecated, and still in use
		out.Origins = append(out.Origins, model.StringMatch{Exact: o, IsExact: true})
	}
	for i, o := range c.AllowOrigins {
		out.Origins = append(out.Origins, p.stringMatch(o, parts.At(field+".allowOrigins", i), false))
	}
	for i, m := range out.Methods {
		if !slices.Contains(corsMethods, m) {
			p.Err("InvalidValue", parts.At(field+".allowMethods", i), "use one of "+strings.Join(corsMethods, ", "), "%q is not a method that can be allowed", m)
		}
	}
	p.Tokens(out.Headers, field+".allowHeaders")
	p.Tokens(out.Expose, field+".exposeHeaders")
	if c.MaxAge != nil {
		age := c.MaxAge.AsDuration()
		if age < 0 || age%time.Second != 0 {
			p.Err("InvalidDuration", field+".maxAge", "", "%s is not a number of whole seconds", age)
		}
		p.NotTooLong(age, field+".maxAge")
		out.MaxAge = &age
	}
	p.AnyOrigin(out, field)
	return out
}
