package peers

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/wire"
)

const reviews = "reviews.default.svc.cluster.local:9080"

// bookinfo is a mesh with reviews in versions 1 to n, each a server of gRPC's xDS library, and a client that is one too.
func bookinfo(t *testing.T, n int) (m *mesh, client *pod, versions []*pod, programs []*program) {
	t.Helper()
	m = newMesh(t, time.Hour)
	m.serve("reviews", 9080, "grpc")
	for i := range n {
		p := m.newPod("reviews", fmt.Sprintf("v%d", i+1))
		p.proxyless = true
		m.add(p)
		versions, programs = append(versions, p), append(programs, p.serves())
	}
	client = m.newPod("productpage", "v1")
	m.add(client)
	return m, client, versions, programs
}

const subsets = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`

// TestGRPCRoutes: header, absent header, path, weights, faults and time limits, changed while the client runs.
func TestGRPCRoutes(t *testing.T) {
	m, client, versions, programs := bookinfo(t, 2)
	m.apply(subsets)
	m.apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
      method: {exact: POST}
      uri: {prefix: /grpc.testing.TestService/}
    route: [{destination: {host: reviews, subset: v2}}]
  - match:
    - headers: {mode: {exact: slow}}
    timeout: 0.05s
    route: [{destination: {host: reviews, subset: v2}}]
  - match:
    - headers: {mode: {exact: broken}}
    fault: {abort: {grpcStatus: DATA_LOSS, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match:
    - method: {exact: GET}
    - queryParams: {q: {exact: a}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match:
    - withoutHeaders: {mode: {exact: odd}}
    route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v2}}]
`)
	c := client.calls(reviews)
	for range 5 {
		for _, want := range []struct {
			md  []string
			pod *pod
		}{
			{nil, versions[0]}, {[]string{"end-user", "jason"}, versions[1]}, {[]string{"mode", "odd"}, versions[1]}, {[]string{"mode", "even"}, versions[0]},
		} {
			if pod, _, err := c.call(want.md...); err != nil || pod != want.pod.name {
				t.Errorf("%v: answered by %q, want %s (%v)", want.md, pod, want.pod.name, err)
			}
		}
	}
	if _, _, err := c.call("mode", "broken"); status.Code(err) != codes.DataLoss {
		t.Errorf("the fault gives %v", err)
	}
	programs[1].hold = make(chan struct{})
	if _, _, err := c.call("mode", "slow"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the time limit gives %v", err)
	}
	close(programs[1].hold)

	m.apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
