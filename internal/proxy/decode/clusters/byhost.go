package clusters

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	dynamicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

const dynamicType = "envoy.clusters.dynamic_forward_proxy"

// byHost checks a cluster that looks up the hosts of requests. The proxy keeps no cache of theirs: each new connection is a lookup.
func (d *decoder) byHost(m *clusterv3.Cluster_CustomClusterType) {
	d.Only(m, "name", "typed_config")
	d.TypedConfig(m.GetTypedConfig(), func() {
		v := &dynamicv3.ClusterConfig{}
		if m.GetName() != dynamicType || !d.Typed(m.GetTypedConfig(), v) {
			d.Fail("cluster type %q is not supported", m.GetName())
			return
		}
		d.Only(v, "dns_cache_config")
		d.At("dns_cache_config", func() {
			d.Only(v.GetDnsCacheConfig(), "name", "dns_lookup_family") // without effect: there is no cache, and the first address that answers is used
			if v.GetDnsCacheConfig() == nil {
				d.Failed(walk.ErrRequired)
			}
		})
	})
}
