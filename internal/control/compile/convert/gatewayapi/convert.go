// Package gatewayapi converts Kubernetes' own kinds of traffic that comes in, and of routes: those of the Gateway API, and Ingress.
package gatewayapi

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
)

type converter struct{ *parts.Part }

// Convert fills a part whose object is of this family; others are left alone. Gateways and Ingresses are converted when their class is
// known by name to be ours; Gateway and Ingress convert others.
func Convert(part *parts.Part) {
	p := converter{part}
	switch k := p.Kube.(type) {
	case *gatewayv1.GatewayClass:
		if k.Spec.ParametersRef != nil && slices.Contains(parts.OurControllers, string(k.Spec.ControllerName)) {
			p.Err("InvalidParameters", "spec.parametersRef", "remove it: classes take no parameters", "there is no kind of parameters %q", k.Spec.ParametersRef.Kind)
		}
	case *gatewayv1.Gateway:
		p.apiGateway(k)
	case *gatewayv1.ListenerSet:
		p.listenerSet(k)
	case *gatewayv1.BackendTLSPolicy:
		p.backendTLSPolicy(k)
	case *gatewayv1.HTTPRoute:
		p.checkHTTPRoute(k)
	case *gatewayv1.GRPCRoute:
		p.checkGRPCRoute(k)
	case *gatewayv1.TLSRoute:
		p.checkTLSRoute(k)
	case *gatewayv1.TCPRoute:
		p.checkTCPRoute(k)
	case *gatewayv1.UDPRoute:
		p.checkUDPRoute(k)
	case *networkingv1.Ingress:
		p.checkIngress(k)
	}
}