`)
	c.until("the new routes", from(versions[1]))
	count := map[string]int{}
	for range 1000 {
		pod, _, err := c.call()
		if err != nil {
			t.Fatal(err)
		}
		count[pod]++
	}
	if n := count[versions[1].name]; n < 140 || n > 260 { // five standard deviations
		t.Errorf("%d of 1000 calls go to the version with weight 20", n)
	}
	if r := m.refusals(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
}

const strict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// TestGRPCIdentities: under STRICT, every pair of a client and a server proves who it is, with and without proxies.
func TestGRPCIdentities(t *testing.T) {
	m := newMesh(t, time.Hour)
	m.apply(strict)
	m.serve("reviews", 9080, "grpc")
	m.serve("ratings", 9080, "grpc")
	proxyless, proxied, client := m.newPod("reviews", "v1"), m.newPod("ratings", "v1"), m.newPod("productpage", "v1")
	proxyless.proxyless, proxied.sidecar, client.sidecar = true, true, true
	m.add(proxyless, proxied, client)
	proxyless.serves()
	program, _ := proxied.proxied("")
	proxied.listens(program)
	_, toReviews := client.proxied("reviews:9080")

	id := "spiffe://cluster.local/ns/default/sa/productpage"
	for name, c := range map[string]*caller{
		"gRPC to gRPC": client.calls("reviews:9080"), "gRPC to a sidecar": client.calls("ratings.default:9080"), "a sidecar to gRPC": m.dial(toReviews),
	} {
		_, user, err := c.call()
		if err != nil || !strings.Contains(user, id) {
			t.Errorf("%s: the server sees %q (%v)", name, user, err)
		}
	}
	if _, _, err := m.dial(proxyless.addr()).call(); status.Code(err) != codes.Unavailable {
		t.Errorf("a client without certificate: %v", err)
	}

	// A server with another's certificate is not believed.
	impostor := m.newPod("reviews", "v9")
	impostor.accountOf, impostor.proxyless = "details", true
	impostor.serves()
	m.mu.Lock()
	m.pods[0] = impostor // in the place of the right one
	m.mu.Unlock()
	m.report()
	c := client.calls("reviews:9080")
	c.until("refusal", func(_, _ string, err error) bool {
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "SAN")
	})

	// Where plain text is taken too, that is what gRPC speaks, to sidecars and to itself.
	m.apply(strings.Replace(strict, "STRICT", "PERMISSIVE", 1))
	client.calls("ratings.default:9080").until("plain text", func(_, user string, err error) bool { return err == nil && user == "" })
	if r := m.refusals(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
}

// TestGRPCAuthorization: a server without proxy enforces AuthorizationPolicies, and takes changes while it runs.
func TestGRPCAuthorization(t *testing.T) {
	m, client, _, _ := bookinfo(t, 1)
	m.apply(strict)
	stranger := m.newPod("stranger", "v1")
	m.add(stranger)
	c, s := client.calls(reviews), stranger.calls(reviews)
	c.until("mutual TLS", answers)
	s.until("mutual TLS", answers)
	m.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/productpage]}}]
    to: [{operation: {methods: [POST], paths: [/grpc.testing.TestService/*]}}]
    when: [{key: 'request.headers[x-allowed]', values: ["yes"]}]
`)
	s.until("refusal", fails(codes.PermissionDenied), "x-allowed", "yes")
	if _, _, err := c.call("x-allowed", "yes"); err != nil {
		t.Error(err)
	}
	if _, _, err := c.call("x-allowed", "no"); status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	m.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: default}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/grpc.testing.TestService/Unary*]}}]
    when: [{key: 'request.headers[grpc-timeout]', notValues: ["1S"]}]
