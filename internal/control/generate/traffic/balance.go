package traffic

import (
	"cmp"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// OwnPolicies are Weft's, by the names under which its proxies know them.
var OwnPolicies = map[string]string{"PEAK_EWMA": "weft.balance.peak_ewma", "PROBING": "weft.balance.probing"}

// OwnPolicy names a policy of ours, and least request for proxies that do not know it: they take the first that they know.
func OwnPolicy(name string, byLocality bool) *clusterv3.LoadBalancingPolicy {
	least := &leastv3.LeastRequest{}
	if byLocality {
		least.LocalityLbConfig = &commonv3.LocalityLbConfig{LocalityConfigSpecifier: &commonv3.LocalityLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &commonv3.LocalityLbConfig_LocalityWeightedLbConfig{}}}
	}
	policy := func(name string, m proto.Message) *clusterv3.LoadBalancingPolicy_Policy {
		return &clusterv3.LoadBalancingPolicy_Policy{TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: message.Pack(m)}}
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{
		policy(name, &structpb.Struct{}), policy("envoy.load_balancing_policies.least_request", least)}}
}

// HashBalance has a cluster balance by consistent hashing.
func HashBalance(c *clusterv3.Cluster, h *model.ConsistentHash) {
	size := func(n uint64) *wrapperspb.UInt64Value {
		if n == 0 {
			return nil
		}
		return wrapperspb.UInt64(n)
	}
	if h.Maglev {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		if h.TableSize > 0 {
			c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: size(h.TableSize)}}
		}
		return
	}
	c.LbPolicy = clusterv3.Cluster_RING_HASH
	c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
		MinimumRingSize: wrapperspb.UInt64(cmp.Or(h.RingSize, 1024))}}
}
