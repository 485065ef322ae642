package generate

import (
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/wire"
)

// autoPassthrough has a chain for each port and subset of the services whose hosts the server takes. The server name spells the
// cluster out, as sidecars send it (meshSNI), and the TLS within goes on to the endpoint as it is.
func (g *Generator) autoPassthrough(s view.Place) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	for service := range g.mesh.AllServices() {
		host := service.Host
		if index.IsWildcard(host) || service.External || !g.view.Visible(service) || !s.TakesService(service) {
			continue
		}
		subsets := []string{""}
		if d := g.view.Destination(service); d != nil {
			for _, sub := range d.Subsets {
				subsets = append(subsets, sub.Name)
			}
		}
		for _, p := range service.Ports {
			for _, sub := range subsets {
				name := sniCluster(p.Number, sub, host)
				chains = append(chains, &listenerv3.FilterChain{Name: name,
					FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{name}},
					Filters:          append(g.networkPolicies(), g.relayTo(name, name))})
			}
		}
	}
	return chains
}

// sniCluster names a cluster in the form that is a DNS name too, Istio's. Such a cluster adds no TLS of its own.
func sniCluster(port uint16, subset, host string) string {
	return "outbound_." + strconv.Itoa(int(port)) + "_." + subset + "_." + host
}

func parseSNICluster(name string) (port uint16, subset, host string, ok bool) {
	f := strings.SplitN(name, "_.", 4)
	if len(f) != 4 || f[0] != "outbound" {
		return 0, "", "", false
	}
	n, err := strconv.ParseUint(f[1], 10, 16)
	if err != nil || sniCluster(uint16(n), f[2], f[3]) != name {
		return 0, "", "", false
	}
	return uint16(n), f[2], f[3], true
}

// passedThrough is the cluster of an automatic passthrough: its endpoints are those of the service's own cluster.
func (g *Generator) passedThrough(name string) (*clusterv3.Cluster, bool) {
	port, subset, host, ok := parseSNICluster(name)
	if !ok {
		return nil, false
	}
	b, ok := g.view.Backend(port, subset, host)
	if !ok {
		return nil, false
	}
	c := g.outboundCluster(name, b)
	c.TransportSocket, c.TransportSocketMatches = nil, nil
	if e := c.EdsClusterConfig; e != nil {
		e.ServiceName = wire.OutboundCluster(port, subset, host)
	}
	return c, true
}
