// Package traffic says a traffic policy in the settings of an Envoy cluster: balancing, connections, outlier detection.
package traffic

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

const (
	DefaultConnectTimeout = 10 * time.Second
	HttpProtocolOptions   = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// CircuitBreakers: without settings there are no limits, where Envoy would have some.
func CircuitBreakers(p *model.ConnectionPool) *clusterv3.CircuitBreakers {
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

// RetryBudget bounds the retries that are under way, beside the requests.
func RetryBudget(r *model.RetryBudget) *clusterv3.CircuitBreakers_Thresholds_RetryBudget {
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

// KeepAlive asks for TCP's own probing. Its durations are whole seconds.
func KeepAlive(k *model.KeepAlive) *clusterv3.UpstreamConnectionOptions {
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

// ProtocolOptions say which version of HTTP a port is spoken to in, and limit its connections. A port that is declared for HTTP/2 or
// gRPC speaks that; any other speaks what the client does, which is all that is known of it, unless a rule keeps a port of HTTP to
// HTTP/1.1. Nil for ports that carry no HTTP and have no limits.
func ProtocolOptions(protocol model.Protocol, p *model.ConnectionPool, o *model.Outlier) map[string]*anypb.Any {
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
	setVersion(out, protocol, p)
	return map[string]*anypb.Any{HttpProtocolOptions: message.Pack(out)}
}

// setVersion says which version of HTTP a port is spoken to in.
func setVersion(out *upstreamsv3.HttpProtocolOptions, protocol model.Protocol, p *model.ConnectionPool) {
	if p == nil {
		p = &model.ConnectionPool{}
	}
	explicit := func(c *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig) {
		out.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c}
	}
	switch {
	case p.ClientProtocol:
	case protocol.IsHTTP2(), p.UpgradeHTTP2 && protocol.IsHTTP():
		explicit(&upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2Options(p)}})
		return
	case p.KeepHTTP1 && protocol.IsHTTP():
		explicit(&upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}})
		return
	}
	client := &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{}
	if o := http2Options(p); o.MaxConcurrentStreams != nil || o.ConnectionKeepalive != nil {
		client.Http2ProtocolOptions = o
	}
	out.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: client}
}
