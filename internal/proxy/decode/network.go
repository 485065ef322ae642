package decode

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// networkFilter decodes one filter of a chain into c, and gives what it adds to the policies. The type of the configuration says
// which filter it is; names are for people.
func (d *decoder) networkFilter(m *listenerv3.Filter, c *conf.Chain) (rbac []*conf.RBAC) {
	d.Only(m, "name", "typed_config")
	a := m.GetTypedConfig()
	d.TypedConfig(a, func() {
		switch string(a.MessageName()) {
		case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
			if v := (&hcmv3.HttpConnectionManager{}); d.Typed(a, v) {
				c.HTTP = d.http(v)
			}
		case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
			if v := (&tcpv3.TcpProxy{}); d.Typed(a, v) {
				c.TCP = d.tcp(v)
			}
		case "envoy.extensions.filters.network.rbac.v3.RBAC":
			if v := (&rbacv3.RBAC{}); d.Typed(a, v) {
				// Without effect: names of statistics; when to evaluate, for policies need no more than the connection.
				d.Only(v, "rules", "shadow_rules", "stat_prefix", "shadow_rules_stat_prefix", "enforcement_type")
				rbac = d.policies(v.GetRules(), v.GetShadowRules())
			}
		case "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit":
			if v := (&connlimitv3.ConnectionLimit{}); d.Typed(a, v) {
				c.Gates = append(c.Gates, d.connectionLimit(v)...)
			}
		case "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit":
			if v := (&netlimitv3.LocalRateLimit{}); d.Typed(a, v) {
				c.Gates = append(c.Gates, d.connectionRate(v)...)
			}
		default:
			d.Fail("filter %q of type %q is not supported", m.GetName(), a.GetTypeUrl())
		}
	})
	return rbac
}

func (d *decoder) tcp(m *tcpv3.TcpProxy) *conf.TCP {
	d.Only(m, "stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "hash_policy", "max_downstream_connection_duration", "access_log", "tunneling_config",
		"max_connect_attempts") // without effect: balance tries other endpoints by itself
	t := &conf.TCP{StatPrefix: m.GetStatPrefix(), IdleTimeout: d.Duration("idle_timeout", m.GetIdleTimeout()),
		MaxDuration: d.Duration("max_downstream_connection_duration", m.GetMaxDownstreamConnectionDuration()), AccessLogs: d.accessLogs(m.GetAccessLog())}
	if m.GetTunnelingConfig() != nil {
		d.At("tunneling_config", func() { t.Tunnel = d.tunnel(m.GetTunnelingConfig()) })
	}
	walk.Each(d.Walk, "hash_policy", m.GetHashPolicy(), func(h *typev3.HashPolicy) {
		d.Only(h, "source_ip")
		if h.GetSourceIp() == nil {
			d.Fail("policy_specifier: is required")
		}
		t.HashSource = true
	})
	switch c := m.GetClusterSpecifier().(type) {
	case *tcpv3.TcpProxy_Cluster:
		t.Clusters, t.TotalWeight = []conf.WeightedCluster{{Cluster: d.clusterName("cluster", c.Cluster), Weight: 1}}, 1
	case *tcpv3.TcpProxy_WeightedClusters:
		d.At("weighted_clusters", func() { t.Clusters, t.TotalWeight = d.weightedClusters("clusters", c.WeightedClusters) })
	default:
		d.Fail("cluster_specifier: is required")
	}
	return t
}
