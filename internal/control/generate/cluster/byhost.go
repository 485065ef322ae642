package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dynamicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/traffic"
)

// Names of the cluster and of the filters that look hosts up for it, Envoy's well-known ones. Our own proxies need no filters for that.
const (
	dynamicCluster = "envoy.clusters.dynamic_forward_proxy"
	ByHeaderFilter = "envoy.filters.http.dynamic_forward_proxy"
	BySNIFilter    = "envoy.filters.network.sni_dynamic_forward_proxy"
)

// HostCache is the same for all, as it must be: it has a name.
func HostCache() *cachev3.DnsCacheConfig {
	return &cachev3.DnsCacheConfig{Name: "hosts", DnsLookupFamily: clusterv3.Cluster_V4_PREFERRED}
}

// byHost has a cluster connect to the host that each request or ClientHello names.
func byHost(c *clusterv3.Cluster) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: dynamicCluster,
		TypedConfig: message.Pack(&dynamicv3.ClusterConfig{ClusterImplementationSpecifier: &dynamicv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: HostCache()}})}}
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
}

// named has TLS towards the servers name and verify the host that each request names.
func named(c *clusterv3.Cluster) {
	a := c.TypedExtensionProtocolOptions[traffic.HttpProtocolOptions]
	o := &upstreamsv3.HttpProtocolOptions{}
	if a == nil || a.UnmarshalTo(o) != nil {
		return
	}
	o.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: true}
	c.TypedExtensionProtocolOptions[traffic.HttpProtocolOptions] = message.Pack(o)
}
