package decode

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	locallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// overrides is what a route, a virtual host or a table says of filters, retries and mirrors. What the inner says replaces what the
// outer does, one by one.
type overrides struct {
	fault   *conf.Fault
	cors    *conf.CORS
	session *conf.Session
	retry   *conf.Retry
	hedge   bool
	mirrors []conf.Mirror
	// limits and policies by the name of the filter; nil for one that is turned off.
	limits map[string]*conf.LocalLimit
	rbac   map[string][]*conf.RBAC
}

// perFilter decodes what typed_per_filter_config says beside what is said further out.
func (d *decoder) perFilter(ms map[string]*anypb.Any, outer overrides) overrides {
	o := outer
	for _, name := range slices.Sorted(maps.Keys(ms)) {
		d.At("typed_per_filter_config["+name+"]", func() { d.override(name, ms[name], &o, false) })
	}
	return o
}

// override decodes one filter's; the message's type says which, whatever its name.
func (d *decoder) override(name string, a *anypb.Any, o *overrides, disabled bool) {
	switch string(a.MessageName()) {
	case "envoy.config.route.v3.FilterConfig":
		m := &routev3.FilterConfig{}
		if !d.Typed(a, m) {
			return
		}
		d.Only(m, "config", "disabled",
			"is_optional") // without effect: a filter that is not supported is refused in any case
		if m.GetConfig() == nil && m.GetDisabled() {
			o.disable(name)
			return
		}
		d.At("config", func() { d.override(name, m.GetConfig(), o, m.GetDisabled()) })
	case "envoy.extensions.filters.http.fault.v3.HTTPFault":
		if m := (&faultv3.HTTPFault{}); d.Typed(a, m) {
			o.fault = unless(disabled, d.fault(m))
		}
	case "envoy.extensions.filters.http.cors.v3.CorsPolicy":
		if m := (&corsv3.CorsPolicy{}); d.Typed(a, m) {
			o.cors = unless(disabled, d.cors(m))
		}
	case "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute":
		if m := (&sessionv3.StatefulSessionPerRoute{}); d.Typed(a, m) {
			o.session = unless(disabled, d.session(m))
		}
	case localLimitFilter:
		if m := (&locallimitv3.LocalRateLimit{}); d.Typed(a, m) {
			o.limits = with(o.limits, name, unless(disabled, d.localLimit(name, m)))
		}
	case "envoy.extensions.filters.http.rbac.v3.RBACPerRoute":
		m := &rbacv3.RBACPerRoute{}
		if !d.Typed(a, m) {
			return
		}
		d.Only(m, "rbac")
		var own []*conf.RBAC // none: the filter is turned off
		d.At("rbac", func() { own = d.httpPolicies(name, m.GetRbac()) })
		if disabled {
			own = nil
		}
		o.rbac = with(o.rbac, name, own)
	default:
		d.Fail("filter of type %q is not supported", a.GetTypeUrl())
	}
}

// disable turns off the filter of that name, whatever it is.
func (o *overrides) disable(name string) {
	switch name {
	case "envoy.filters.http.fault":
		o.fault = nil
	case "envoy.filters.http.cors":
		o.cors = nil
	case "envoy.filters.http.stateful_session":
		o.session = nil
	default:
		o.limits, o.rbac = with(o.limits, name, nil), with(o.rbac, name, nil)
	}
}

// with gives m with another value, and leaves m as it is: it may be what is said further out.
func with[V any](m map[string]V, name string, v V) map[string]V {
	if m = maps.Clone(m); m == nil {
		m = map[string]V{}
	}
	m[name] = v
	return m
}

func unless[T any](disabled bool, v *T) *T {
	if disabled {
		return nil
	}
	return v
}
