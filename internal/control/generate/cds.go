package generate

import (
	"math"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

const (
	defaultConnectTimeout = 10 * time.Second
	httpProtocolOptions   = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// Cluster gives the cluster of that name.
func (g *Generator) Cluster(name string) (proto.Message, bool) {
	switch name {
	case wire.PassthroughCluster, wire.InboundPassthroughCluster:
		c := g.originalDestination(name)
		c.TypedExtensionProtocolOptions = protocolOptions(model.Auto, nil, nil)
		return c, true
	case wire.BlackHoleCluster:
		return &clusterv3.Cluster{Name: name, ConnectTimeout: g.connectTimeout(nil),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: name}}, true
	}
	if c, ok := g.passedThrough(name); ok {
		return c, true
	}
	direction, port, subset, host, ok := wire.ParseCluster(name)
	switch {
	case !ok || wire.OutboundCluster(port, subset, host) != name && wire.InboundCluster(port) != name && wire.DatagramCluster(port, host) != name:
		return nil, false
	case direction == "inbound":
		return g.inboundCluster(name, port)
	case direction == "udp":
		b, ok := g.datagramBackend(port, host)
		if !ok {
			return nil, false
		}
		return g.outboundCluster(name, b), true
	}
	b, ok := g.backend(port, subset, host)
	if !ok {
		return nil, false
	}
	return g.outboundCluster(name, b), true
}

// backend is what stands behind an outbound cluster.
type backend struct {
	service *model.Service
	port    *model.Port
	subset  *model.Subset
	policy  model.TrafficPolicy
	check   *model.HealthCheck
	// pinned is the only endpoint, for a headless service's.
	pinned *model.Endpoint
	host   string // as in the cluster's name
	udp    bool
}

func (g *Generator) backend(port uint16, subsetName, host string) (*backend, bool) {
	s, pinned := g.backing(host)
	if s == nil || s.Port(port) == nil {
		return nil, false
	}
	d := g.destination(s)
	b := &backend{service: s, port: s.Port(port), pinned: pinned, host: host, subset: subset(d, subsetName)}
	if subsetName != "" && b.subset == nil {
		return nil, false
	}
	b.policy = g.policy(d, b.subset, port)
	if b.policy.TLS == nil {
		b.policy.TLS = s.ClientTLS(port)
	}
	if d != nil {
		b.check = d.HealthCheck
	}
	return b, true
}

// datagramBackend is what stands behind a cluster for datagrams. They are sent as they came: what a DestinationRule or the mesh says of
// connections, TLS among it, is not for them.
func (g *Generator) datagramBackend(port uint16, host string) (*backend, bool) {
	s := g.service(host)
	if s == nil || s.UDPPort(port) == nil {
		return nil, false
	}
	p := g.policy(g.destination(s), nil, port)
	p.TLS, p.Pool, p.ProxyProtocol, p.RetryBudget = &model.ClientTLS{Mode: model.TLSDisable}, nil, 0, nil
	return &backend{service: s, port: s.UDPPort(port), policy: p, host: host, udp: true}, true
}

// portOf gives an instance's port.
func (b *backend) portOf(e *model.Endpoint) uint16 {
	ports := e.Ports
	if b.udp {
		ports = e.UDP
	}
	if port := ports[b.port.Number]; port != 0 {
		return port
	}
	return b.port.Number
}

// passthrough says that connections go to the address that the client chose.
func (b *backend) passthrough() bool {
	return b.service.Resolution == model.None || b.policy.Balancing != nil && b.policy.Balancing.Simple == "PASSTHROUGH"
}

func (g *Generator) outboundCluster(name string, b *backend) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  g.connectTimeout(b.policy.Pool),
		Metadata:        serviceMetadata(b),
		CircuitBreakers: circuitBreakers(b.policy.Pool),
		// Endpoints that are not ready are left at once, however few remain.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
	}
	if r := b.policy.RetryBudget; r != nil {
		c.CircuitBreakers.Thresholds[0].RetryBudget = retryBudget(r)
	}
	if o := b.policy.Outlier; o != nil {
		c.OutlierDetection = outlier(o)
		c.CommonLbConfig.HealthyPanicThreshold.Value = float64(o.MinHealthPercent)
	}
	if p := b.policy.Pool; p != nil && p.KeepAlive != nil {
		c.UpstreamConnectionOptions = keepAlive(p.KeepAlive)
	}
	if b.check != nil && !g.node.Proxyless && !b.passthrough() && b.service.Resolution != model.ByHost {
		c.HealthChecks = []*corev3.HealthCheck{healthCheck(b)}
	}
	g.discover(c, b)
	g.secure(c, b)
	announce(c, b.policy.ProxyProtocol)
	c.TypedExtensionProtocolOptions = protocolOptions(b.port.Protocol, b.policy.Pool, b.policy.Outlier)
	if c.GetClusterType() != nil {
		named(c)
	}
	return c
}

