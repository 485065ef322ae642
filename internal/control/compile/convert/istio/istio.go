// Package istio converts what Istio's API says about traffic: routes, destinations, gateways, sidecars, and the settings of the mesh
// and of its proxies.
package istio

import (
	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
)

type converter struct{ *parts.Part }

// Convert fills a part whose object is of this family; others are left alone.
func Convert(part *parts.Part) {
	p := converter{part}
	switch k := p.Kube.(type) {
	case *corev1.ConfigMap:
		if k.Name == MeshConfigName && k.Namespace == p.Mesh.RootNamespace {
			p.meshConfig(k)
		}
	case *networking.VirtualService:
		p.virtualService(k)
	case *networking.DestinationRule:
		p.destinationRule(k)
	case *networking.Gateway:
		p.istioGateway(k)
	case *networkingbeta.ProxyConfig:
		p.proxyConfig(k)
	case *networking.Sidecar:
		p.sidecar(k)
	}
}
