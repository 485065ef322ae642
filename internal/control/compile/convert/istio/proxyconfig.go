package istio

import (
	networkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"

	"github.com/weftmesh/weft/internal/control/model"
)

// proxyConfig converts a ProxyConfig.
func (p converter) proxyConfig(pc *networkingbeta.ProxyConfig) {
	spec, namespace := &pc.Spec, pc.Namespace
	p.Only(spec, "spec", "selector", "concurrency", "environmentVariables", "image")
	out := &model.ProxyConfig{Ref: p.Ref(), Namespace: namespace, Created: p.Born}
	if s := spec.GetSelector(); s != nil {
		out.Selector = p.ValidLabels(s.MatchLabels, "spec.selector.matchLabels")
		if len(out.Selector) == 0 {
			out.Selector = nil
		}
	}
	if namespace == p.Mesh.RootNamespace {
		if out.Namespace = ""; out.Selector != nil {
			p.Err("ConflictingFields", "spec.selector", "write it into the workloads' namespace", "in the root namespace it is for all workloads of the mesh")
		}
	}
	if n := spec.GetConcurrency(); n != nil {
		if n.Value < 0 {
			p.Err("InvalidValue", "spec.concurrency", "", "%d is negative", n.Value)
		}
		c := uint32(max(n.Value, 0))
		out.Concurrency = &c
	}
	if len(spec.GetEnvironmentVariables()) > 0 {
		p.Unsupported("spec.environmentVariables", "proxies read nothing from their environment")
	}
	if spec.GetImage() != nil {
		p.Unsupported("spec.image", "proxies run from the weft-proxy that the mesh was installed with")
	}
	p.ProxyConfig = out
}
