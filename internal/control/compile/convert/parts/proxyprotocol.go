package parts

import (
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// ProxyProtocolAnnotation on a Gateway of either kind says that connections to its ports begin with a PROXY protocol header
// ("required"), or may ("optional").
const ProxyProtocolAnnotation = "weft.dev/proxy-protocol"

// istioConfigAnnotation holds a pod's ProxyConfig of Istio.
const istioConfigAnnotation = "proxy.istio.io/config"

// ExpectedHeader reads the annotation of a Gateway.
func (p *Part) ExpectedHeader() model.ProxyProtocol {
	switch v, set := p.GetAnnotations()[ProxyProtocolAnnotation]; {
	case !set:
	case v == "required":
		return model.RequiredProxyProtocol
	case v == "optional":
		return model.OptionalProxyProtocol
	default:
		p.Err("InvalidValue", Key("metadata.annotations", ProxyProtocolAnnotation), "", "%q is neither required nor optional", v)
	}
	return model.NoProxyProtocol
}

// PodHeader says whether a gateway's pod expects PROXY protocol headers, by the annotation with which Istio's users ask for it:
// gatewayTopology.proxyProtocol of the pod's ProxyConfig.
func PodHeader(annotations map[string]string) model.ProxyProtocol {
	var c struct {
		GatewayTopology struct {
			ProxyProtocol *struct{} `yaml:"proxyProtocol"`
		} `yaml:"gatewayTopology"`
	}
	text, set := annotations[istioConfigAnnotation]
	if !set { // as in nearly all pods
		return model.NoProxyProtocol
	}
	if err := yaml.Unmarshal([]byte(text), &c); err != nil || c.GatewayTopology.ProxyProtocol == nil {
		return model.NoProxyProtocol
	}
	return model.RequiredProxyProtocol
}
