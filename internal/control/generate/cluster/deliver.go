package cluster

import (
	"net/netip"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
)

// deliver has an inbound cluster connect to the endpoint that the Sidecar names, within the workload's own network. Without an
// address it is the one that the client called, at another port.
func deliver(c *clusterv3.Cluster, endpoint string) {
	if port, ok := callersPort(endpoint); ok {
		c.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
			UpstreamPortOverride: wrapperspb.UInt32(uint32(port))}}
		return
	}
	var at *corev3.Address
	if message.IsUnix(endpoint) {
		at = message.EndpointAddress(endpoint, 0)
	} else if to, err := netip.ParseAddrPort(endpoint); err == nil {
		at = message.SocketAddress(to.Addr().String(), to.Port())
	} else {
		return
	}
	c.ClusterDiscoveryType, c.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: at}}}}}}}
}

func callersPort(endpoint string) (uint16, bool) {
	if len(endpoint) < 2 || endpoint[0] != ':' {
		return 0, false
	}
	n, err := strconv.ParseUint(endpoint[1:], 10, 16)
	return uint16(n), err == nil
}
