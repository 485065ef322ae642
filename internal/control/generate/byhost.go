package generate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	dynamicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	byheaderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	bysniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/traffic"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// Names of the cluster and of the filters that look hosts up for it, Envoy's well-known ones. Our own proxies need no filters for that.
const (
	dynamicCluster = "envoy.clusters.dynamic_forward_proxy"
	byHeaderFilter = "envoy.filters.http.dynamic_forward_proxy"
	bySNIFilter    = "envoy.filters.network.sni_dynamic_forward_proxy"
)

// hostCache is the same for all, as it must be: it has a name.
func hostCache() *cachev3.DnsCacheConfig {
	return &cachev3.DnsCacheConfig{Name: "hosts", DnsLookupFamily: clusterv3.Cluster_V4_PREFERRED}
}

// byHost has a cluster connect to the host that each request or ClientHello names.
func byHost(c *clusterv3.Cluster) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: dynamicCluster,
		TypedConfig: message.Pack(&dynamicv3.ClusterConfig{ClusterImplementationSpecifier: &dynamicv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: hostCache()}})}}
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

// lookups are the HTTP filters by which an Envoy looks up the hosts of requests, if any service wants that.
func (g *Generator) lookups() []*hcmv3.HttpFilter {
	if !g.node.Classic {
		return nil
	}
	for s := range g.mesh.AllServices() {
		if s.Resolution == model.ByHost && g.view.Visible(s) {
			return []*hcmv3.HttpFilter{message.HTTPFilter(byHeaderFilter, &byheaderv3.FilterConfig{
				ImplementationSpecifier: &byheaderv3.FilterConfig_DnsCacheConfig{DnsCacheConfig: hostCache()}})}
		}
	}
	return nil
}

// lookup puts the filter by which an Envoy looks up server names before those of a chain that relays to such a service.
func (g *Generator) lookup(filters []*listenerv3.Filter, destinations []model.WeightedDestination, port uint16) []*listenerv3.Filter {
	if !g.node.Classic || len(destinations) != 1 {
		return filters
	}
	if s := g.view.Service(destinations[0].Host); s == nil || s.Resolution != model.ByHost {
		return filters
	}
	if destinations[0].Port != 0 {
		port = destinations[0].Port
	}
	return append([]*listenerv3.Filter{message.NetworkFilter(bySNIFilter, &bysniv3.FilterConfig{DnsCacheConfig: hostCache(),
		PortSpecifier: &bysniv3.FilterConfig_PortValue{PortValue: uint32(port)}})}, filters...)
}

// ownNames are the server names by which connections to a service itself are told; none where it does not matter.
func ownNames(t *view.Target) *listenerv3.FilterChainMatch {
	if t.Service.Resolution != model.ByHost {
		return nil
	}
	return &listenerv3.FilterChainMatch{ServerNames: []string{t.Service.Host}}
}
