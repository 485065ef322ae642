package clusters

import (
	"math/big"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	providedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

var balancings = map[clusterv3.Cluster_LbPolicy]conf.Balancing{
	clusterv3.Cluster_ROUND_ROBIN: conf.RoundRobin, clusterv3.Cluster_LEAST_REQUEST: conf.LeastRequest,
	clusterv3.Cluster_RANDOM: conf.Random, clusterv3.Cluster_RING_HASH: conf.RingHash, clusterv3.Cluster_MAGLEV: conf.Maglev,
}

func (d *decoder) balancing(m *clusterv3.Cluster, c *conf.Cluster) {
	d.At("original_dst_lb_config", func() {
		d.Only(m.GetOriginalDstLbConfig(), "upstream_port_override")
		c.PortOverride = d.Port("upstream_port_override", m.GetOriginalDstLbConfig().GetUpstreamPortOverride().GetValue())
	})
	d.At("common_lb_config", func() {
		o := m.GetCommonLbConfig()
		// update_merge_window: changes are merged by the stream already.
		d.Only(o, "healthy_panic_threshold", "locality_weighted_lb_config", "update_merge_window")
		if t := o.GetHealthyPanicThreshold(); t != nil {
			c.PanicThreshold = d.Percent("healthy_panic_threshold", t)
		}
		c.LocalityWeighted = o.GetLocalityWeightedLbConfig() != nil
	})
	if p := m.GetLoadBalancingPolicy(); p != nil {
		d.At("load_balancing_policy", func() { d.policyList(p, c) })
		return
	}
	p, known := balancings[m.GetLbPolicy()]
	provided := m.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED && (c.Discovery == conf.OriginalDst || c.Discovery == conf.ByHost)
	if !known && !provided {
		d.At("lb_policy", func() { d.Fail("%s is not supported", m.GetLbPolicy()) })
	}
	c.Policy = p
	d.At("ring_hash_lb_config", func() {
		r := m.GetRingHashLbConfig()
		d.Only(r, "minimum_ring_size", "maximum_ring_size", "hash_function") // either function will do
		d.ring(r.GetMinimumRingSize(), r.GetMaximumRingSize(), c)
	})
	d.At("maglev_lb_config", func() {
		d.Only(m.GetMaglevLbConfig(), "table_size")
		d.maglev(m.GetMaglevLbConfig().GetTableSize(), c)
	})
	d.At("round_robin_lb_config", func() {
		d.Only(m.GetRoundRobinLbConfig(), "slow_start_config")
		if s := m.GetRoundRobinLbConfig().GetSlowStartConfig(); s != nil {
			d.At("slow_start_config", func() { d.slowStart(s, c) })
		}
	})
	d.At("least_request_lb_config", func() {
		d.Only(m.GetLeastRequestLbConfig(), "choice_count", "slow_start_config")
		d.choices(m.GetLeastRequestLbConfig().GetChoiceCount(), c)
		if s := m.GetLeastRequestLbConfig().GetSlowStartConfig(); s != nil {
			d.At("slow_start_config", func() { d.slowStart(s, c) })
		}
	})
}

// ringMost is Envoy's bound.
const ringMost = 8 << 20

func (d *decoder) ring(low, high *wrapperspb.UInt64Value, c *conf.Cluster) {
	c.Balance.MinRing, c.Balance.MaxRing = low.GetValue(), high.GetValue()
	if c.Balance.MinRing > ringMost || c.Balance.MaxRing > ringMost {
		d.Fail("a ring has at most %d entries", ringMost)
	}
	if high != nil && c.Balance.MaxRing < max(c.Balance.MinRing, 1) {
		d.Fail("maximum_ring_size %d is less than minimum_ring_size %d", c.Balance.MaxRing, c.Balance.MinRing)
	}
}

// maglevMost is Envoy's bound.
const maglevMost = 5_000_011

func (d *decoder) maglev(size *wrapperspb.UInt64Value, c *conf.Cluster) {
	if size == nil {
		return
	}
	n := size.GetValue()
	if c.Balance.Table = n; n < 2 || n > maglevMost || !new(big.Int).SetUint64(n).ProbablyPrime(0) {
		d.At("table_size", func() { d.Fail("%d is no prime number of at most %d", n, maglevMost) })
	}
}

func (d *decoder) choices(n *wrapperspb.UInt32Value, c *conf.Cluster) {
	const most = 100
	if n == nil {
		return
	}
	if c.Balance.Choices = n.GetValue(); c.Balance.Choices < 2 || c.Balance.Choices > most {
		d.At("choice_count", func() { d.Fail("%d is not between 2 and %d", c.Balance.Choices, most) })
	}
}

// slowStarter is both forms of the message.
type slowStarter interface {
	proto.Message
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

func (d *decoder) slowStart(m slowStarter, c *conf.Cluster) {
	d.Only(m, "slow_start_window", "aggression", "min_weight_percent")
	s := &conf.SlowStart{Window: d.Required("slow_start_window", m.GetSlowStartWindow()), Aggression: 1, MinWeight: 0.1}
	if a := m.GetAggression(); a != nil {
		d.Only(a, "default_value", "runtime_key")
		if s.Aggression = a.GetDefaultValue(); !(s.Aggression > 0) {
			d.At("aggression", func() { d.Fail("%v is not positive", s.Aggression) })
		}
	}
	if p := m.GetMinWeightPercent(); p != nil {
		s.MinWeight = d.Percent("min_weight_percent", p)
	}
	c.SlowStart = s
}

// Names of the policies that are our own. Their configuration is a Struct without fields.
const (
	ownPolicies    = "weft.balance."
	peakEWMAPolicy = ownPolicies + "peak_ewma"
	probingPolicy  = ownPolicies + "probing"
)

// policyList takes the first policy of the list that is known, as the message's documentation wants it.
func (d *decoder) policyList(m *clusterv3.LoadBalancingPolicy, c *conf.Cluster) {
	d.Only(m, "policies")
	for _, p := range m.GetPolicies() {
		name := p.GetTypedExtensionConfig().GetName()
		found := false
		d.At("policies["+name+"]", func() { found = d.balancePolicy(p.GetTypedExtensionConfig(), c) })
		if found {
			return
		}
	}
	d.Fail("none of its policies is known to this proxy")
}

func (d *decoder) balancePolicy(t *corev3.TypedExtensionConfig, c *conf.Cluster) bool {
	a := t.GetTypedConfig()
	if strings.HasPrefix(t.GetName(), ownPolicies) && a.MessageIs(&structpb.Struct{}) {
		switch t.GetName() {
		case peakEWMAPolicy:
			c.Policy = conf.PeakEWMA
		case probingPolicy:
			c.Policy = conf.Probing
		default:
			return false
		}
		return true
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return false // of a type that we do not have
	}
	switch p := m.(type) {
	case *roundv3.RoundRobin:
		c.Policy = conf.RoundRobin
		d.Only(p, "slow_start_config", "locality_lb_config")
		d.extended(p.GetSlowStartConfig(), p.GetLocalityLbConfig(), c)
	case *leastv3.LeastRequest:
		c.Policy = conf.LeastRequest
		d.Only(p, "choice_count", "slow_start_config", "locality_lb_config")
		d.choices(p.GetChoiceCount(), c)
		d.extended(p.GetSlowStartConfig(), p.GetLocalityLbConfig(), c)
	case *randomv3.Random:
		c.Policy = conf.Random
		d.Only(p, "locality_lb_config")
		d.extended(nil, p.GetLocalityLbConfig(), c)
	case *ringv3.RingHash:
		c.Policy = conf.RingHash
		d.Only(p, "hash_function", "minimum_ring_size", "maximum_ring_size", "locality_weighted_lb_config")
		d.ring(p.GetMinimumRingSize(), p.GetMaximumRingSize(), c)
		c.LocalityWeighted = c.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
	case *maglevv3.Maglev:
		c.Policy = conf.Maglev
		d.Only(p, "table_size", "locality_weighted_lb_config")
		d.maglev(p.GetTableSize(), c)
		c.LocalityWeighted = c.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
	case *wrrv3.WrrLocality:
		d.Only(p, "endpoint_picking_policy")
		c.LocalityWeighted = true
		d.At("endpoint_picking_policy", func() { d.policyList(p.GetEndpointPickingPolicy(), c) })
	case *providedv3.ClusterProvided:
		if c.Discovery != conf.OriginalDst {
			d.Fail("goes only with original destinations")
		}
	default:
		return false
	}
	return true
}

// extended reads what several policies have in common.
func (d *decoder) extended(s *commonv3.SlowStartConfig, l *commonv3.LocalityLbConfig, c *conf.Cluster) {
	if s != nil {
		d.At("slow_start_config", func() { d.slowStart(s, c) })
	}
	if l != nil {
		d.At("locality_lb_config", func() { d.Only(l, "locality_weighted_lb_config") })
		c.LocalityWeighted = c.LocalityWeighted || l.GetLocalityWeightedLbConfig() != nil
	}
}