// discovery says where the endpoints of a backend come from.
func (g *Generator) discovery(b *backend) clusterv3.Cluster_DiscoveryType {
	switch {
	case b.passthrough():
		return clusterv3.Cluster_ORIGINAL_DST
	case b.service.Resolution == model.DNS || b.service.ExternalName != "" && g.alias(b.service) == nil:
		return clusterv3.Cluster_STRICT_DNS
	case b.service.Resolution == model.ByHost:
		return clusterv3.Cluster_STATIC // in name alone: see byHost
	case b.service.Resolution == model.DNSRoundRobin:
		return clusterv3.Cluster_LOGICAL_DNS
	}
	return clusterv3.Cluster_EDS
}

func (g *Generator) discover(c *clusterv3.Cluster, b *backend) {
	if b.service.Resolution == model.ByHost && !b.passthrough() {
		byHost(c)
		return
	}
	kind := g.discovery(b)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	if t := b.policy.TLS; t != nil && t.Refuse {
		// Nobody is there who could prove to be the server.
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name}
		return
	}
	g.balance(c, b.policy.Balancing)
	switch kind {
	case clusterv3.Cluster_ORIGINAL_DST:
		c.LbPolicy, c.LbConfig, c.LoadBalancingPolicy = clusterv3.Cluster_CLUSTER_PROVIDED, nil, nil
	case clusterv3.Cluster_EDS:
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: c.Name}
	default:
		c.LoadAssignment = g.dnsEndpoints(c.Name, b)
		c.RespectDnsTtl, c.DnsLookupFamily = true, clusterv3.Cluster_V4_PREFERRED
	}
}

func (g *Generator) connectTimeout(p *model.ConnectionPool) *durationpb.Duration {
	switch {
	case p != nil && p.ConnectTimeout > 0:
		return durationpb.New(p.ConnectTimeout)
	case g.mesh.Settings().ConnectTimeout > 0:
		return durationpb.New(g.mesh.Settings().ConnectTimeout)
	}
	return durationpb.New(defaultConnectTimeout)
}

