package gatewayapi

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// checkTLSRoute converts a TLSRoute. What server names it is for is known when parents are looked up.
func (p converter) checkTLSRoute(r *gatewayv1.TLSRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.TLS = []model.TLSRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// checkTCPRoute converts a TCPRoute.
func (p converter) checkTCPRoute(r *gatewayv1.TCPRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, nil)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.TCP = []model.TCPRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// checkUDPRoute converts a UDPRoute.
func (p converter) checkUDPRoute(r *gatewayv1.UDPRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, nil)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.UDP = []model.UDPRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// oneRule demands a rule, and warns of others: rules for connections have no conditions, so that the first takes all.
func (p converter) oneRule(n int) bool {
	if n == 0 {
		p.Err("MissingField", "spec.rules", "", "a rule is needed")
		return false
	}
	for i := 1; i < n; i++ {
		p.Warn("RouteUnreachable", parts.At("spec.rules", i), "use one rule with several backendRefs", "never reached: spec.rules[0] takes everything")
	}
	return true
}

// connectionBackends converts the backends of the first rule.
func (p converter) connectionBackends(refs []gatewayv1.BackendRef, field string) []model.WeightedDestination {
	var out []model.WeightedDestination
	if len(refs) == 0 {
		p.Err("MissingField", field+".backendRefs", "", "a backend is needed")
	}
	for i, b := range refs {
		at := parts.At(field+".backendRefs", i)
		d := p.apiRef(b.BackendObjectReference, at)
		d.Weight = 1
		if b.Weight != nil {
			d.Weight = p.Weight(*b.Weight, at+".weight")
		}
		out = append(out, d)
		p.API.Backends = append(p.API.Backends, parts.APIBackend{Index: i, Ref: b.BackendObjectReference, Field: at})
	}
	p.WeightSum(out, field+".backendRefs")
	return out
}
