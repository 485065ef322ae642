package compile

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// crowd are many objects that compete for one thing, and a resource of a node that comes of all of them.
type crowd struct {
	name      string
	fixed     string // objects beside them
	api, kind string
	spec      string // "$i" is the number of the object, "$j" and "$k" that in two parts, "$v" the version
	node      generate.Node
	url       string
	resource  string
	// alone says that what the youngest costs does not depend on the others at all.
	alone bool
}

// object gives a version of one of them.
func (c *crowd) object(i, v int) string {
	r := strings.NewReplacer("$i", fmt.Sprint(i), "$j", fmt.Sprint(i/200), "$k", fmt.Sprint(i%200+v), "$v", fmt.Sprint(v+1))
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: r%d, namespace: default, labels: {kubernetes.io/service-name: reviews}}\n%s\n", c.api, c.kind, i, r.Replace(c.spec))
}

const (
	crowdGate = ruleCompany + `---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: crowd, namespace: default}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]}
`
	crowdEntry = ruleCompany + `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: se, namespace: default}
spec: {hosts: [h.example.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: x}}}
`
	istioNetworking, istioSecurity, gatewayAPI = "networking.istio.io/v1", "security.istio.io/v1", "gateway.networking.k8s.io/v1"

	crowdRoutes, crowdCluster = "reviews.default.svc.cluster.local:9080", "outbound|9080||reviews.default.svc.cluster.local"
)

var (
	crowdSidecar = generate.Node{Role: "sidecar", Namespace: "default"}
	crowdGateway = generate.Node{Role: "router", Namespace: "default", Labels: map[string]string{"istio": "ingressgateway"}}
)

var crowds = []crowd{
	{"HTTPRoutes of a Service", ruleCompany, gatewayAPI, "HTTPRoute", `spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}]
  rules: [{matches: [{path: {value: /p$i-$v}}], backendRefs: [{name: reviews, port: 9080}]}]`, crowdSidecar, generate.RouteType, crowdRoutes, true},
	{"HTTPRoutes of a listener", crowdGate, gatewayAPI, "HTTPRoute", `spec:
  parentRefs: [{name: crowd, sectionName: http}]
  rules: [{matches: [{path: {value: /p$i-$v}}], backendRefs: [{name: reviews, port: 9080}]}]`, crowdGateway, generate.RouteType, "http.80", true},
	{"TCPRoutes of a listener", crowdGate, gatewayAPI, "TCPRoute", `spec:
  parentRefs: [{name: crowd, sectionName: tcp}]
  rules: [{backendRefs: [{name: reviews, port: 9080, weight: $v}]}]`, crowdGateway, generate.ListenerType, "0.0.0.0_81", false}, // the oldest is told of each
	{"VirtualServices of a gateway's host", ruleCompany, istioNetworking, "VirtualService", `spec:
  hosts: [a.example.com]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /p$i-$v}}], route: [{destination: {host: reviews}}]}]`, crowdGateway, generate.RouteType, "http.80", true},
	{"VirtualServices with one match of a gateway's host", ruleCompany, istioNetworking, "VirtualService", `spec:
  hosts: [a.example.com]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /same}}], timeout: $vs, route: [{destination: {host: reviews}}]}]`, crowdGateway, generate.RouteType, "http.80", false}, // the oldest is told of each
	{"VirtualServices of a service", ruleCompany, istioNetworking, "VirtualService", `spec:
  hosts: [reviews]
  http: [{match: [{uri: {prefix: /p$i-$v}}], route: [{destination: {host: reviews}}]}]`, crowdSidecar, generate.RouteType, crowdRoutes, false}, // the oldest is told of each
	{"Ingresses", ruleCompany, "networking.k8s.io/v1", "Ingress", `spec:
  ingressClassName: weft
  rules: [{host: a.example.com, http: {paths: [{path: /p$i-$v, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}}]`,
		crowdGateway, generate.RouteType, "http.80", false},
	{"Gateways", ruleCompany, istioNetworking, "Gateway", `spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: [a$i-$v.example.com], port: {number: 80, name: http, protocol: HTTP}}]`, crowdGateway, generate.ListenerType, "0.0.0.0_80", false},
	{"ServiceEntries of a namespace", ruleCompany, istioNetworking, "ServiceEntry", `spec:
  hosts: [h$i.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.$j.$k}]`, crowdSidecar, generate.RouteType, "h1.example.com:80", true},
	{"ServiceEntries of a host", ruleCompany, istioNetworking, "ServiceEntry", `spec:
  hosts: [h.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.$j.$k}]`, crowdSidecar, generate.RouteType, "h.example.com:80", false},
	{"WorkloadEntries of a ServiceEntry", crowdEntry, istioNetworking, "WorkloadEntry", `spec: {address: 10.8.$j.$k, labels: {app: x}}`,
		crowdSidecar, generate.ClusterType, "outbound|80||h.example.com", false},
	{"EndpointSlices of a Service", ruleCompany, "discovery.k8s.io/v1", "EndpointSlice", `addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.8.$j.$k]}]`, crowdSidecar, generate.ClusterType, crowdCluster, false},
	{"DestinationRules of a host", ruleCompany, istioNetworking, "DestinationRule", `spec:
  host: reviews
  subsets: [{name: s$i, labels: {version: v$v}}]`, crowdSidecar, generate.ClusterType, crowdCluster, false},
	{"DestinationRules with a policy of a host", ruleCompany, istioNetworking, "DestinationRule", `spec:
  host: reviews
  trafficPolicy: {connectionPool: {tcp: {maxConnections: $v}}}`, crowdSidecar, generate.ClusterType, crowdCluster, false},
	{"AuthorizationPolicies of a namespace", ruleCompany, istioSecurity, "AuthorizationPolicy", `spec: {rules: [{to: [{operation: {paths: [/p$i-$v]}}]}]}`,
		crowdSidecar, generate.RouteType, crowdRoutes, true},
	{"PeerAuthentications of a namespace", ruleCompany, istioSecurity, "PeerAuthentication", `spec: {mtls: {mode: STRICT}}`,
		crowdSidecar, generate.RouteType, crowdRoutes, false}, // the oldest is told of each
	{"Sidecars of a namespace", ruleCompany, istioNetworking, "Sidecar", `spec: {workloadSelector: {labels: {app: a$i}}, egress: [{hosts: ['./*']}]}`,
		crowdSidecar, generate.RouteType, crowdRoutes, true},
	{"RateLimits of a namespace", ruleCompany, "networking.weft.dev/v1alpha1", "RateLimit", `spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{name: all, limit: {requests: $v, per: 1s}}]`, crowdSidecar, generate.RouteType, crowdRoutes, true},
}

