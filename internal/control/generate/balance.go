package generate

import (
	"cmp"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/routing"
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

// hashOf gives the consistent hashing of a destination, nil for none.
func (g *Generator) hashOf(d model.WeightedDestination, port uint16) *model.ConsistentHash {
	s := g.view.Service(d.Host)
	if s == nil {
		return nil
	}
	if d.Port != 0 {
		port = d.Port
	} else if len(s.Ports) == 1 {
		port = s.Ports[0].Number
	}
	rule := g.view.Destination(s)
	if b := g.view.Policy(rule, view.Subset(rule, d.Subset), port).Balancing; b != nil {
		return b.Hash
	}
	return nil
}

// hashPolicies are the keys of all destinations of a route, each once.
func (g *Generator) hashPolicies(destinations []model.WeightedDestination, port uint16) (out []*routev3.RouteAction_HashPolicy) {
	for _, d := range destinations {
		h := g.hashOf(d, port)
		if h == nil {
			continue
		}
		p := routing.HashPolicy(h)
		if !slices.ContainsFunc(out, func(o *routev3.RouteAction_HashPolicy) bool { return proto.Equal(o, p) }) {
			out = append(out, p)
		}
	}
	return out
}

// sourceHash is the key of relayed connections: the client's address is the only one that they have.
func (g *Generator) sourceHash(destinations []model.WeightedDestination, port uint16) []*typev3.HashPolicy {
	for _, d := range destinations {
		if h := g.hashOf(d, port); h != nil && h.SourceIP {
			return []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
		}
	}
	return nil
}

// relayIdle is the idle time-out that the first destination wants of relayed connections.
func (g *Generator) relayIdle(destinations []model.WeightedDestination, port uint16) *durationpb.Duration {
	p := g.relayPool(destinations, port, func(p *model.ConnectionPool) bool { return p.TCPIdleTimeout > 0 })
	if p == nil {
		return nil
	}
	return durationpb.New(p.TCPIdleTimeout)
}

// relayPool gives the settings of the first destination that says what is asked for; nil for none.
func (g *Generator) relayPool(destinations []model.WeightedDestination, port uint16, says func(*model.ConnectionPool) bool) *model.ConnectionPool {
	for _, d := range destinations {
		if s := g.view.Service(d.Host); s != nil {
			rule := g.view.Destination(s)
			if p := g.view.Policy(rule, view.Subset(rule, d.Subset), cmp.Or(d.Port, port)).Pool; p != nil && says(p) {
				return p
			}
		}
	}
	return nil
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
