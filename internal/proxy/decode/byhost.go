package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dynamicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
)

const dynamicType = "envoy.clusters.dynamic_forward_proxy"

// byHost checks a cluster that looks up the hosts of requests. The proxy keeps no cache of theirs: each new connection is a lookup.
func (d *decoder) byHost(m *clusterv3.Cluster_CustomClusterType) {
	d.only(m, "name", "typed_config")
	d.typedConfig(m.GetTypedConfig(), func() {
		v := &dynamicv3.ClusterConfig{}
		if m.GetName() != dynamicType || !d.typed(m.GetTypedConfig(), v) {
			d.fail("cluster type %q is not supported", m.GetName())
			return
		}
		d.only(v, "dns_cache_config")
		d.at("dns_cache_config", func() {
			d.only(v.GetDnsCacheConfig(), "name", "dns_lookup_family") // without effect: there is no cache, and the first address that answers is used
			if v.GetDnsCacheConfig() == nil {
				d.failed(errRequired)
			}
		})
	})
}