// circuitBreakers: without settings there are no limits, where Envoy would have some.
func circuitBreakers(p *model.ConnectionPool) *clusterv3.CircuitBreakers {
	limit := func(n uint32) *wrapperspb.UInt32Value {
		if n == 0 {
			n = math.MaxUint32
		}
		return wrapperspb.UInt32(n)
	}
	t := &clusterv3.CircuitBreakers_Thresholds{MaxConnections: limit(0), MaxPendingRequests: limit(0), MaxRequests: limit(0),
		MaxRetries: limit(0), TrackRemaining: true}
	if p != nil {
		t.MaxConnections, t.MaxPendingRequests, t.MaxRequests = limit(p.MaxConnections), limit(p.MaxPending), limit(p.MaxRequests)
		if p.MaxRetries != nil {
			t.MaxRetries = wrapperspb.UInt32(*p.MaxRetries)
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
}

func retryBudget(r *model.RetryBudget) *clusterv3.CircuitBreakers_Thresholds_RetryBudget {
	out := &clusterv3.CircuitBreakers_Thresholds_RetryBudget{}
	if r.Percent != nil {
		out.BudgetPercent = &typev3.Percent{Value: *r.Percent}
	}
	if r.Min != nil {
		out.MinRetryConcurrency = wrapperspb.UInt32(*r.Min)
	}
	return out
}

// http2Options are the limits of connections of HTTP/2; never nil.
func http2Options(p *model.ConnectionPool) *corev3.Http2ProtocolOptions {
	out := &corev3.Http2ProtocolOptions{}
	if p == nil {
		return out
	}
	if p.MaxStreams > 0 {
		out.MaxConcurrentStreams = wrapperspb.UInt32(p.MaxStreams)
	}
	if p.PingAfter > 0 {
		out.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: durationpb.New(p.PingAfter), Timeout: durationpb.New(p.PingTimeout)}
	}
	return out
}

// keepAlive asks for TCP's own probing. Its durations are whole seconds.
func keepAlive(k *model.KeepAlive) *clusterv3.UpstreamConnectionOptions {
	seconds := func(d time.Duration) *wrapperspb.UInt32Value {
		if d == 0 {
			return nil
		}
		return wrapperspb.UInt32(uint32(max(1, d/time.Second)))
	}
	out := &corev3.TcpKeepalive{KeepaliveTime: seconds(k.Idle), KeepaliveInterval: seconds(k.Interval)}
	if k.Probes > 0 {
		out.KeepaliveProbes = wrapperspb.UInt32(k.Probes)
	}
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: out}
}

// protocolOptions say which version of HTTP a port is spoken to in, and limit its connections. A port that is declared for HTTP/2 or
// gRPC speaks that; any other speaks what the client does, which is all that is known of it. Nil for ports that carry no HTTP and
// have no limits.
func protocolOptions(protocol model.Protocol, p *model.ConnectionPool, o *model.Outlier) map[string]*anypb.Any {
	limited := p != nil && (p.IdleTimeout > 0 || p.MaxRequestsPerConnection > 0 || p.MaxConnectionDuration > 0)
	if !limited && (p == nil || p.MaxStreams == 0 && p.PingAfter == 0) && !protocol.IsHTTP() && protocol != model.Auto {
		return nil
	}
	out := &upstreamsv3.HttpProtocolOptions{OutlierDetection: errorCodes(o)}
	if limited {
		out.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{}
		if p.IdleTimeout > 0 {
			out.CommonHttpProtocolOptions.IdleTimeout = durationpb.New(p.IdleTimeout)
		}
		if p.MaxConnectionDuration > 0 {
			out.CommonHttpProtocolOptions.MaxConnectionDuration = durationpb.New(p.MaxConnectionDuration)
		}
		if p.MaxRequestsPerConnection > 0 {
			out.CommonHttpProtocolOptions.MaxRequestsPerConnection = wrapperspb.UInt32(p.MaxRequestsPerConnection)
		}
	}
	http2 := protocol.IsHTTP2() || p != nil && p.UpgradeHTTP2 && protocol.IsHTTP()
	if http2 && !(p != nil && p.ClientProtocol) {
		out.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: http2Options(p)}}}
	} else {
		out.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{}}
		if o := http2Options(p); o.MaxConcurrentStreams != nil || o.ConnectionKeepalive != nil {
			out.GetUseDownstreamProtocolConfig().Http2ProtocolOptions = o
		}
	}
	return map[string]*anypb.Any{httpProtocolOptions: pack(out)}
}

// errorCodes says which responses count as errors; nil for those from 500 on.
func errorCodes(o *model.Outlier) *upstreamsv3.HttpProtocolOptions_OutlierDetection {
	if o == nil || len(o.ErrorCodes) == 0 {
		return nil
	}
	var rules []*matcherv3.MatchPredicate
	for _, code := range o.ErrorCodes {
		rules = append(rules, &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &matcherv3.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{{Name: ":status",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(strconv.Itoa(int(code)), false)}}}}}})
	}
	if len(rules) == 1 {
		return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: rules[0]}
	}
	return &upstreamsv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &matcherv3.MatchPredicate{
		Rule: &matcherv3.MatchPredicate_OrMatch{OrMatch: &matcherv3.MatchPredicate_MatchSet{Rules: rules}}}}
}

