package generate

import (
	"fmt"
	"math"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// spread lists localities as "priority weight region/zone/subzone".
func spread(t *testing.T, m *model.Mesh, node view.Node) string {
	t.Helper()
	msg, ok := New(m, node).clusters.Endpoints("outbound|9080||" + reviewsHost)
	a, _ := msg.(*endpointv3.ClusterLoadAssignment)
	if !ok || a == nil {
		t.Fatal("no endpoints")
	}
	var out []string
	for _, l := range a.Endpoints {
		out = append(out, fmt.Sprintf("%d %d %s/%s/%s", l.Priority, l.LoadBalancingWeight.GetValue(), l.Locality.Region, l.Locality.Zone, l.Locality.SubZone))
	}
	return strings.Join(out, ", ")
}

func TestLocalities(t *testing.T) {
	outlier := &model.Outlier{}
	for _, c := range []struct {
		name, client string
		policy       model.TrafficPolicy
		want         string
	}{
		{"without outlier detection", "r1/z1/s1", model.TrafficPolicy{},
			"0 1 r1/z1/s1, 0 1 r1/z1/s2, 0 1 r1/z2/, 0 1 r2/z3/, 0 1 r3/z4/"},
		{"nearest first", "r1/z1/s1", model.TrafficPolicy{Outlier: outlier},
			"0 1 r1/z1/s1, 1 1 r1/z1/s2, 2 1 r1/z2/, 3 1 r2/z3/, 3 1 r3/z4/"},
		{"gaps are closed", "r2/z9", model.TrafficPolicy{Outlier: outlier},
			"0 1 r2/z3/, 1 1 r1/z1/s1, 1 1 r1/z1/s2, 1 1 r1/z2/, 1 1 r3/z4/"},
		{"a client that is nowhere", "", model.TrafficPolicy{Outlier: outlier},
			"0 1 r1/z1/s1, 0 1 r1/z1/s2, 0 1 r1/z2/, 0 1 r2/z3/, 0 1 r3/z4/"},
		{"failover", "r1/z1/s1", model.TrafficPolicy{Outlier: outlier, Balancing: &model.Balancing{Locality: &model.LocalitySetting{Failover: [][2]string{{"r1", "r3"}}}}},
			"0 1 r1/z1/s1, 1 1 r1/z1/s2, 2 1 r1/z2/, 3 1 r3/z4/, 4 1 r2/z3/"},
		{"disabled", "r1/z1/s1", model.TrafficPolicy{Outlier: outlier, Balancing: &model.Balancing{Locality: &model.LocalitySetting{Disabled: true}}},
			"0 1 r1/z1/s1, 0 1 r1/z1/s2, 0 1 r1/z2/, 0 1 r2/z3/, 0 1 r3/z4/"},
		{"by labels", "r1/z2", model.TrafficPolicy{Outlier: outlier, Balancing: &model.Balancing{
			Locality: &model.LocalitySetting{FailoverPriority: []string{model.RegionLabel, model.ZoneLabel}}}},
			"0 1 r1/z2/, 1 1 r1/z1/s1, 1 1 r1/z1/s2, 2 1 r2/z3/, 2 1 r3/z4/"},
		{"by a value", "r1/z2", model.TrafficPolicy{Outlier: outlier, Balancing: &model.Balancing{
			Locality: &model.LocalitySetting{FailoverPriority: []string{model.RegionLabel + "=r3"}}}},
			"0 1 r3/z4/, 1 1 r1/z1/s1, 1 1 r1/z1/s2, 1 1 r1/z2/, 1 1 r2/z3/"},
		{"distribute", "r1/z1/s1", model.TrafficPolicy{Balancing: &model.Balancing{Locality: &model.LocalitySetting{
			Distribute: []model.Distribution{{From: "r9/*", To: map[string]uint32{"*": 100}}, {From: "r1/*", To: map[string]uint32{"r1/z1/*": 80, "r2/*": 20}}}}}},
			"0 40000 r1/z1/s1, 0 40000 r1/z1/s2, 0 20000 r2/z3/"},
	} {
		m := testMesh()
		s := m.Services.Get(reviewsHost)
		s.Endpoints = nil
		for i, l := range []string{"r1/z1/s1", "r1/z1/s2", "r1/z2", "r2/z3", "r3/z4"} {
			e := endpoint("reviews", "v1", fmt.Sprintf("10.77.9.%d", i), 9080)
			e.Locality = l
			s.Endpoints = append(s.Endpoints, e)
		}
		rule(m, "default", reviewsHost).Policy = c.policy
		node := productpage()
		node.Locality = c.client
		if got := spread(t, m, node); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		msg, _ := New(m, node).clusters.Cluster("outbound|9080||" + reviewsHost)
		cl, _ := msg.(*clusterv3.Cluster)
		if weighted := cl.GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil; weighted != (c.name == "distribute") {
			t.Errorf("%s: weighs localities: %v", c.name, weighted)
		}
	}
}

// Weights are a user's, each of them any number of 32 bits. Their sums are such numbers too, or clients refuse the endpoints.
func TestSumsOfWeights(t *testing.T) {
	for _, c := range []struct {
		weights []uint32 // of endpoints in zones a and b in turn
		want    string
	}{
		{[]uint32{0, 3, 2, 4}, "0 3 r/a/, 0 7 r/b/"},
		{[]uint32{math.MaxUint32 - 2, 2}, "0 4294967293 r/a/, 0 2 r/b/"},
		{[]uint32{1, 0, math.MaxUint32}, "0 4294967291 r/a/, 0 1 r/b/"},
		{[]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, "0 2147483644 r/a/, 0 2147483644 r/b/"},
	} {
		m := testMesh()
		s := m.Services.Get(reviewsHost)
		s.Endpoints = nil
		for i, w := range c.weights {
			e := endpoint("reviews", "v1", fmt.Sprintf("10.77.9.%d", i), 9080)
			e.Weight, e.Locality = w, "r/"+[]string{"a", "b"}[i%2]
			s.Endpoints = append(s.Endpoints, e)
		}
		if got := spread(t, m, productpage()); got != c.want {
			t.Errorf("%d: got %s, want %s", c.weights, got, c.want)
		}
	}
}

// A Service may ask for its nearest endpoints without a rule.
func TestNearService(t *testing.T) {
	m := testMesh()
	s := m.Services.Get(reviewsHost)
	s.Near = true
	for i, e := range s.Endpoints {
		e.Locality = fmt.Sprintf("r1/z%d", i)
	}
	n := productpage()
	n.Locality = "r1/z0"
	if got := spread(t, m, n); !strings.HasPrefix(got, "0 1 r1/z0/, 1 1 r1/z1/") {
		t.Errorf("got %s", got)
	}
	if x := NewIndex(m); x.For(n).Class(EndpointsType, "x") == x.For(productpage()).Class(EndpointsType, "x") {
		t.Error("one class for clients in different localities")
	}
}

// Clients that are told different things must not share resources.
func TestClassByLocality(t *testing.T) {
	m := testMesh()
	a, b := productpage(), productpage()
	b.Locality = "r2"
	x := NewIndex(m)
	if x.For(a).Class(EndpointsType, "x") != x.For(b).Class(EndpointsType, "x") {
		t.Error("different classes without a reason")
	}
	rule(m, "default", reviewsHost).Policy.Outlier = &model.Outlier{}
	x = NewIndex(m)
	if x.For(a).Class(EndpointsType, "x") == x.For(b).Class(EndpointsType, "x") {
		t.Error("one class for clients in different localities")
	}
	// Of the labels, those that rules name.
	b.Locality, a.Labels, b.Labels = a.Locality, map[string]string{"app": "x"}, map[string]string{"app": "y"}
	if x.For(a).Class(EndpointsType, "x") != x.For(b).Class(EndpointsType, "x") {
		t.Error("different classes for labels that nobody reads")
	}
	rule(m, "default", reviewsHost).Policy.Balancing = &model.Balancing{Locality: &model.LocalitySetting{FailoverPriority: []string{"version=v1", "app"}}}
	x = NewIndex(m)
	if x.For(a).Class(EndpointsType, "x") == x.For(b).Class(EndpointsType, "x") {
		t.Error("one class for clients whose label decides")
	}
	b.Labels = map[string]string{"app": "x", "version": "v2"}
	if x.For(a).Class(EndpointsType, "x") != x.For(b).Class(EndpointsType, "x") {
		t.Error("different classes for a label whose value is fixed")
	}
}

func TestRuleBySelector(t *testing.T) {
	m := testMesh()
	balanced(m, "default", reviewsHost, "RANDOM")
	selective := balanced(m, "default", reviewsHost, "ROUND_ROBIN")
	selective.Selector = map[string]string{"app": "productpage"}
	for app, want := range map[string]clusterv3.Cluster_LbPolicy{"productpage": clusterv3.Cluster_ROUND_ROBIN, "other": clusterv3.Cluster_RANDOM} {
		n := productpage()
		n.Labels = map[string]string{"app": app}
		msg, _ := New(m, n).clusters.Cluster("outbound|9080||" + reviewsHost)
		if c, _ := msg.(*clusterv3.Cluster); c.GetLbPolicy() != want {
			t.Errorf("%s: got %v, want %v", app, c.GetLbPolicy(), want)
		}
	}
	selective.Selector = map[string]string{} // selects all, and is more than a rule that selects none
	msg, _ := New(m, productpage()).clusters.Cluster("outbound|9080||" + reviewsHost)
	if c, _ := msg.(*clusterv3.Cluster); c.GetLbPolicy() != clusterv3.Cluster_ROUND_ROBIN {
		t.Errorf("a selector without labels: got %v", c.GetLbPolicy())
	}
}

// TestRuleByNamespace: a rule that its own namespace is left out of is none there, and in the root namespace one that stays there goes before
// the service's, as in Istio.
func TestRuleByNamespace(t *testing.T) {
	const root = "istio-system"
	m := testMesh()
	m.Settings.RootNamespace = root
	balanced(m, "default", reviewsHost, "RANDOM").ExportTo.Namespaces = []string{"other", root}
	balanced(m, root, "*.default"+domain, "ROUND_ROBIN")
	policy := func(namespace string) clusterv3.Cluster_LbPolicy {
		n := productpage()
		n.Namespace = namespace
		msg, _ := New(m, n).clusters.Cluster("outbound|9080||" + reviewsHost)
		c, _ := msg.(*clusterv3.Cluster)
		return c.GetLbPolicy()
	}
	for namespace, want := range map[string]clusterv3.Cluster_LbPolicy{"default": clusterv3.Cluster_ROUND_ROBIN, "other": clusterv3.Cluster_RANDOM,
		"third": clusterv3.Cluster_ROUND_ROBIN, root: clusterv3.Cluster_RANDOM} {
		if got := policy(namespace); got != want {
			t.Errorf("%s: got %v, want %v", namespace, got, want)
		}
	}
	balanced(m, root, reviewsHost, "LEAST_REQUEST").ExportTo.Private = true
	if got := policy(root); got != clusterv3.Cluster_LEAST_REQUEST {
		t.Errorf("a rule that the root namespace keeps to itself: got %v there", got)
	}
	if got := policy("third"); got != clusterv3.Cluster_ROUND_ROBIN {
		t.Errorf("a rule that the root namespace keeps to itself: got %v elsewhere", got)
	}
}
