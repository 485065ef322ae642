// Package clusters decodes clusters and their endpoints.
package clusters

import (
	"cmp"
	"math"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/transport"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

// defaultConnectTimeout and defaultPanic are Envoy's.
const (
	defaultConnectTimeout = 5 * time.Second
	defaultPanic          = 0.5
)

// Cluster decodes a cluster; endpoints are in it unless its Discovery is EDS.
func Cluster(w *walk.Walk, m *clusterv3.Cluster) *conf.Cluster {
	d := &decoder{w}
	return d.cluster(m)
}

// decoder decodes one cluster, or the endpoints of one.
type decoder struct{ *walk.Walk }

func (d *decoder) cluster(m *clusterv3.Cluster) *conf.Cluster {
	d.Only(m, "name", "type", "cluster_type", "eds_cluster_config", "connect_timeout", "lb_policy", "load_assignment", "max_requests_per_connection",
		"circuit_breakers", "typed_extension_protocol_options", "outlier_detection", "common_lb_config", "transport_socket",
		"transport_socket_matches", "metadata", "original_dst_lb_config", "ring_hash_lb_config",
		"least_request_lb_config", "maglev_lb_config", "round_robin_lb_config", "load_balancing_policy", "health_checks",
		"upstream_connection_options", "dns_refresh_rate", "respect_dns_ttl", "dns_lookup_family", "dns_jitter", "dns_failure_refresh_rate",
		"alt_stat_name", "track_cluster_stats") // the last two: statistics
	c := &conf.Cluster{
		Name: m.GetName(), ConnectTimeout: cmp.Or(d.Duration("connect_timeout", m.GetConnectTimeout()), defaultConnectTimeout),
		MaxRequestsPerConnection: m.GetMaxRequestsPerConnection().GetValue(), PanicThreshold: defaultPanic,
	}
	d.discovery(m, c)
	d.balancing(m, c)
	d.clusterFacts(m.GetMetadata(), c)
	walk.Each(d.Walk, "health_checks", m.GetHealthChecks(), func(h *corev3.HealthCheck) { c.HealthChecks = append(c.HealthChecks, d.healthCheck(h)) })
	if len(c.HealthChecks) > 1 {
		d.At("health_checks", func() { d.Fail("more than one is not supported") })
	}
	d.At("upstream_connection_options", func() { c.KeepAlive = d.keepAlive(m.GetUpstreamConnectionOptions()) })
	d.At("circuit_breakers", func() { d.breakers(m.GetCircuitBreakers(), c) })
	if o := m.GetOutlierDetection(); o != nil {
		d.At("outlier_detection", func() { c.Outlier = d.outlier(o) })
	}
	for name, a := range m.GetTypedExtensionProtocolOptions() {
		d.At("typed_extension_protocol_options["+name+"]", func() { d.protocolOptions(name, a, c) })
	}
	d.transports(m, c)
	return c
}

func (d *decoder) discovery(m *clusterv3.Cluster, c *conf.Cluster) {
	if t := m.GetClusterType(); t != nil {
		d.At("cluster_type", func() { d.byHost(t) })
		c.Discovery = conf.ByHost
		if m.GetEdsClusterConfig() != nil || m.GetLoadAssignment() != nil {
			d.Fail("eds_cluster_config and load_assignment do not go with cluster_type")
		}
		return
	}
	kind, ok := m.GetClusterDiscoveryType().(*clusterv3.Cluster_Type)
	if !ok && m.GetClusterDiscoveryType() != nil {
		return // refused by only
	}
	t := clusterv3.Cluster_STATIC
	if ok {
		t = kind.Type
	}
	policy := addressesOnly
	switch t {
	case clusterv3.Cluster_STATIC:
		c.Discovery = conf.Static
	case clusterv3.Cluster_EDS:
		c.Discovery = conf.EDS
		d.At("eds_cluster_config", func() {
			e := m.GetEdsClusterConfig()
			d.Only(e, "eds_config", "service_name")
			d.Aggregated("eds_config", e.GetEdsConfig())
			c.EndpointsName = cmp.Or(e.GetServiceName(), m.GetName())
		})
	case clusterv3.Cluster_STRICT_DNS:
		c.Discovery, policy = conf.StrictDNS, namesToo
		c.DNS = d.dns(m)
	case clusterv3.Cluster_LOGICAL_DNS:
		c.Discovery, policy = conf.LogicalDNS, namesToo
		c.DNS = d.dns(m)
	case clusterv3.Cluster_ORIGINAL_DST:
		c.Discovery = conf.OriginalDst
	default:
		d.At("type", func() { d.Fail("%s is not supported", t) })
	}
	if m.GetEdsClusterConfig() != nil && c.Discovery != conf.EDS {
		d.At("eds_cluster_config", func() { d.Fail("does not go with type %s", t) })
	}
	if m.GetLoadAssignment() == nil {
		return
	}
	d.At("load_assignment", func() {
		if c.Discovery == conf.EDS || c.Discovery == conf.OriginalDst {
			d.Fail("does not go with type %s", t)
		}
		a := d.assignment(m.GetLoadAssignment(), policy)
		c.Localities, c.Total, c.Overprovisioning = a.Localities, a.Total, a.Overprovisioning
	})
}

// defaultRefresh is Envoy's.
const defaultRefresh = 5 * time.Second

var families = map[clusterv3.Cluster_DnsLookupFamily]conf.Family{
	clusterv3.Cluster_AUTO: conf.V6Preferred, clusterv3.Cluster_V4_ONLY: conf.V4Only, clusterv3.Cluster_V6_ONLY: conf.V6Only,
	clusterv3.Cluster_V4_PREFERRED: conf.V4Preferred, clusterv3.Cluster_ALL: conf.AllFamilies,
}

// dns decodes how names are resolved.
func (d *decoder) dns(m *clusterv3.Cluster) conf.DNS {
	family, ok := families[m.GetDnsLookupFamily()]
	if !ok {
		d.At("dns_lookup_family", func() { d.Fail("%s is not supported", m.GetDnsLookupFamily()) })
	}
	n := conf.DNS{Family: family, RespectTTL: m.GetRespectDnsTtl(), Jitter: d.Duration("dns_jitter", m.GetDnsJitter()),
		Refresh: cmp.Or(d.Duration("dns_refresh_rate", m.GetDnsRefreshRate()), defaultRefresh)}
	if n.Refresh < time.Millisecond {
		d.At("dns_refresh_rate", func() { d.Fail("%s is less than 1ms", n.Refresh) })
	}
	d.At("dns_failure_refresh_rate", func() {
		r := m.GetDnsFailureRefreshRate()
		if r == nil {
			return
		}
		d.Only(r, "base_interval", "max_interval")
		n.FailureBase = d.Required("base_interval", r.GetBaseInterval())
		n.FailureMax = cmp.Or(d.Duration("max_interval", r.GetMaxInterval()), 10*n.FailureBase)
		if n.FailureMax < n.FailureBase {
			d.At("max_interval", func() { d.Fail("%s is less than base_interval", n.FailureMax) })
		}
	})
	return n
}

// clusterFacts reads what metrics say about the cluster.
func (d *decoder) clusterFacts(m *corev3.Metadata, c *conf.Cluster) {
	istio := m.GetFilterMetadata()["istio"].GetFields()
	if services := istio["services"].GetListValue().GetValues(); len(services) > 0 {
		s := services[0].GetStructValue().GetFields()
		c.ServiceHost, c.ServiceName = s["host"].GetStringValue(), s["name"].GetStringValue()
		c.ServiceNamespace = s["namespace"].GetStringValue()
	}
	c.Subset = istio["subset"].GetStringValue()
	c.Refused = walk.Metadata(m, "weft")("refused")
	if p := istio["default_original_port"].GetNumberValue(); p > 0 && p <= 65535 {
		c.Port = uint16(p)
	}
	if _, port, subset, host, ok := wire.ParseCluster(c.Name); ok {
		c.Port, c.Subset, c.ServiceHost = cmp.Or(c.Port, port), cmp.Or(c.Subset, subset), cmp.Or(c.ServiceHost, host)
	}
}

// breakers decodes the limits. A cluster that names none has none, unlike Envoy's 1024.
func (d *decoder) breakers(m *clusterv3.CircuitBreakers, c *conf.Cluster) {
	d.Only(m, "thresholds")
	seen := map[corev3.RoutingPriority]bool{}
	walk.Each(d.Walk, "thresholds", m.GetThresholds(), func(t *clusterv3.CircuitBreakers_Thresholds) {
		d.Only(t, "priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "retry_budget", "track_remaining") // the last: statistics
		high := d.High(t.GetPriority())
		if seen[t.GetPriority()] {
			d.At("priority", func() { d.Fail("%s occurs twice", t.GetPriority()) })
		}
		seen[t.GetPriority()] = true
		l := conf.Limits{MaxConnections: walk.Limit(t.GetMaxConnections()), MaxPending: walk.Limit(t.GetMaxPendingRequests()),
			MaxRequests: walk.Limit(t.GetMaxRequests()), MaxRetries: walk.Limit(t.GetMaxRetries())}
		d.At("retry_budget", func() { l.RetryBudget = d.retryBudget(t.GetRetryBudget()) })
		if high {
			c.High = l
		} else {
			c.Limits = l
		}
	})
}

// retryBudget fills in Envoy's defaults.
func (d *decoder) retryBudget(m *clusterv3.CircuitBreakers_Thresholds_RetryBudget) *conf.RetryBudget {
	if m == nil {
		return nil
	}
	d.Only(m, "budget_percent", "min_retry_concurrency")
	b := &conf.RetryBudget{Share: 0.2, Min: 3}
	if m.GetBudgetPercent() != nil {
		b.Share = d.Percent("budget_percent", m.GetBudgetPercent())
	}
	if m.GetMinRetryConcurrency() != nil {
		b.Min = m.GetMinRetryConcurrency().GetValue()
	}
	return b
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func (d *decoder) protocolOptions(name string, a *anypb.Any, c *conf.Cluster) {
	if name != httpOptions {
		d.Fail("is not supported")
		return
	}
	m := &upstreamhttpv3.HttpProtocolOptions{}
	if !d.Typed(a, m) {
		return
	}
	d.Only(m, "common_http_protocol_options", "explicit_http_config", "use_downstream_protocol_config", "auto_config", "outlier_detection", "upstream_http_protocol_options")
	if o := m.GetUpstreamHttpProtocolOptions(); o != nil {
		d.At("upstream_http_protocol_options", func() {
			d.Only(o, "auto_sni", "auto_san_validation")
			if c.Discovery != conf.ByHost || !o.GetAutoSni() || !o.GetAutoSanValidation() {
				d.Fail("are both for clusters of type %s alone, which have no TLS without them", dynamicType)
			}
		})
	}
	if o := m.GetOutlierDetection(); o != nil {
		d.At("outlier_detection", func() {
			d.Only(o, "error_matcher")
			d.At("error_matcher", func() { c.ErrorCodes = slices.Compact(slices.Sorted(slices.Values(d.errorCodes(o.GetErrorMatcher())))) })
		})
	}
	d.At("common_http_protocol_options", func() {
		o := m.GetCommonHttpProtocolOptions()
		d.Only(o, "idle_timeout", "max_requests_per_connection", "max_connection_duration")
		c.MaxConnectionDuration = d.Duration("max_connection_duration", o.GetMaxConnectionDuration())
		c.IdleTimeout = d.Duration("idle_timeout", o.GetIdleTimeout())
		if v := o.GetMaxRequestsPerConnection(); v != nil {
			c.MaxRequestsPerConnection = v.GetValue()
		}
	})
	if u := m.GetUseDownstreamProtocolConfig(); u != nil {
		d.At("use_downstream_protocol_config", func() { d.versions(u, u.GetHttpProtocolOptions(), u.GetHttp2ProtocolOptions(), c) })
		c.Speaks = conf.AsClient
	}
	if a := m.GetAutoConfig(); a != nil {
		d.At("auto_config", func() { d.versions(a, a.GetHttpProtocolOptions(), a.GetHttp2ProtocolOptions(), c) })
		c.Speaks = conf.ByALPN
	}
	if e := m.GetExplicitHttpConfig(); e != nil {
		d.At("explicit_http_config", func() {
			d.versions(e, e.GetHttpProtocolOptions(), e.GetHttp2ProtocolOptions(), c)
			if e.GetHttp2ProtocolOptions() != nil {
				c.Speaks = conf.HTTP2
			}
		})
	}
}

// versions reads the options of the versions of HTTP.
func (d *decoder) versions(m proto.Message, one *corev3.Http1ProtocolOptions, two *corev3.Http2ProtocolOptions, c *conf.Cluster) {
	d.Only(m, "http_protocol_options", "http2_protocol_options")
	d.At("http_protocol_options", func() { d.Only(one) })
	d.At("http2_protocol_options", func() {
		d.Only(two, "max_concurrent_streams", "connection_keepalive")
		if v := two.GetMaxConcurrentStreams(); v != nil {
			if c.HTTP2.MaxStreams = v.GetValue(); c.HTTP2.MaxStreams == 0 || c.HTTP2.MaxStreams > math.MaxInt32 {
				d.At("max_concurrent_streams", func() { d.Fail("%d is not between 1 and %d", v.GetValue(), math.MaxInt32) })
			}
		}
		k := two.GetConnectionKeepalive()
		if k == nil {
			return
		}
		d.At("connection_keepalive", func() {
			d.Only(k, "interval", "timeout", "interval_jitter") // pings depend on silence, so that they do not come together
			c.HTTP2.KeepAlive, c.HTTP2.PingTimeout = d.Duration("interval", k.GetInterval()), d.Required("timeout", k.GetTimeout())
		})
	})
}

// transports decodes how endpoints are reached; the last entry always matches.
func (d *decoder) transports(m *clusterv3.Cluster, c *conf.Cluster) {
	walk.Each(d.Walk, "transport_socket_matches", m.GetTransportSocketMatches(), func(t *clusterv3.Cluster_TransportSocketMatch) {
		d.Only(t, "name", "match", "transport_socket")
		mode := t.GetMatch().GetFields()["tlsMode"].GetStringValue()
		if n := len(t.GetMatch().GetFields()); n > 1 || n == 1 && mode == "" {
			d.At("match", func() { d.Fail("only tlsMode is supported") })
		}
		tm := conf.TransportMatch{TLSMode: mode}
		d.At("transport_socket", func() { transport.Upstream(d.Walk, t.GetTransportSocket(), &tm) })
		c.Transports = append(c.Transports, tm)
	})
	var last conf.TransportMatch
	if t := m.GetTransportSocket(); t != nil {
		d.At("transport_socket", func() { transport.Upstream(d.Walk, t, &last) })
	}
	if n := len(c.Transports); n == 0 || c.Transports[n-1].TLSMode != "" {
		c.Transports = append(c.Transports, last)
	}
}
