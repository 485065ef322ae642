package decode

import (
	"maps"
	"math"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	udpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

// overUDP checks that a listener for UDP without HTTP/3 relays datagrams, and reads what its metadata adds.
func (d *decoder) overUDP(m *listenerv3.Listener, l *conf.Listener) {
	switch {
	case l.Datagrams == nil:
		d.Fail("udp_listener_config: has neither quic_options nor a udp_proxy among the listener_filters")
		return
	case l.Direction != "gateway":
		d.Fail("udp_listener_config: is for gateways only")
	case m.GetAddress().GetSocketAddress().GetProtocol() != corev3.SocketAddress_UDP:
		d.Fail("address: protocol UDP is required")
	case len(l.Chains) > 0 || l.Default != nil:
		d.Fail("filter_chains: datagrams pass through none")
	case len(m.GetListenerFilters()) > 1:
		d.Fail("listener_filters: datagrams pass through udp_proxy alone")
	}
	more := m.GetMetadata().GetTypedFilterMetadata()
	for _, key := range slices.Sorted(maps.Keys(more)) {
		a := more[key]
		d.At("metadata.typed_filter_metadata["+key+"]", func() {
			switch {
			case strings.HasPrefix(key, wire.DatagramPolicies):
				if v := (&rbacv3.RBAC{}); d.Typed(a, v) {
					d.Only(v, "rules", "shadow_rules", "stat_prefix", "shadow_rules_stat_prefix", "enforcement_type") // as in networkFilter
					l.Datagrams.RBAC = append(l.Datagrams.RBAC, d.policies(v.GetRules(), v.GetShadowRules())...)
				}
			case key == wire.DatagramSplit:
				if v := (&tcpv3.TcpProxy_WeightedCluster{}); d.Typed(a, v) {
					l.Datagrams.Clusters, l.Datagrams.TotalWeight = d.weightedClusters("clusters", v)
				}
			}
		})
	}
}

func (d *decoder) datagrams(m *udpv3.UdpProxyConfig) *conf.Datagrams {
	d.Only(m, "stat_prefix", "cluster", "idle_timeout", "hash_policies", "access_log",
		"upstream_socket_config") // without effect: datagrams of any size are passed on
	out := &conf.Datagrams{StatPrefix: m.GetStatPrefix(), IdleTimeout: d.Duration("idle_timeout", m.GetIdleTimeout()), AccessLogs: d.accessLogs(m.GetAccessLog())}
	walk.Each(d.Walk, "hash_policies", m.GetHashPolicies(), func(h *udpv3.UdpProxyConfig_HashPolicy) {
		d.Only(h, "source_ip")
		if !h.GetSourceIp() {
			d.Fail("policy_specifier: is required")
		}
		out.HashSource = true
	})
	c, ok := m.GetRouteSpecifier().(*udpv3.UdpProxyConfig_Cluster)
	if !ok {
		d.Fail("cluster: is required")
		return out
	}
	out.Clusters, out.TotalWeight = []conf.WeightedCluster{{Cluster: d.clusterName("cluster", c.Cluster), Weight: 1}}, 1
	return out
}

// weightedClusters reads a division of connections, or of sessions.
func (d *decoder) weightedClusters(field string, m *tcpv3.TcpProxy_WeightedCluster) (list []conf.WeightedCluster, total uint32) {
	d.Only(m, "clusters")
	sum := uint64(0)
	walk.Each(d.Walk, field, m.GetClusters(), func(w *tcpv3.TcpProxy_WeightedCluster_ClusterWeight) {
		d.Only(w, "name", "weight")
		list = append(list, conf.WeightedCluster{Cluster: d.clusterName("name", w.GetName()), Weight: w.GetWeight()})
		sum += uint64(w.GetWeight())
	})
	if sum == 0 || sum > math.MaxUint32 {
		d.Fail("weights add up to %d", sum)
	}
	return list, uint32(sum)
}
