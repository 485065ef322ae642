package serve

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

func TestUnknownThenKnown(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	c := p.connect(productpage())
	c.subscribe(generate.ListenerType, reviewsName)
	c.want(generate.ListenerType, "-"+reviewsName)
	c.subscribe(generate.DNSType, "reviews")
	c.want(generate.DNSType, "-reviews")
	p.publish(mesh(nil, "10.77.0.1"))
	c.want(generate.ListenerType, reviewsName)
	c.want(generate.DNSType, "reviews")
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	c.want(generate.DNSType, "-reviews")
	c.want(generate.ListenerType, "-"+reviewsName)
}

func TestStreamsWaitForTheFirstMesh(t *testing.T) {
	p := newPlane(t, Options{})
	c := p.connect(productpage())
	c.subscribe(generate.ListenerType, reviewsName)
	p.publish(mesh(nil))
	c.want(generate.ListenerType, reviewsName)
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.follow()

	p.publish(mesh(nil, "10.77.0.1"))
	c.quiet()
	p.publish(mesh(nil, "10.77.0.1", "10.77.0.2"))
	c.want(generate.EndpointsType, reviewsAll)
	c.quiet()
	p.publish(mesh(routed(reviewsHost), "10.77.0.1", "10.77.0.2"))
	c.want(generate.RouteType, reviewsHost+":9080")
	c.quiet()
	p.publish(mesh(func(m *model.Mesh) {
		m.Destinations.Put(reviewsHost, []*model.Destination{{Host: reviewsHost, Ref: model.Ref{Namespace: "default"},
			Policy: model.TrafficPolicy{Balancing: &model.Balancing{Simple: "RANDOM"}}}})
		routed(reviewsHost)(m)
	}, "10.77.0.1", "10.77.0.2"))
	c.want(generate.ClusterType, reviewsAll)
	c.quiet()
}

func TestOrder(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	c := p.connect(productpage())
	names := map[string]string{generate.RouteType: reviewsHost + ":9080", generate.ListenerType: reviewsName,
		generate.EndpointsType: reviewsAll, generate.ClusterType: reviewsAll}
	for typeURL, n := range names {
		c.subscribe(typeURL, n)
		c.want(typeURL, "-"+n)
	}
	p.publish(mesh(nil, "10.77.0.1"))
	for _, typeURL := range []string{generate.ClusterType, generate.EndpointsType, generate.ListenerType, generate.RouteType} {
		c.want(typeURL, names[typeURL])
	}
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	for _, typeURL := range []string{generate.RouteType, generate.ListenerType, generate.EndpointsType, generate.ClusterType} {
		c.want(typeURL, "-"+names[typeURL])
	}
}

func TestNackIsReportedUntilAccepted(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil))
	c := p.connect(productpage())
	c.follow()
	p.publish(mesh(routed("elsewhere.example")))
	r := c.recv()
	c.nack(generate.RouteType, r.GetNonce(), "field x is bad")
	c.quiet()
	f := p.server.Findings()
	if len(f) != 1 || f[0].Object.Name != "productpage-0" || !strings.Contains(f[0].Message, reviewsHost+":9080") || !strings.Contains(f[0].Message, "field x is bad") {
		t.Fatalf("findings: %v", f)
	}
	if got := p.metric("pilot_total_xds_rejects", "rds"); got != 1 {
		t.Errorf("pilot_total_xds_rejects is %v", got)
	}
	if s := p.server.Clients(); len(s) != 1 || s[0].Synced() {
		t.Errorf("a client that refused something counts as synced: %+v", s)
	}
	p.publish(mesh(routed(reviewsHost)))
	c.want(generate.RouteType, reviewsHost+":9080")
	c.quiet()
	if f := p.server.Findings(); len(f) != 0 {
		t.Errorf("findings after the client accepted: %v", f)
	}
}

