package cluster

import (
	"maps"
	"math"
	"slices"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// group is endpoints of one locality that have one priority, and the locality's weight.
type group struct {
	locality string
	priority uint32
}

// preference gives endpoints their priority for this client: the nearer ones first. It is nil where all are equal, which is so
// unless outlier detection is configured, since otherwise nothing would tell that the near ones fail, as in Istio; or the service
// itself asks for it.
func (g *Generator) preference(s *model.Service, p *model.TrafficPolicy) func(*model.Endpoint) uint32 {
	var l model.LocalitySetting
	if p.Balancing != nil && p.Balancing.Locality != nil {
		l = *p.Balancing.Locality
	}
	switch {
	case l.Disabled || p.Outlier == nil && !s.Near || len(l.Distribute) > 0:
		return nil
	case len(l.FailoverPriority) > 0:
		return func(e *model.Endpoint) uint32 {
			return labelDistance(l.FailoverPriority, g.node.Labels, g.node.Locality, e)
		}
	case g.node.Locality == "":
		return nil
	}
	return func(e *model.Endpoint) uint32 { return distance(g.node.Locality, e.Locality, l.Failover) }
}

// distance counts the levels in which localities differ: 0 for the same, 3 for another region, 4 for a region that is not the one
// to which this one fails over.
func distance(from, to string, failover [][2]string) uint32 {
	a, b := strings.SplitN(from+"//", "/", 4), strings.SplitN(to+"//", "/", 4)
	for i := range 3 {
		if a[i] == b[i] {
			continue
		}
		if i == 0 {
			for _, f := range failover {
				if f[0] == a[0] && f[1] != b[0] {
					return 4
				}
			}
		}
		return uint32(3 - i)
	}
	return 0
}

// labelDistance counts the labels from the first on that differ. "label=value" compares with that value instead of the client's.
func labelDistance(keys []string, labels map[string]string, locality string, e *model.Endpoint) uint32 {
	for i, k := range keys {
		key, want, fixed := strings.Cut(k, "=")
		if !fixed {
			want = labelOr(labels, locality, key)
		}
		if labelOr(e.Labels, e.Locality, key) != want {
			return uint32(len(keys) - i)
		}
	}
	return 0
}

// labelOr gives a label; those of the topology come from the locality where they are not labels.
func labelOr(labels map[string]string, locality, key string) string {
	if v, ok := labels[key]; ok {
		return v
	}
	parts := strings.SplitN(locality+"//", "/", 4)
	switch key {
	case model.RegionLabel:
		return parts[0]
	case model.ZoneLabel:
		return parts[1]
	case model.SubzoneLabel:
		return parts[2]
	}
	return ""
}

// distribution gives the weights that clients like this one give to localities; nil for none.
func (g *Generator) distribution(l *model.LocalitySetting) map[string]uint32 {
	if g.node.Locality == "" {
		return nil
	}
	for _, d := range l.Distribute {
		if model.LocalityMatches(d.From, g.node.Locality) {
			return d.To
		}
	}
	return nil
}

// sumWeights gives each locality the weight of its endpoints. Clients refuse weights whose sum is beyond 32 bits (gRFC A27, and so does
// Envoy): larger ones are scaled down together, and none to less than 1.
func sumWeights(groups []*endpointv3.LocalityLbEndpoints) {
	sum, count := uint64(0), uint64(0)
	for _, l := range groups {
		for _, e := range l.LbEndpoints {
			sum += uint64(e.LoadBalancingWeight.GetValue())
		}
		count += uint64(len(l.LbEndpoints))
	}
	for _, l := range groups {
		own := uint32(0)
		for _, e := range l.LbEndpoints {
			if sum > math.MaxUint32 {
				e.LoadBalancingWeight = message.Weight(uint32(uint64(e.LoadBalancingWeight.GetValue()) * (math.MaxUint32 - count) / sum))
			}
			own += e.LoadBalancingWeight.GetValue()
		}
		l.LoadBalancingWeight = wrapperspb.UInt32(own)
	}
}

// weigh gives localities the weights that the user wants. Those that one pattern covers share its weight by their number of
// endpoints; those that none covers get nothing.
func weigh(to map[string]uint32, groups []*endpointv3.LocalityLbEndpoints) []*endpointv3.LocalityLbEndpoints {
	var out []*endpointv3.LocalityLbEndpoints
	const scale = 1000
	for _, pattern := range slices.Sorted(maps.Keys(to)) {
		var covered []*endpointv3.LocalityLbEndpoints
		sum := uint64(0)
		for _, l := range groups {
			if model.LocalityMatches(pattern, l.Locality.Region+"/"+l.Locality.Zone+"/"+l.Locality.SubZone) {
				covered = append(covered, l)
				sum += uint64(l.LoadBalancingWeight.GetValue())
			}
		}
		for _, l := range covered {
			l.LoadBalancingWeight.Value = uint32(max(1, uint64(to[pattern])*scale*uint64(l.LoadBalancingWeight.Value)/sum))
		}
		out = append(out, covered...)
	}
	return out
}

// closeGaps numbers priorities without gaps, as Envoy wants them.
func closeGaps(groups []*endpointv3.LocalityLbEndpoints) {
	var used []uint32
	for _, l := range groups {
		used = append(used, l.Priority)
	}
	slices.Sort(used)
	used = slices.Compact(used)
	for _, l := range groups {
		i, _ := slices.BinarySearch(used, l.Priority)
		l.Priority = uint32(i)
	}
}
