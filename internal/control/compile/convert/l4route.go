package convert

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// Names of the Gateway API's kinds whose routes are for connections, or for datagrams.
const (
	TLSRoute = "TLSRoute"
	TCPRoute = "TCPRoute"
	UDPRoute = "UDPRoute"
)

// checkTLSRoute converts a TLSRoute. What server names it is for is known when parents are looked up.
func (p *Part) checkTLSRoute(r *gatewayv1.TLSRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.TLS = []model.TLSRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// checkTCPRoute converts a TCPRoute.
func (p *Part) checkTCPRoute(r *gatewayv1.TCPRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, nil)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.TCP = []model.TCPRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// checkUDPRoute converts a UDPRoute.
func (p *Part) checkUDPRoute(r *gatewayv1.UDPRoute) {
	p.apiRoute(&r.Spec.CommonRouteSpec, nil)
	if p.oneRule(len(r.Spec.Rules)) {
		const field = "spec.rules[0]"
		p.Routes.UDP = []model.UDPRoute{{Field: field, Destinations: p.connectionBackends(r.Spec.Rules[0].BackendRefs, field)}}
	}
}

// oneRule demands a rule, and warns of others: rules for connections have no conditions, so that the first takes all.
func (p *Part) oneRule(n int) bool {
	if n == 0 {
		p.Err("MissingField", "spec.rules", "", "a rule is needed")
		return false
	}
	for i := 1; i < n; i++ {
		p.Warn("RouteUnreachable", At("spec.rules", i), "use one rule with several backendRefs", "never reached: spec.rules[0] takes everything")
	}
	return true
}

// connectionBackends converts the backends of the first rule.
func (p *Part) connectionBackends(refs []gatewayv1.BackendRef, field string) []model.WeightedDestination {
	var out []model.WeightedDestination
	if len(refs) == 0 {
		p.Err("MissingField", field+".backendRefs", "", "a backend is needed")
	}
	for i, b := range refs {
		at := At(field+".backendRefs", i)
		d := p.apiRef(b.BackendObjectReference, at)
		d.Weight = 1
		if b.Weight != nil {
			d.Weight = p.weight(*b.Weight, at+".weight")
		}
		out = append(out, d)
		p.API.Backends = append(p.API.Backends, APIBackend{Index: i, Ref: b.BackendObjectReference, Field: at})
	}
	p.weightSum(out, field+".backendRefs")
	return out
}

// Fate says what becomes of what a route of the Gateway API sends to a backend that cannot be used.
func (p *Part) Fate() string {
	switch p.Kind.Name {
	case UDPRoute:
		return "datagrams for it are dropped"
	case TLSRoute, TCPRoute:
		return "connections for it are closed"
	}
	return "requests for it get 500"
}