func TestReconnectResendsNothing(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, reviewsAll)
	r := c.recv()
	versions := map[string]string{r.GetResources()[0].GetName(): r.GetResources()[0].GetVersion(), "stranger": "1"}
	c.cancel()

	c = p.connect(productpage())
	again := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.EndpointsType, ResourceNamesSubscribe: []string{reviewsAll}, InitialResourceVersions: versions}
	c.send(again)
	c.quiet()
	p.publish(mesh(nil, "10.77.0.2"))
	c.want(generate.EndpointsType, reviewsAll)
	c.cancel()

	c = p.connect(productpage())
	again.Node = nil
	c.send(again) // the version is an old one now
	c.want(generate.EndpointsType, reviewsAll)
	c.subscribe(generate.EndpointsType, reviewsAll) // asking again sends again
	c.want(generate.EndpointsType, reviewsAll)
}

func TestRefusedClients(t *testing.T) {
	p := newPlane(t, Options{MaxSubscriptions: 3})
	p.publish(mesh(nil))
	n := productpage()
	ask := func(n wire.Node, s *identity.Source, names ...string) error {
		c := p.connectAs(n, s)
		c.subscribe(generate.ListenerType, names...)
		_, err := c.stream.Recv()
		return err
	}
	own := p.certify("default", "productpage", time.Hour)
	anonymous := func() error {
		c := p.connectAs(n, own)
		c.node = nil
		c.subscribe(generate.ListenerType, "a:1")
		_, err := c.stream.Recv()
		return err
	}
	elsewhere, nobody := n, n
	elsewhere.Namespace = "other"
	nobody.ServiceAccount = "admin"
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"no certificate":         {ask(n, p.certify("", "", 0), "a:1"), codes.Unauthenticated},
		"another namespace":      {ask(elsewhere, own, "a:1"), codes.PermissionDenied},
		"another account":        {ask(nobody, own, "a:1"), codes.PermissionDenied},
		"no node":                {anonymous(), codes.InvalidArgument},
		"too many subscriptions": {ask(n, own, "a:1", "b:1", "c:1", "d:1"), codes.ResourceExhausted},
		"a very long name":       {ask(n, own, strings.Repeat("a", 1000)), codes.InvalidArgument},
		"fine":                   {ask(n, own, "a:1", "b:1", "c:1"), codes.OK},
	} {
		if got := status.Code(c.err); got != c.want {
			t.Errorf("%s: got %v (%v), want %v", name, got, c.err, c.want)
		}
	}
}

// TestOwed: from the moment of its publication until the client has answered it, what concerns the client is owed to it.
func TestOwed(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil))
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, reviewsAll)
	c.want(generate.EndpointsType, reviewsAll)
	owed := func() bool { return slices.ContainsFunc(p.server.Clients(), func(c Client) bool { return c.Owed }) }
	for n := range 20 {
		for deadline := time.Now().Add(patience); owed(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it has answered everything, and seems to be owed something")
			}
		}
		next := mesh(nil, fmt.Sprintf("10.77.1.%d", n+1))
		p.publish(next)
		if !owed() || p.server.Mesh() != next {
			t.Fatalf("change %d was published and not answered, and nothing is owed", n)
		}
		c.want(generate.EndpointsType, reviewsAll)
	}
}

func TestExpiredCertificateEndsTheStream(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil))
	for life := 5 * time.Second; ; life *= 2 { // longer where the machine is too slow for a stream within it
		c := p.connectAs(productpage(), p.certify("default", "productpage", life))
		c.subscribe(generate.ListenerType, reviewsName)
		if _, err := c.stream.Recv(); err != nil {
			if life > patience {
				t.Fatal(err)
			}
			continue
		}
		if _, err := c.stream.Recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v", err)
		}
		return
	}
}