// TestCrowds has thousands of objects compete for one thing. What one of them costs grows with their number at most: what grows with its
// square allocates four times as much for twice as many.
func TestCrowds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const many = 500
	for _, c := range crowds {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			once, twice := c.costs(t, many), c.costs(t, 2*many)
			for i, step := range crowdSteps {
				// What is constant, and slices that grow by doubling, are forgiven.
				a, b := once[i], twice[i]
				bound := 3*a + 64<<10
				if c.alone && (step == "try one more" || step == "one more" || step == "delete the oldest") {
					bound = a + 64<<10
				}
				if b > bound {
					t.Errorf("%s: %d KiB among %d, %d KiB among %d", step, a>>10, many, b>>10, 2*many)
				}
			}
		})
	}
}

// TestMatchesAreBounded: what is kept to compare an object's matches with those of others does not grow without end.
func TestMatchesAreBounded(t *testing.T) {
	var hosts, matches []string
	for i := range 16 {
		hosts = append(hosts, fmt.Sprintf("h%d.example.com", i))
	}
	for i := range 64 {
		matches = append(matches, fmt.Sprintf("{path: {value: /p%d}}", i))
	}
	rule := "{matches: [" + strings.Join(matches, ", ") + "], backendRefs: [{name: reviews, port: 9080}]}"
	text := crowdGate + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: default}\nspec:\n" +
		"  hostnames: [" + strings.Join(hosts, ", ") + "]\n  parentRefs: [{name: crowd, sectionName: http}]\n  rules: [" + rule + ", " + strings.ReplaceAll(rule, "/p", "/q") + "]\n"
	k := New(model.Settings{})
	k.Apply(crowdObjects(t, text, 0), nil)
	n := 0
	for _, r := range k.records {
		if r.unit != nil {
			n += len(r.unit.claims)
		}
	}
	if n != matching.MaxClaims {
		t.Errorf("%d matches are kept, want %d", n, matching.MaxClaims)
	}
}

// crowdSteps are what costs measures.
var crowdSteps = []string{"start", "generate", "try one more", "one more", "try the oldest", "change the oldest", "change the youngest", "delete the youngest", "delete the oldest"}

// costs gives how many bytes each step allocates among so many objects.
func (c *crowd) costs(t *testing.T, many int) (bytes []uint64) {
	objects := crowdObjects(t, c.fixed, 0)
	one := func(i, version int) []*source.Object { return crowdObjects(t, c.object(i, version), 1+i) }
	for i := range many {
		objects = append(objects, one(i, 0)...)
	}
	step := func(f func()) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		bytes = append(bytes, after.TotalAlloc-before.TotalAlloc)
	}
	k := New(model.Settings{})
	var mesh *model.Mesh
	var delta model.Delta
	step(func() { mesh, _ = k.Apply(objects, nil) })
	for _, f := range k.Findings() {
		if f.Severity == model.Error {
			t.Fatal(f)
		}
	}
	x := generate.NewIndex(mesh)
	step(func() {
		if _, ok := x.For(c.node).Resource(c.url, c.resource); !ok {
			t.Fatal("no resource ", c.resource)
		}
	})
	apply := func(set []*source.Object, gone ...source.Key) {
		mesh, delta = k.Apply(set, gone)
		x = x.Next(mesh, delta)
	}
	more, first, last := one(many, 0), one(0, 1), one(many, 1)
	step(func() { k.Try(more) })
	step(func() { apply(more) })
	step(func() { k.Try(first) })
	step(func() { apply(first) })
	step(func() { apply(last) })
	step(func() { apply(nil, last[0].Key()) })
	step(func() { apply(nil, first[0].Key()) })
	return bytes
}

func crowdObjects(t *testing.T, text string, born int) []*source.Object {
	list, found := source.Decode(source.LayerApplied, "crowd.yaml", []byte(text))
	if source.HasErrors(found) {
		t.Fatal(found)
	}
	for _, o := range list {
		o.Born = time.Unix(int64(born), 0)
	}
	return list
}
