package proxyless

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxRing is the largest ring that clients make.
const maxRing = 8 << 20

// balance chooses among what clients know: round robin, ring hash, and least request where an implementation has it, within each
// locality by weight. The enumeration is for clients that do not read policies as messages (gRFC A52), and some refuse one that says
// LEAST_REQUEST.
func balance(out, c *clusterv3.Cluster) {
	switch c.LbPolicy {
	case clusterv3.Cluster_RING_HASH, clusterv3.Cluster_MAGLEV:
		ring := &clusterv3.Cluster_RingHashLbConfig{}
		if n := c.GetRingHashLbConfig().GetMinimumRingSize(); n != nil {
			ring.MinimumRingSize = wrapperspb.UInt64(min(n.Value, maxRing))
		}
		out.LbPolicy, out.LbConfig = clusterv3.Cluster_RING_HASH, &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: ring}
	case clusterv3.Cluster_LEAST_REQUEST:
		out.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		within := policies(policy("envoy.load_balancing_policies.least_request", &leastv3.LeastRequest{}),
			policy("envoy.load_balancing_policies.round_robin", &roundv3.RoundRobin{}))
		out.LoadBalancingPolicy = policies(policy("envoy.load_balancing_policies.wrr_locality",
			&wrrv3.WrrLocality{EndpointPickingPolicy: within}))
	default:
		out.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
}

func policies(p ...*clusterv3.LoadBalancingPolicy_Policy) *clusterv3.LoadBalancingPolicy {
	return &clusterv3.LoadBalancingPolicy{Policies: p}
}

func policy(name string, m proto.Message) *clusterv3.LoadBalancingPolicy_Policy {
	return &clusterv3.LoadBalancingPolicy_Policy{TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(m)}}
}

// breakers keeps the one limit that clients know, of requests at a time.
func breakers(b *clusterv3.CircuitBreakers) *clusterv3.CircuitBreakers {
	for _, t := range b.GetThresholds() {
		if t.Priority == corev3.RoutingPriority_DEFAULT && t.MaxRequests != nil {
			return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{MaxRequests: t.MaxRequests}}}
		}
	}
	return nil
}

// ejectAbove is the share of failed calls, in per cent, above which an endpoint is ejected: Envoy's own default.
const ejectAbove = 85

// outlier translates counts of failures in a row, which gRPC does not keep (gRFC A50), into the share of calls that fail: an endpoint
// goes when it had at least so many calls in an interval, and nearly all failed.
func outlier(o *clusterv3.OutlierDetection) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{Interval: o.Interval, BaseEjectionTime: o.BaseEjectionTime, MaxEjectionTime: o.MaxEjectionTime,
		MaxEjectionPercent: o.MaxEjectionPercent, EnforcingSuccessRate: wrapperspb.UInt32(0)}
	calls := inARow(o)
	if calls == 0 {
		return out
	}
	out.EnforcingFailurePercentage, out.FailurePercentageThreshold = wrapperspb.UInt32(100), wrapperspb.UInt32(ejectAbove)
	out.FailurePercentageMinimumHosts, out.FailurePercentageRequestVolume = wrapperspb.UInt32(1), wrapperspb.UInt32(calls)
	return out
}

// inARow is the fewest failures that eject; 0 for none. Without a word of the user, Envoy ejects after five errors.
func inARow(o *clusterv3.OutlierDetection) uint32 {
	fewest := uint32(0)
	for _, n := range []struct {
		count, enforced *wrapperspb.UInt32Value
		unset           uint32
	}{
		{o.Consecutive_5Xx, o.EnforcingConsecutive_5Xx, 5},
		{o.ConsecutiveGatewayFailure, o.EnforcingConsecutiveGatewayFailure, 0},
	} {
		count := n.unset
		if n.count != nil {
			count = n.count.Value
		}
		if n.enforced != nil && n.enforced.Value == 0 {
			count = 0
		}
		if count > 0 && (fewest == 0 || count < fewest) {
			fewest = count
		}
	}
	return fewest
}

// clientSocket gives the TLS of a cluster in the form that clients read; nil for plain text, and false where there is none. Names of
// servers are matched by the older of two fields, whatever its type: gRPC does not read the newer one, and would take every server
// of the mesh.
func clientSocket(c *clusterv3.Cluster) (*corev3.TransportSocket, bool) {
	if len(c.TransportSocketMatches) > 0 {
		return nil, false
	}
	if c.TransportSocket == nil {
		return nil, true
	}
	var t tlsv3.UpstreamTlsContext
	if c.TransportSocket.Name != tlsSocket || c.TransportSocket.GetTypedConfig().UnmarshalTo(&t) != nil {
		return nil, false
	}
	common := t.GetCommonTlsContext()
	v := common.GetValidationContext()
	if common.GetTlsCertificateProviderInstance() == nil || v.GetCaCertificateProviderInstance() == nil {
		return nil, false
	}
	validation := &tlsv3.CertificateValidationContext{CaCertificateProviderInstance: v.CaCertificateProviderInstance}
	for _, m := range v.MatchTypedSubjectAltNames {
		validation.MatchSubjectAltNames = append(validation.MatchSubjectAltNames, m.GetMatcher())
	}
	out := &tlsv3.UpstreamTlsContext{Sni: t.Sni, CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateProviderInstance: common.TlsCertificateProviderInstance,
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(out)}}, true
}