`)
	c.until("refusal", fails(codes.PermissionDenied), "x-allowed", "yes")
	if r := m.refusals(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
}

// TestGRPCBalances: outlier detection, failover between localities, ring hash, least request and a limit of calls.
func TestGRPCBalances(t *testing.T) {
	m, client, pods, programs := bookinfo(t, 3)
	pods[0].locality, pods[1].locality, pods[2].locality, client.locality = "r1/z1", "r1/z1", "r2/z1", "r1/z1"
	m.report()
	policy := func(policy string) {
		m.apply("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\nspec:\n  host: reviews\n  trafficPolicy: " + policy + "\n")
	}
	seen := func(c *caller, n int, md ...string) map[string]int {
		t.Helper()
		count := map[string]int{}
		for range n {
			pod, _, err := c.call(md...)
			if err != nil {
				count[status.Code(err).String()]++
			}
			count[pod]++
		}
		return count
	}
	c := client.calls(reviews)
	m.eventually("balance", func() error { // least request is what there is without a word
		if n := seen(c, 60); len(n) != 3 || n[pods[0].name] < 5 || n[pods[2].name] < 5 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	policy(`{outlierDetection: {consecutive5xxErrors: 3, interval: 0.2s, baseEjectionTime: 60s, maxEjectionPercent: 100}}`)
	m.eventually("the own locality", func() error {
		if n := seen(c, 40); n[pods[2].name] > 0 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	programs[0].failing.Store(true)
	m.eventually("ejection", func() error {
		if n := seen(c, 40); n[pods[1].name] != 40 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	programs[1].failing.Store(true)
	m.eventually("failover to the other locality", func() error {
		if n := seen(c, 40); n[pods[2].name] != 40 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	programs[0].failing.Store(false)
	programs[1].failing.Store(false)

	policy(`{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}`)
	m.eventually("ring hash", func() error {
		chosen := map[string]bool{}
		for user := range 60 { // by chance one of three gets none once in 10¹⁰
			n := seen(c, 4, "x-user", fmt.Sprint("user-", user))
			if len(n) != 1 {
				return fmt.Errorf("user %d goes to %v", user, n)
			}
			for pod := range n {
				chosen[pod] = true
			}
		}
		if len(chosen) != 3 {
			return fmt.Errorf("only %v are chosen", chosen)
		}
		return nil
	})
	policy(`{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1009}}}}`)
	m.eventually("a channel's own server", func() error {
		if n := seen(c, 60); len(n) != 1 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	policy(`{connectionPool: {http: {http2MaxRequests: 1}}, loadBalancer: {simple: RANDOM}}`)
	c.until("round robin", from(pods[0]))
	c.until("round robin", from(pods[1]))
	for _, p := range programs {
		p.hold = make(chan struct{})
	}
	m.eventually("a limit", func() error {
		before := programs[0].calls.Load() + programs[1].calls.Load() + programs[2].calls.Load()
		first := make(chan error, 1)
		go func() { _, _, err := c.call(); first <- err }() // received below
		m.eventually("a call under way", func() error {
			if programs[0].calls.Load()+programs[1].calls.Load()+programs[2].calls.Load() == before {
				return fmt.Errorf("none")
			}
			return nil
		})
		done := make(chan error, 1)
		go func() { _, _, err := c.call(); done <- err }() // received below, or after the release
		var err error
		select {
		case err = <-done:
		case <-time.After(time.Second):
		}
		for _, p := range programs {
			close(p.hold)
			p.hold = make(chan struct{})
		}
		<-first
		if status.Code(err) != codes.Unavailable {
			return fmt.Errorf("the second call: %v", err)
		}
		return nil
	})
	if r := m.refusals(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
}

// TestGRPCOutlives: clients and servers work on while the control plane is away, take it up when it is back, and renew certificates,
// to each other and to the control plane, before they end.
func TestGRPCOutlives(t *testing.T) {
	const life = 10 * time.Second // of certificates: a slow machine needs a part of it to renew them
	m := newMesh(t, life)
	m.apply(strict + "---" + subsets)
	m.serve("reviews", 9080, "grpc")
	v1, v2, client := m.newPod("reviews", "v1"), m.newPod("reviews", "v2"), m.newPod("productpage", "v1")
	v1.proxyless, v2.proxyless = true, true
	m.add(v1, v2, client)
	v1.serves()
	v2.serves()
	c := client.calls(reviews)
	c.until("an answer", answers)
	m.stop()
	for range 20 {
		if _, _, err := c.call(); err != nil {
			t.Fatal(err)
		}
	}
	m.start()
	route := func(p *pod, what string) {
		t.Helper()
		m.apply(strings.ReplaceAll(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {asks-for: {exact: VERSION}}}]
    fault: {abort: {grpcStatus: DATA_LOSS, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: VERSION}}]
  - route: [{destination: {host: reviews, subset: VERSION}}]
`, "VERSION", p.version))
		// The wanted pod may answer by the old route too, and ten times in a row where the other's connection is being renewed: only the
		// fault says that the route is the new one, and an answer after it that the balancer is.
		c.until(what, fails(codes.DataLoss), "asks-for", p.version)
		c.settles(what, from(p))
	}
	route(v2, "the new control plane's routes")
	// Two lives of certificates later, all still know each other.
	began := time.Now()
	for time.Since(began) < 2*life+time.Second {
		if _, _, err := c.call(); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	route(v1, "a change after all certificates were renewed")
	if _, _, err := client.calls(reviews).call(); err != nil {
		t.Error(err)
	}
}

// TestGRPCRefusalIsFound: what a client refuses is a finding that names it. The client is one whose own bootstrap lacks the mesh's roots,
// so it refuses each cluster that has to be called with mutual TLS.
func TestGRPCRefusalIsFound(t *testing.T) {
	m, client, _, _ := bookinfo(t, 1)
	m.apply(strict)
	other := m.newPod("stranger", "v1")
	m.add(other)
	without := bytes.ReplaceAll(client.grpcBootstrap(), fmt.Appendf(nil, "%q", wire.MeshRoots), []byte(`"ELSEWHERE"`))
	go func() { _, _, _ = client.callsBy(without, reviews).call() }() // it fails
	m.eventually("a finding", func() error {
		for _, f := range m.control.Findings() {
			if s := f.String(); strings.Contains(s, client.name) && strings.Contains(s, "reviews") && strings.Contains(s, wire.MeshRoots) {
				return nil
			}
		}
		return fmt.Errorf("%v", m.control.Findings())
	})
	other.calls(reviews).until("an answer for another client", answers)
}
