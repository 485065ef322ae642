package cluster

import (
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/weftmesh/weft/internal/wire"
)

// SNIName names a cluster in the form that is a DNS name too, Istio's. Such a cluster adds no TLS of its own.
func SNIName(port uint16, subset, host string) string {
	return "outbound_." + strconv.Itoa(int(port)) + "_." + subset + "_." + host
}

func parseSNICluster(name string) (port uint16, subset, host string, ok bool) {
	f := strings.SplitN(name, "_.", 4)
	if len(f) != 4 || f[0] != "outbound" {
		return 0, "", "", false
	}
	n, err := strconv.ParseUint(f[1], 10, 16)
	if err != nil || SNIName(uint16(n), f[2], f[3]) != name {
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
