package decode

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// overrides is what a route, a virtual host or a table says of filters, retries and mirrors. What the inner says replaces what the
// outer does, one by one.
type overrides struct {
	fault   *conf.Fault
	cors    *conf.CORS
	retry   *conf.Retry
	hedge   bool
	mirrors []conf.Mirror
	// limits by the name of the filter; nil for one that is turned off.
	limits map[string]*conf.LocalLimit
}

// perFilter decodes what typed_per_filter_config says beside what is said further out.
func (d *decoder) perFilter(ms map[string]*anypb.Any, outer overrides) overrides {
	o := outer
	for _, name := range slices.Sorted(maps.Keys(ms)) {
		d.at("typed_per_filter_config["+name+"]", func() { d.override(name, ms[name], &o, false) })
	}
	return o
}

// override decodes one filter's; the message's type says which, whatever its name.
func (d *decoder) override(name string, a *anypb.Any, o *overrides, disabled bool) {
	switch string(a.MessageName()) {
	case "envoy.config.route.v3.FilterConfig":
		m := &routev3.FilterConfig{}
		if !d.typed(a, m) {
			return
		}
		d.only(m, "config", "disabled",
			"is_optional") // without effect: a filter that is not supported is refused in any case
		d.at("config", func() { d.override(name, m.GetConfig(), o, m.GetDisabled()) })
	case "envoy.extensions.filters.http.fault.v3.HTTPFault":
		if m := (&faultv3.HTTPFault{}); d.typed(a, m) {
			o.fault = unless(disabled, d.fault(m))
		}
	case "envoy.extensions.filters.http.cors.v3.CorsPolicy":
		if m := (&corsv3.CorsPolicy{}); d.typed(a, m) {
			o.cors = unless(disabled, d.cors(m))
		}
	case localLimitFilter:
		if m := (&locallimitv3.LocalRateLimit{}); d.typed(a, m) {
			if o.limits = maps.Clone(o.limits); o.limits == nil {
				o.limits = map[string]*conf.LocalLimit{}
			}
			o.limits[name] = unless(disabled, d.localLimit(name, m))
		}
	default:
		d.fail("filter of type %q is not supported", a.GetTypeUrl())
	}
}

func unless[T any](disabled bool, v *T) *T {
	if disabled {
		return nil
	}
	return v
}
