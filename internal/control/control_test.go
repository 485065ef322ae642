package control

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weftmesh/weft/internal/ca/client"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience   = 3 * time.Minute
	reviewsAll = "outbound|9080||reviews.default.svc.cluster.local"
	reviewsV2  = "outbound|9080|v2|reviews.default.svc.cluster.local"
	routes     = "reviews.default.svc.cluster.local:9080"
)

const servicesYAML = `
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.78.0.2, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}
`

const virtualServiceYAML = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}
`

// instances gives the Pods and the EndpointSlice that the runtime reports for reviews, with versions by address.
func instances(t *testing.T, versions map[string]string) []source.Kube {
	t.Helper()
	var doc, list strings.Builder
	for address, version := range versions {
		name := "reviews-" + strings.ReplaceAll(address, ".", "-")
		fmt.Fprintf(&doc, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {app: reviews, version: %s}, annotations: {weft.dev/sidecar: "true"}}
spec: {serviceAccountName: reviews, containers: [{name: reviews, ports: [{containerPort: 9080}]}]}
status: {podIP: %s, conditions: [{type: Ready, status: "True"}]}
`, name, version, address)
		fmt.Fprintf(&list, "{addresses: [%s], conditions: {ready: true}, targetRef: {kind: Pod, name: %s, namespace: default}}, ", address, name)
	}
	fmt.Fprintf(&doc, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints: [%s]
`, list.String())
	var out []source.Kube
	for _, o := range decode(t, source.LayerFile, doc.String()) {
		out = append(out, o.Kube)
	}
	return out
}

func decode(t *testing.T, layer, text string) []*source.Object {
	t.Helper()
	objects, findings := source.Decode(layer, "test.yaml", []byte(text))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return objects
}

// control runs a control plane on a state directory until stop is called.
type control struct {
	*Control
	t    *testing.T
	stop func()
}

func start(t *testing.T, state string) *control {
	t.Helper()
	return startWith(t, state, Options{})
}

// startWith starts a control plane with options besides those that all tests have.
func startWith(t *testing.T, state string, o Options) *control {
	t.Helper()
	files := filepath.Join(state, "files")
	if err := os.MkdirAll(files, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "mesh.yaml"), []byte(servicesYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	o.StateDir, o.Paths, o.LocalRuntime = state, []string{files}, true
	o.Address, o.HTTPAddress, o.Socket, o.Log = cmp.Or(o.Address, "127.0.0.1:0"), "127.0.0.1:0", filepath.Join(state, "xds.sock"), slog.New(slog.DiscardHandler)
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return &control{c, t, stop}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // unix sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// report sets what the runtime sees and waits until it is served.
func (c *control) report(versions map[string]string) {
	c.t.Helper()
	next := c.next()
	if err := c.SetRuntimeObjects(instances(c.t, versions)); err != nil {
		c.t.Fatal(err)
	}
	c.await(next)
}

func (c *control) await(next <-chan struct{}) {
	c.t.Helper()
	select {
	case <-next:
	case <-time.After(patience):
		c.t.Fatal("nothing was published")
	}
}

// proxy is a workload's discovery stream, with a certificate that was got for a token as a proxy gets it.
type proxy struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corev3.Node
	close  func()
}

func (c *control) proxy() *proxy {
	t := c.t
	t.Helper()
	n := wire.Node{Role: wire.Sidecar, Name: "productpage-0", Namespace: "default", ServiceAccount: "productpage"}
	id := identity.ID{TrustDomain: "cluster.local", Namespace: n.Namespace, ServiceAccount: n.ServiceAccount}
	token, err := c.Tokens().Mint(identity.Peer{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Control: "unix://" + c.options.Socket, TrustDomain: "cluster.local", Roots: c.Authority().RootsPEM(), ID: id,
		Token: func() (string, error) { return token, nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	done := make(chan struct{})
	go func() { defer close(done); _ = cl.Run(ctx) }()
	select {
	case <-cl.Ready():
	case <-ctx.Done():
		t.Fatal("no certificate")
	}
	conn, err := grpc.NewClient(c.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(cl.ControlTLS("h2"))))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, stream: stream, node: &corev3.Node{Id: n.ID()}, close: func() { conn.Close(); cancel(); <-done }}
	t.Cleanup(p.close)
	return p
}

func (p *proxy) subscribe(typeURL, name string) {
	p.t.Helper()
	r := &discoveryv3.DeltaDiscoveryRequest{Node: p.node, TypeUrl: typeURL, ResourceNamesSubscribe: []string{name}}
	if err := p.stream.Send(r); err != nil {
		p.t.Fatal(err)
	}
}

// want takes the next response, which must be about these names; removed ones have a minus.
func (p *proxy) want(typeURL string, names ...string) *discoveryv3.DeltaDiscoveryResponse {
	p.t.Helper()
	r, err := p.stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	var got []string
	for _, x := range r.GetResources() {
		got = append(got, x.GetName())
	}
	for _, x := range r.GetRemovedResources() {
		got = append(got, "-"+x)
	}
	if r.GetTypeUrl() != typeURL || !slices.Equal(got, names) {
		p.t.Fatalf("got %s %v, want %s %v", r.GetTypeUrl(), got, typeURL, names)
	}
	return r
}

func TestFromYAMLToTheWire(t *testing.T) {
	c := start(t, shortDir(t))
	c.report(map[string]string{"10.77.0.1": "v1"})
	p := c.proxy()
	for _, s := range [][2]string{{generate.ListenerType, "reviews:9080"}, {generate.RouteType, routes}, {generate.ClusterType, reviewsAll}, {generate.EndpointsType, reviewsAll}} {
		p.subscribe(s[0], s[1])
		p.want(s[0], s[1])
	}
	results, findings, err := c.Apply(t.Context(), decode(t, source.LayerApplied, virtualServiceYAML))
	if err != nil || len(results) != 1 || source.HasErrors(findings) {
		t.Fatal(results, findings, err)
	}
	p.want(generate.RouteType, routes)
	p.subscribe(generate.ClusterType, reviewsV2)
	p.want(generate.ClusterType, reviewsV2)
	p.subscribe(generate.EndpointsType, reviewsV2)
	p.want(generate.EndpointsType, reviewsV2)

	c.report(map[string]string{"10.77.0.1": "v1", "10.77.0.2": "v2"})
	p.want(generate.EndpointsType, reviewsV2, reviewsAll)
	p.subscribe(generate.DNSType, "reviews")
	p.want(generate.DNSType, "reviews")

	key := source.Key{Group: source.GroupNetworking, Kind: "VirtualService", Namespace: "default", Name: "reviews"}
	if c.Get(key) == nil || len(c.Objects()) != 6 {
		t.Errorf("%d objects, the applied one: %v", len(c.Objects()), c.Get(key))
	}
	if _, err := c.Delete(t.Context(), []source.Key{key}); err != nil {
		t.Fatal(err)
	}
	p.want(generate.RouteType, routes)
}

func TestRefusedApplyChangesNothing(t *testing.T) {
	c := start(t, shortDir(t))
	c.report(nil)
	before := c.Mesh()
	bad := strings.Replace(virtualServiceYAML, "hosts: [reviews]", `hosts: ["*"]`, 1)
	results, findings, err := c.Apply(t.Context(), decode(t, source.LayerApplied, bad))
	if err != nil || len(results) != 0 || !source.HasErrors(findings) {
		t.Errorf("results %v, findings %v, error %v", results, findings, err)
	}
	if c.Mesh() != before {
		t.Error("the mesh changed")
	}
}

func TestBrokenFileKeepsWhatWas(t *testing.T) {
	state := shortDir(t)
	c := start(t, state)
	c.report(nil)
	next := c.next()
	if err := os.WriteFile(filepath.Join(state, "files", "mesh.yaml"), []byte("kind: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	c.await(next)
	if f := c.Findings(); len(f) == 0 || f[0].Severity != model.Error || !strings.Contains(f[0].File, "mesh.yaml") {
		t.Errorf("findings: %v", f)
	}
	if c.Mesh().Services.Get("reviews.default.svc.cluster.local") == nil {
		t.Error("the service is gone")
	}
}

func TestRestart(t *testing.T) {
	state := shortDir(t)
	c := startWith(t, state, Options{Address: loopbacktest.Address(t)}) // which nobody else takes meanwhile
	c.report(map[string]string{"10.77.0.1": "v2"})
	if _, _, err := c.Apply(t.Context(), decode(t, source.LayerApplied, virtualServiceYAML)); err != nil {
		t.Fatal(err)
	}
	p := c.proxy()
	p.subscribe(generate.RouteType, routes)
	version := p.want(generate.RouteType, routes).GetResources()[0].GetVersion()
	address := c.Addr().String()
	c.stop()
	if _, err := p.stream.Recv(); err == nil {
		t.Error("the stream outlives the control plane")
	}
	if l, err := net.Listen("tcp", address); err != nil {
		t.Errorf("the address is still taken: %v", err)
	} else {
		l.Close()
	}
	if c, err := New(c.options); err != nil {
		t.Errorf("New without Run: %v", err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}

	c = start(t, state)
	c.report(map[string]string{"10.77.0.1": "v2"})
	p = c.proxy()
	p.subscribe(generate.RouteType, routes)
	if got := p.want(generate.RouteType, routes).GetResources()[0].GetVersion(); got != version {
		t.Errorf("the routes have version %s after a restart, %s before", got, version)
	}
}

func TestPages(t *testing.T) {
	c := start(t, shortDir(t))
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + c.HTTPAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	if code, _ := get("/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("ready before the runtime has spoken: %d", code)
	}
	c.report(map[string]string{"10.77.0.1": "v1"})
	p := c.proxy()
	p.subscribe(generate.DNSType, "reviews")
	p.want(generate.DNSType, "reviews")
	for path, want := range map[string]string{
		"/ready": "ready", "/metrics": `pilot_xds_pushes{type="dns"} 1`, "/debug/clients": "productpage-0",
		"/debug/services": "10.77.0.1", "/debug/findings": "",
	} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, `weft_ca_signing_requests_total{code="OK",proof="`) ||
		!strings.Contains(body, "pilot_debounce_time_count ") {
		t.Errorf("no signing in the metrics:\n%s", body)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestOptionsThatCannotBe(t *testing.T) {
	for name, o := range map[string]Options{
		"no state directory": {},
		"address":            {StateDir: t.TempDir(), Address: "nowhere.invalid:1"},
		"trust domain":       {StateDir: t.TempDir(), Settings: model.Settings{TrustDomain: "Not/A/Domain"}},
	} {
		if c, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
			c.Close()
		}
	}
}

func TestGather(t *testing.T) {
	for name, c := range map[string]struct {
		interval time.Duration // between changes
		changes  int
		least    time.Duration // how long they are gathered
		most     time.Duration
	}{
		"a single change leaves at once": {time.Millisecond, 0, 0, 10 * time.Millisecond},
		"a burst is merged":              {time.Millisecond, 20, 20 * time.Millisecond, 30 * time.Millisecond},
		"a storm does not hold up":       {time.Millisecond, 1000, 0, stormTime},
	} {
		synctest.Test(t, func(t *testing.T) {
			changes, done := make(chan struct{}, 1), make(chan struct{})
			go func() {
				defer close(done)
				for range c.changes {
					time.Sleep(c.interval)
					select {
					case changes <- struct{}{}:
					default:
					}
				}
			}()
			begin := time.Now()
			if !gather(changes) {
				t.Errorf("%s: ended", name)
			}
			if d := time.Since(begin); d < c.least || d > c.most {
				t.Errorf("%s: gathered for %v", name, d)
			}
			<-done
		})
	}
}

// TestApplyWaitsForProxies: Apply and Delete return when the proxies that the change concerns have answered.
func TestApplyWaitsForProxies(t *testing.T) {
	c := startWith(t, shortDir(t), Options{StepTime: time.Hour})
	c.report(map[string]string{"10.77.0.1": "v1"})
	p, other := c.proxy(), c.proxy()
	other.subscribe(generate.DNSType, "reviews")
	other.want(generate.DNSType, "reviews") // it never answers, but the change is nothing to it
	p.subscribe(generate.RouteType, routes)
	p.answer(p.want(generate.RouteType, routes))
	key := source.Key{Group: source.GroupNetworking, Kind: "VirtualService", Namespace: "default", Name: "reviews"}
	for i, change := range []func() error{
		func() error {
			_, _, err := c.Apply(t.Context(), decode(t, source.LayerApplied, virtualServiceYAML))
			return err
		},
		func() error { _, err := c.Delete(t.Context(), []source.Key{key}); return err },
	} {
		done := make(chan error, 1)
		go func() { done <- change() }()
		r := p.want(generate.RouteType, routes)
		select {
		case err := <-done:
			t.Errorf("change %d has not waited: %v", i, err)
		default:
		}
		p.answer(r)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// answer acknowledges a response.
func (p *proxy) answer(r *discoveryv3.DeltaDiscoveryResponse) {
	p.t.Helper()
	if err := p.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}); err != nil {
		p.t.Fatal(err)
	}
}
