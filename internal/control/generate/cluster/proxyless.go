package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// secureProxyless protects connections of gRPC's own client, which has one way to each cluster: with mutual TLS where every endpoint
// demands it, and without where one would not take it. Those that take both are spoken to in plain text, because only the mesh's
// proxies offer the protocols by which they know mutual TLS.
func (g *Generator) secureProxyless(c *clusterv3.Cluster, b *view.Backend) {
	endpoints := g.endpointsOf(b)
	if len(endpoints) == 0 {
		return
	}
	for _, e := range endpoints {
		port := e.Ports[b.Port.Number]
		if port == 0 {
			port = b.Port.Number
		}
		if !e.Mesh && !e.Proxyless || g.view.MTLSMode(e.Namespace, e.Labels, port) != model.MTLSStrict {
			return
		}
	}
	c.TransportSocket = transport.Socket(transport.TLSSocket, g.meshTLS(b, meshSNI(b), g.servers(b)))
}

// takesMutualTLS reports whether an endpoint takes the mesh's TLS from a proxy.
func (g *Generator) takesMutualTLS(e *model.Endpoint, port uint16) bool {
	mode := g.view.MTLSMode(e.Namespace, e.Labels, port)
	if e.Proxyless {
		return mode == model.MTLSStrict
	}
	return e.Mesh && mode != model.MTLSDisable
}
