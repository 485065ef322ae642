package generate

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
)

const corsFilter = "envoy.filters.http.cors"

// perFilter gives what a rule says of filters; nil when it says nothing.
func (g *Generator) perFilter(r *model.HTTPRoute) map[string]*anypb.Any {
	out := map[string]*anypb.Any{}
	if r.Fault != nil {
		if f := fault(r.Fault); f != nil {
			out[faultFilter] = pack(f)
		}
	}
	if r.CORS != nil && !g.node.Proxyless {
		out[corsFilter] = pack(cors(r.CORS))
	}
	if r.Session != nil && !g.node.Proxyless {
		out[sessionFilter] = pack(session(r.Session))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func cors(c *model.CORS) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(c.Methods, ","), AllowHeaders: strings.Join(c.Headers, ","), ExposeHeaders: strings.Join(c.Expose, ","),
		FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: percent(100)},
	}
	for _, o := range c.Origins {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, stringMatch(o))
	}
	if c.MaxAge != nil {
		out.MaxAge = strconv.FormatInt(int64(c.MaxAge.Seconds()), 10)
	}
	if c.Credentials {
		out.AllowCredentials = wrapperspb.Bool(true)
	}
	if c.AnswerUnmatched {
		out.ForwardNotMatchingPreflights = wrapperspb.Bool(false)
	}
	return out
}