func TestSlowClientDelaysNobody(t *testing.T) {
	p := newPlane(t, Options{})
	large := func(n int) *model.Mesh {
		return mesh(func(m *model.Mesh) {
			r := &model.RouteSet{Ref: model.Ref{Name: fmt.Sprint(n)}, Namespace: "default", Mesh: true, Hosts: []string{reviewsHost}}
			for range 2000 {
				r.HTTP = append(r.HTTP, model.HTTPRoute{Name: strings.Repeat("x", 200),
					Matches:      []model.HTTPMatch{{Path: model.StringMatch{Exact: "/" + fmt.Sprint(n)}}},
					Destinations: []model.WeightedDestination{{Host: reviewsHost}}})
			}
			m.RouteSets = []*model.RouteSet{r}
		}, "10.77.0."+fmt.Sprint(n))
	}
	p.publish(large(1))
	slow, quick := p.connect(productpage()), p.connect(productpage())
	slow.subscribe(generate.RouteType, reviewsHost+":9080") // it never reads: flow control stops the server's sends
	quick.subscribe(generate.EndpointsType, reviewsAll)
	quick.want(generate.EndpointsType, reviewsAll)
	for n := 2; n < 20; n++ {
		p.publish(large(n))
		quick.want(generate.EndpointsType, reviewsAll)
	}
	// What the slow one finds at last is the newest, and it was spared most in between.
	var last string
	responses := 0
	for responses < 18 {
		r := slow.recv()
		responses++
		if last = string(r.GetResources()[0].GetResource().GetValue()); strings.Contains(last, "/19") {
			break
		}
	}
	if !strings.Contains(last, "/19") {
		t.Errorf("the slow client got %d responses and not the newest", responses)
	}
}

func TestGatewayByWildcard(t *testing.T) {
	p := newPlane(t, Options{})
	labels := map[string]string{"istio": "ingressgateway"}
	gateways := func(ports ...uint16) *model.Mesh {
		return mesh(func(m *model.Mesh) {
			g := &model.Gateway{Ref: model.Ref{Kind: "Gateway", Namespace: "default", Name: "g"}, Selector: labels}
			for _, port := range ports {
				g.Servers = append(g.Servers, model.Server{Port: port, Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}})
			}
			m.Gateways = []*model.Gateway{g}
			m.Workloads.Put("istio-system/ingress-0", &model.Workload{Namespace: "istio-system", Name: "ingress-0", ServiceAccount: "ingress", Labels: labels})
		})
	}
	p.publish(gateways(80, 81))
	c := p.connect(wire.Node{Role: wire.Gateway, Name: "ingress-0", Namespace: "istio-system", ServiceAccount: "ingress"})
	c.subscribe(generate.ListenerType, "*")
	c.want(generate.ListenerType, "0.0.0.0_80", "0.0.0.0_81")
	p.publish(gateways(81, 82))
	c.want(generate.ListenerType, "0.0.0.0_82", "-0.0.0.0_80")

	impostor := p.connect(wire.Node{Role: wire.Gateway, Name: "x", Namespace: "default", ServiceAccount: "productpage", Labels: labels})
	impostor.subscribe(generate.ListenerType, "*")
	impostor.want(generate.ListenerType) // an empty answer: it knows now that there is nothing for it
	impostor.quiet()
}

// TestUnknownGatewayIsTold: one that nobody knows, or that runs under another account than it proves, gets nothing, which findings say until
// the mesh knows it.
func TestUnknownGatewayIsTold(t *testing.T) {
	p := newPlane(t, Options{})
	labels := map[string]string{"istio": "edge"}
	known := func(account string) *model.Mesh {
		return mesh(func(m *model.Mesh) {
			m.Gateways = []*model.Gateway{{Ref: model.Ref{Kind: "Gateway", Namespace: "default", Name: "g"}, Selector: labels,
				Servers: []model.Server{{Port: 80, Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}}}}}
			if account != "" {
				m.Workloads.Put("default/edge-1", &model.Workload{Namespace: "default", Name: "edge-1", ServiceAccount: account, Labels: labels})
			}
		})
	}
	p.publish(known(""))
	c := p.connect(wire.Node{Role: wire.Gateway, Name: "edge-1", Namespace: "default", ServiceAccount: "edge", Labels: labels})
	c.subscribe(generate.ListenerType, "*")
	c.want(generate.ListenerType)
	c.quiet()
	told := func(want string) {
		t.Helper()
		f := p.server.Findings()
		if len(f) != 1 || f[0].Code != "GatewayUnknown" || f[0].Object.Name != "edge-1" || !strings.Contains(f[0].Message, want) {
			t.Errorf("findings %v, want one with %q", f, want)
		}
	}
	told("no Pod or WorkloadEntry default/edge-1")
	p.publish(known("edge"))
	c.want(generate.ListenerType, "0.0.0.0_80")
	if f := p.server.Findings(); len(f) != 0 {
		t.Errorf("findings of a gateway that is known: %v", f)
	}
}

