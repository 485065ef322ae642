package parts

import (
	"math"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Percent checks a share of requests.
func (p *Part) Percent(v float64, field string) float64 {
	if v < 0 || v > 100 {
		p.Err("InvalidPercentage", field, "", "%g is not between 0 and 100", v)
	}
	return v
}

// ValidStatus checks a status that the proxy itself answers with.
func (p *Part) ValidStatus(code uint32, field string) {
	if code < 200 || code > 599 {
		p.Err("InvalidStatus", field, "", "status %d is not between 200 and 599", code)
	}
}

// ValidRedirectCode checks the status of a redirect.
func (p *Part) ValidRedirectCode(code int, field string) {
	if !slices.Contains([]int{301, 302, 303, 307, 308}, code) {
		p.Err("InvalidStatus", field, "", "status %d is not one of 301, 302, 303, 307, 308", code)
	}
}

// APIRoute is what a route of the Gateway API refers to, for the names to be looked up.
type APIRoute struct {
	Parents []gatewayv1.ParentReference
	// DefaultGateways asks for those Gateways that take all routes which do.
	DefaultGateways bool
	Backends        []APIBackend
}

// APIBackend is a reference to a backend, and its place in Routes: rule, and position among its destinations or mirrors.
type APIBackend struct {
	Rule, Index int
	Mirror      bool
	Ref         gatewayv1.BackendObjectReference
	Field       string
}

// Names of the Gateway API's kinds whose routes are for connections, or for datagrams.
const (
	TLSRoute = "TLSRoute"
	TCPRoute = "TCPRoute"
	UDPRoute = "UDPRoute"
)

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

// APIListener is a listener of a Gateway or of a ListenerSet, as far as it can be judged among those of its object.
type APIListener struct {
	gatewayv1.Listener
	Field string
	// Kinds of routes that it is for; none where it is for none that we have.
	Kinds []string
	// Server that it becomes, without certificates.
	Server model.Server
	// Refused says that it is not opened; a finding says why.
	Refused bool
}

// GatewayRefs reads names of Istio gateways, of which "mesh" means the sidecars.
func (p *Part) GatewayRefs(names []string) (refs []model.GatewayRef, mesh bool) {
	for _, name := range names {
		if name == "mesh" {
			mesh = true
			continue
		}
		namespace := p.GetNamespace()
		if ns, short, ok := strings.Cut(name, "/"); ok {
			namespace, name = ns, short
		}
		refs = append(refs, model.GatewayRef{Kind: "Gateway.istio", Namespace: namespace, Name: name})
	}
	return refs, mesh
}

// ParentKind gives group and kind of what a route names as its parent: a Gateway unless it says otherwise.
func ParentKind(ref gatewayv1.ParentReference) (group, kind string) {
	group, kind = source.GroupGateway, "Gateway"
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	return group, kind
}

// Names reports whether the route, of a namespace, names a Gateway as its parent, or a part of it.
func (r *APIRoute) Names(g gatewayv1.ParentReference, namespace string) bool {
	return slices.ContainsFunc(r.Parents, func(p gatewayv1.ParentReference) bool {
		_, kind := ParentKind(p)
		return kind == "Gateway" && p.Name == g.Name && NamespaceOr(p.Namespace, namespace) == string(*g.Namespace)
	})
}

// Weight checks one destination's share.
func (p *Part) Weight(w int32, field string) uint32 {
	if w < 0 {
		p.Err("InvalidWeight", field, "", "weight %d is negative", w)
		return 0
	}
	return uint32(w)
}

// WeightSum adds up the shares of a rule's destinations.
func (p *Part) WeightSum(list []model.WeightedDestination, field string) (sum uint64) {
	for _, d := range list {
		sum += uint64(d.Weight)
	}
	if sum > math.MaxUint32 {
		p.Err("InvalidWeight", field, "", "the weights add up to %d, more than %d", sum, math.MaxUint32)
	}
	return sum
}

// SameNames warns of rules that logs and traces could not tell apart.
func (p *Part) SameNames(rs *model.RouteSet) {
	seen := map[string]string{}
	for _, r := range rs.HTTP {
		if first, ok := seen[r.Name]; ok && r.Name != "" {
			p.Warn("DuplicateName", r.Field+".name", "", "%s has that name already: logs and traces do not tell the rules apart", first)
			continue
		}
		seen[r.Name] = r.Field
	}
}
