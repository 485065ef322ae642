package cluster

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/traffic"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// balance says how a cluster chooses. Without a word of the user, requests go to whoever has the fewest, as in Istio.
func (g *Generator) balance(c *clusterv3.Cluster, b *model.Balancing) {
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	if b == nil {
		return
	}
	if l := b.Locality; l != nil && !l.Disabled && g.distribution(l) != nil {
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}}
	}
	switch name := traffic.OwnPolicies[b.Simple]; {
	case b.Hash != nil:
		traffic.HashBalance(c, b.Hash)
		return
	case name != "" && !g.node.Proxyless:
		c.LoadBalancingPolicy = traffic.OwnPolicy(name, c.CommonLbConfig.GetLocalityWeightedLbConfig() != nil)
		return
	case b.Simple == "ROUND_ROBIN":
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case b.Simple == "RANDOM":
		c.LbPolicy = clusterv3.Cluster_RANDOM
	}
	if b.Warmup == nil {
		return
	}
	slow := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(b.Warmup.Duration),
		Aggression:       &corev3.RuntimeDouble{DefaultValue: b.Warmup.Aggression, RuntimeKey: "aggression"},
		MinWeightPercent: &typev3.Percent{Value: b.Warmup.MinimumPercent}}
	if c.LbPolicy == clusterv3.Cluster_ROUND_ROBIN {
		c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		return
	}
	c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
}

// healthCheck asks as the user wants it: three failures in a row take an endpoint out, one success brings it back.
func healthCheck(b *view.Backend) *corev3.HealthCheck {
	h := b.Check
	out := &corev3.HealthCheck{Interval: durationpb.New(h.Interval), Timeout: durationpb.New(min(h.Interval, checkTimeout)),
		NoTrafficInterval: durationpb.New(h.Interval), IntervalJitterPercent: 10, UnhealthyThreshold: wrapperspb.UInt32(3), HealthyThreshold: wrapperspb.UInt32(1)}
	switch {
	case h.GRPC:
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: h.Service, Authority: b.Service.Host}}
	case h.Path != "":
		out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{Host: b.Service.Host, Path: h.Path}}
	default:
		out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	}
	return out
}

const checkTimeout = 5 * time.Second
