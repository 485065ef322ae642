package decode

import (
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) cors(m *corsv3.CorsPolicy) *conf.CORS {
	d.Only(m, "allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credentials",
		"filter_enabled", "allow_private_network_access", "forward_not_matching_preflights",
		"shadow_enabled") // without effect: it only counts
	c := &conf.CORS{
		Methods: m.GetAllowMethods(), Headers: m.GetAllowHeaders(), Expose: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(),
		Credentials: m.GetAllowCredentials().GetValue(), PrivateNetwork: m.GetAllowPrivateNetworkAccess().GetValue(),
		AnswerUnmatched: isFalse(m.GetForwardNotMatchingPreflights()), Fraction: walk.Million,
	}
	for i, o := range m.GetAllowOriginStringMatch() {
		c.Origins = append(c.Origins, d.StringMatch("allow_origin_string_match["+strconv.Itoa(i)+"]", o))
	}
	for _, f := range [][2]string{{"allow_methods", c.Methods}, {"allow_headers", c.Headers}, {"expose_headers", c.Expose}, {"max_age", c.MaxAge}} {
		d.At(f[0], func() { d.fieldValue(f[1]) })
	}
	if f := m.GetFilterEnabled(); f != nil {
		c.Fraction = d.RuntimeFraction("filter_enabled", f)
	}
	return c
}

// oldCORS decodes the policy in the place where it was before filters had their own configuration.
func (d *decoder) oldCORS(m *routev3.CorsPolicy) *conf.CORS {
	d.Only(m, "allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credentials",
		"filter_enabled", "shadow_enabled", "allow_private_network_access", "forward_not_matching_preflights")
	return d.cors(&corsv3.CorsPolicy{
		AllowOriginStringMatch: m.GetAllowOriginStringMatch(), AllowMethods: m.GetAllowMethods(), AllowHeaders: m.GetAllowHeaders(),
		ExposeHeaders: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(), AllowCredentials: m.GetAllowCredentials(), FilterEnabled: m.GetFilterEnabled(),
		ShadowEnabled: m.GetShadowEnabled(), AllowPrivateNetworkAccess: m.GetAllowPrivateNetworkAccess(),
		ForwardNotMatchingPreflights: m.GetForwardNotMatchingPreflights(),
	})
}

// isFalse reports whether a switch that is on by default was turned off.
func isFalse(v *wrapperspb.BoolValue) bool { return v != nil && !v.GetValue() }