// outlier translates outlier detection as Istio does: only what is asked for ejects, and success rates never do.
func outlier(o *model.Outlier) *clusterv3.OutlierDetection {
	out := &clusterv3.OutlierDetection{EnforcingSuccessRate: wrapperspb.UInt32(0)}
	enforce := func(n *uint32) (threshold, share *wrapperspb.UInt32Value) {
		if n == nil {
			return nil, nil
		}
		if *n == 0 {
			return wrapperspb.UInt32(0), wrapperspb.UInt32(0)
		}
		return wrapperspb.UInt32(*n), wrapperspb.UInt32(100)
	}
	out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = enforce(o.Consecutive5xx)
	out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = enforce(o.ConsecutiveGateway)
	if o.SplitLocalOrigin {
		out.SplitExternalLocalOriginErrors = true
		out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = enforce(o.ConsecutiveLocal)
		out.EnforcingLocalOriginSuccessRate = wrapperspb.UInt32(0)
	}
	if o.Interval > 0 {
		out.Interval = durationpb.New(o.Interval)
	}
	if o.BaseEjection > 0 {
		out.BaseEjectionTime = durationpb.New(o.BaseEjection)
	}
	if o.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = wrapperspb.UInt32(o.MaxEjectionPercent)
	}
	return out
}

// serviceMetadata says for metrics which service a cluster is of.
func serviceMetadata(b *backend) *corev3.Metadata {
	fields := describeService(b.service.Host, b.service.Name, b.service.Namespace)
	fields["default_original_port"] = structpb.NewNumberValue(float64(b.port.Number))
	if b.subset != nil {
		fields["subset"] = structpb.NewStringValue(b.subset.Name)
	}
	return istioMetadata(fields)
}

func describeService(host, name, namespace string) map[string]*structpb.Value {
	service := structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
		"host": structpb.NewStringValue(host), "name": structpb.NewStringValue(name), "namespace": structpb.NewStringValue(namespace),
	}})
	return map[string]*structpb.Value{"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{service}})}
}

// originalDestination is a cluster that dials where the captured connection was going.
func (g *Generator) originalDestination(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ConnectTimeout: g.connectTimeout(nil), LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}, CircuitBreakers: circuitBreakers(nil)}
}

// inboundCluster leads to the workload's own port.
func (g *Generator) inboundCluster(name string, port uint16) (proto.Message, bool) {
	for _, p := range g.ports() {
		if p.Number != port {
			continue
		}
		c := g.originalDestination(name)
		endpoint, pool := g.ingress(port)
		c.TypedExtensionProtocolOptions = protocolOptions(p.Protocol, pool, nil)
		c.CircuitBreakers = circuitBreakers(pool)
		c.ConnectTimeout = g.connectTimeout(pool)
		if pool != nil && pool.KeepAlive != nil {
			c.UpstreamConnectionOptions = keepAlive(pool.KeepAlive)
		}
		deliver(c, endpoint)
		if p.ServiceHost != "" {
			service, namespace := p.ServiceHost, g.node.Namespace
			if s := g.mesh.Service(p.ServiceHost); s != nil {
				service, namespace = s.Name, s.Namespace
			}
			fields := describeService(p.ServiceHost, service, namespace)
			fields["default_original_port"] = structpb.NewNumberValue(float64(p.ServicePort))
			c.Metadata = istioMetadata(fields)
		}
		return c, true
	}
	return nil, false
}

// alias is the mesh's own service that an ExternalName points to; nil when it points outside.
func (g *Generator) alias(s *model.Service) *model.Service {
	if s.ExternalName == "" {
		return nil
	}
	a := g.mesh.Service(s.ExternalName)
	if a == nil || a == s || a.ExternalName != "" || !g.visible(a) {
		return nil
	}
	return a
}