func TestClientStatus(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.follow()
	c.subscribe(generate.ListenerType, "unknown:1")
	c.want(generate.ListenerType, "-unknown:1")
	c.quiet()
	s := p.server.Clients()
	if len(s) != 1 {
		t.Fatalf("%d clients", len(s))
	}
	if s[0].Identity != "spiffe://cluster.local/ns/default/sa/productpage" || s[0].NodeID != productpage().ID() || !s[0].Delta || s[0].Connected.IsZero() {
		t.Errorf("%+v", s[0])
	}
	i := slices.IndexFunc(s[0].Types, func(t TypeStatus) bool { return t.Type == "lds" })
	lds := s[0].Types[i]
	if !slices.Equal(lds.Subscriptions, []string{reviewsName, "unknown:1"}) || !slices.Equal(lds.Missing, []string{"unknown:1"}) ||
		lds.Acks != 2 || lds.Pending != 0 || lds.LastAck.IsZero() {
		t.Errorf("%+v", lds)
	}
}

func TestMetrics(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.follow()
	d := model.Delta{Endpoints: map[string]bool{reviewsHost: true}}
	p.server.Publish(mesh(nil, "10.77.0.2"), d)
	c.want(generate.EndpointsType, reviewsAll)
	c.quiet()
	for _, m := range []struct {
		name, label string
		want        float64
	}{
		{"pilot_xds", "", 1}, {"pilot_services", "", 1}, {"pilot_virt_services", "", 0},
		{"pilot_xds_pushes", "cds", 1}, {"pilot_xds_pushes", "eds", 2}, {"pilot_xds_push_time", "eds", 2}, {"pilot_xds_config_size_bytes", "eds", 2},
		{"pilot_push_triggers", "global", 1}, {"pilot_push_triggers", "endpoint", 1}, {"pilot_inbound_updates", "eds", 1},
		{"pilot_proxy_convergence_time", "", 1}, {"pilot_pushcontext_init_seconds", "", 2},
		{"weft_xds_resources_remade_total", "", 1}, {"weft_xds_subscriptions", "", 5}, {"weft_xds_resources", "", 5},
	} {
		if got := p.metric(m.name, m.label); got != m.want {
			t.Errorf("%s %s is %v, want %v", m.name, m.label, got, m.want)
		}
	}
}

func TestStateOfTheWorld(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connectWorld()
	c.ask(generate.ListenerType, reviewsHost+":9080")
	r := c.recv(generate.ListenerType, 1)
	c.ack(r)
	c.ask(generate.EndpointsType, reviewsAll)
	c.recv(generate.EndpointsType, 1)
	c.names[generate.ListenerType] = append(c.names[generate.ListenerType], "unknown:1")
	c.ack(r)
	c.recv(generate.ListenerType, 1)
	p.publish(mesh(nil, "10.77.0.2"))
	c.recv(generate.EndpointsType, 1)
	c.ask(generate.ClusterType)
	c.recv(generate.ClusterType, 4) // an empty list asks for all: reviews and the three without a service
	if s := p.server.Clients(); len(s) != 1 || s[0].Delta {
		t.Errorf("%+v", s)
	}
}
