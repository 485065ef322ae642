package gatewayapi

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/source"
)

// IsDefaultGateway reports whether an object is a Gateway that takes all routes which ask for a default one.
func IsDefaultGateway(o source.Kube) bool {
	g, ok := o.(*gatewayv1.Gateway)
	return ok && g.Spec.DefaultScope == gatewayv1.GatewayDefaultScopeAll
}

// DefaultParent is a reference to a Gateway as if a route had named it.
func DefaultParent(o *source.Object) gatewayv1.ParentReference {
	namespace := gatewayv1.Namespace(o.GetNamespace())
	return gatewayv1.ParentReference{Namespace: &namespace, Name: gatewayv1.ObjectName(o.GetName())}
}

// FrontendValidation gives how a Gateway verifies the clients of its HTTPS listeners at a port, and the field that says so; nil when
// it does not.
func FrontendValidation(g *gatewayv1.Gateway, port int32) (v *gatewayv1.FrontendTLSValidation, field string) {
	if g.Spec.TLS == nil || g.Spec.TLS.Frontend == nil {
		return nil, ""
	}
	f := g.Spec.TLS.Frontend
	for i, c := range f.PerPort {
		if c.Port == port {
			return c.TLS.Validation, parts.At("spec.tls.frontend.perPort", i) + ".tls.validation"
		}
	}
	return f.Default.Validation, "spec.tls.frontend.default.validation"
}

// AcceptsAnyClient reports whether a Gateway asks clients of some port for certificates that nobody verifies.
func AcceptsAnyClient(g *gatewayv1.Gateway) bool {
	if g.Spec.TLS == nil || g.Spec.TLS.Frontend == nil {
		return false
	}
	any := func(v *gatewayv1.FrontendTLSValidation) bool {
		return v != nil && v.Mode == gatewayv1.AllowInsecureFallback
	}
	return any(g.Spec.TLS.Frontend.Default.Validation) ||
		slices.ContainsFunc(g.Spec.TLS.Frontend.PerPort, func(c gatewayv1.TLSPortConfig) bool { return any(c.TLS.Validation) })
}
