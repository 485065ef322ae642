package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/wire"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// authentication is a namespace's PeerAuthentication.
func authentication(mode string) string {
	return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\nspec: {mtls: {mode: " + mode + "}}\n"
}

// takes tells what a workload's inbound listener takes on undeclared ports: "tls", "plain" or both.
func takes(t *testing.T, r *discoveryv3.DeltaDiscoveryResponse) (all []string) {
	t.Helper()
	l := &listenerv3.Listener{}
	if err := r.GetResources()[0].GetResource().UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	for _, c := range l.GetFilterChains() {
		switch {
		case c.GetFilterChainMatch().GetDestinationPort() != nil:
		case c.GetTransportSocket() != nil:
			all = append(all, "tls")
		case c.GetFilterChainMatch().GetTransportProtocol() == "raw_buffer":
			all = append(all, "plain")
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// secure reports whether clients are told to speak mutual TLS to the endpoints.
func secure(t *testing.T, r *discoveryv3.DeltaDiscoveryResponse) bool {
	t.Helper()
	a := &endpointv3.ClusterLoadAssignment{}
	if err := r.GetResources()[0].GetResource().UnmarshalTo(a); err != nil {
		t.Fatal(err)
	}
	return a.GetEndpoints()[0].GetLbEndpoints()[0].GetMetadata().GetFilterMetadata()["envoy.transport_socket_match"] != nil
}

func (p *proxy) accept(r *discoveryv3.DeltaDiscoveryResponse) {
	p.t.Helper()
	if err := p.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}); err != nil {
		p.t.Fatal(err)
	}
}

// settings is the mesh's ConfigMap with something that is for neither listeners nor endpoints.
func settings(connectTimeout string) string {
	return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"connectTimeout: " + connectTimeout + "\"}\n"
}

// applies gives what comes of an Apply that takes its time.
func (c *control) applies(objects string) <-chan error {
	done := make(chan error, 1)
	set := decode(c.t, source.LayerApplied, objects)
	go func() { // ends with the apply
		_, _, err := c.Apply(context.Background(), set)
		done <- err
	}()
	return done
}

// TestModesChangeInSteps: a workload takes what comes before its clients send it, and takes what goes until they have answered; each
// step waits for the answers to the one before, and the one who applied waits for all of them.
func TestModesChangeInSteps(t *testing.T) {
	c := startWith(t, shortDir(t), Options{StepTime: patience})
	c.report(map[string]string{"10.77.0.1": "v1"})
	if err := <-c.applies(authentication("DISABLE")); err != nil {
		t.Fatal(err)
	}
	server, client := c.proxy(), c.proxy()
	server.subscribe(generate.ListenerType, wire.InboundListener)
	client.subscribe(generate.EndpointsType, reviewsAll)
	heard := server.want(generate.ListenerType, wire.InboundListener)
	if got := takes(t, heard); !slices.Equal(got, []string{"plain"}) {
		t.Fatalf("DISABLE takes %v", got)
	}
	server.accept(heard)
	told := client.want(generate.EndpointsType, reviewsAll)
	client.accept(told)

	for _, change := range [][2]string{{"STRICT"}, {"DISABLE"}, {"STRICT", settings("3s")}, {"DISABLE", settings("4s")}} {
		mode := change[0]
		done := c.applies(authentication(mode) + change[1])
		heard := server.want(generate.ListenerType, wire.InboundListener)
		if got := takes(t, heard); !slices.Equal(got, []string{"plain", "tls"}) {
			t.Fatalf("on the way to %s it takes %v", mode, got)
		}
		before := c.Mesh()
		server.accept(heard)
		told := client.want(generate.EndpointsType, reviewsAll)
		if secure(t, told) != (mode == "STRICT") {
			t.Fatalf("clients are told the wrong thing for %s", mode)
		}
		select {
		case err := <-done:
			t.Fatalf("in force before the clients had it: %v", err)
		default:
		}
		if !slices.Equal(c.Mesh().PeerAuthentications, before.PeerAuthentications) {
			t.Error("the mesh is said to be what it is not yet")
		}
		client.accept(told)
		heard = server.want(generate.ListenerType, wire.InboundListener)
		if got, want := takes(t, heard), map[string][]string{"STRICT": {"tls"}, "DISABLE": {"plain"}}[mode]; !slices.Equal(got, want) {
			t.Fatalf("%s takes %v", mode, got)
		}
		server.accept(heard)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestOthersDoNotWaitForModes: while a change of modes waits for proxies, other changes are served, with the modes of the step; the next
// change of modes begins when that one is in force.
func TestOthersDoNotWaitForModes(t *testing.T) {
	c := startWith(t, shortDir(t), Options{StepTime: patience})
	one := map[string]string{"10.77.0.1": "v1"}
	two := map[string]string{"10.77.0.1": "v1", "10.77.0.2": "v2"}
	c.report(one)
	if err := <-c.applies(authentication("DISABLE")); err != nil {
		t.Fatal(err)
	}
	server, client := c.proxy(), c.proxy()
	server.subscribe(generate.ListenerType, wire.InboundListener)
	client.subscribe(generate.EndpointsType, reviewsAll)
	server.accept(server.want(generate.ListenerType, wire.InboundListener))
	client.accept(client.want(generate.EndpointsType, reviewsAll))
	hears := func(when string, endpoints int, tls bool) {
		t.Helper()
		r := client.want(generate.EndpointsType, reviewsAll)
		a := &endpointv3.ClusterLoadAssignment{}
		if err := r.GetResources()[0].GetResource().UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, l := range a.GetEndpoints() {
			n += len(l.GetLbEndpoints())
		}
		if n != endpoints || secure(t, r) != tls {
			t.Fatalf("%s clients hear of %d endpoints, secure: %v", when, n, secure(t, r))
		}
		client.accept(r)
	}
	takesBoth := func(r *discoveryv3.DeltaDiscoveryResponse) {
		t.Helper()
		if got := takes(t, r); !slices.Equal(got, []string{"plain", "tls"}) {
			t.Fatalf("on the way it takes %v", got)
		}
	}

	strict := c.applies(authentication("STRICT"))
	first := server.want(generate.ListenerType, wire.InboundListener) // and does not answer
	takesBoth(first)
	c.report(two)
	hears("before they go over,", 2, false)
	if got := c.Mesh().PeerAuthentications[0].Mode; got != model.MTLSDisable {
		t.Errorf("%v is in force before the change is through", got)
	}
	if _, _, err := c.sources.Apply(decode(t, source.LayerApplied, authentication("DISABLE"))); err != nil {
		t.Fatal(err)
	}
	disable := make(chan error, 1)
	go func() { disable <- c.settle(context.Background(), c.server.Mark()) }() // ends with the change
	server.accept(first)
	hears("when they go over,", 2, true)
	for _, done := range []<-chan error{strict, disable} {
		select {
		case err := <-done:
			t.Fatalf("said to be in force too soon: %v", err)
		default:
		}
	}
	// The first is through, the second begins. The server is told that only the new mode is left, or not any more: both are right.
	plainOnly := make(chan struct{})
	go func() { // ends with the change
		defer close(plainOnly)
		for {
			r := server.want(generate.ListenerType, wire.InboundListener)
			server.accept(r)
			if slices.Equal(takes(t, r), []string{"plain"}) {
				return
			}
		}
	}()
	hears("when they go back,", 2, false)
	<-plainOnly
	if err := <-strict; err != nil { // it waits for who is owed something, of the second change too
		t.Fatal(err)
	}
	if err := <-disable; err != nil {
		t.Fatal(err)
	}
	c.report(one)
	hears("in the end", 1, false)
}

// TestSettingsTakeNoSteps where PeerAuthentications stay as they are: nobody is waited for.
func TestSettingsTakeNoSteps(t *testing.T) {
	c := startWith(t, shortDir(t), Options{StepTime: patience, Replicated: true})
	c.report(map[string]string{"10.77.0.1": "v1"})
	start := time.Now()
	for _, objects := range []string{settings("3s"), settings("4s")} {
		if _, _, err := c.Apply(t.Context(), decode(t, source.LayerApplied, objects)); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d >= patience {
		t.Errorf("it took %v", d)
	}
}

// TestReplicasKeepStep: a server of one replica takes what a client of another sends, before and after that one is told to send something
// else.
func TestReplicasKeepStep(t *testing.T) {
	want := []string{"the server takes [plain tls]", "the client sends TLS: true", "the server takes [tls]"}
	for step := 2 * time.Second; ; step *= 4 { // longer where a replica is later than that, because the machine is slow
		got := keepStep(t, step)
		if slices.Equal(got, want) {
			return
		}
		if step > time.Minute/2 {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// keepStep gives what the proxies of two replicas hear of a change of modes, in order.
func keepStep(t *testing.T, step time.Duration) (all []string) {
	t.Helper()
	shared := etcdtest.Start(t)
	if _, err := shared.Client.Put(t.Context(), "/weft/objects/security.istio.io/PeerAuthentication/default/default", authentication("DISABLE")); err != nil {
		t.Fatal(err)
	}
	one := replica(t, shared, Options{StepTime: step})
	defer one.stop()
	other := replica(t, shared, Options{StepTime: step, Authority: one.Authority(), Tokens: one.Tokens()})
	defer other.stop()
	server, client := one.proxy(), other.proxy()
	server.subscribe(generate.ListenerType, wire.InboundListener)
	server.accept(server.want(generate.ListenerType, wire.InboundListener))
	client.subscribe(generate.EndpointsType, reviewsAll)
	client.accept(client.want(generate.EndpointsType, reviewsAll))

	heard := make(chan string, 10)
	var both sync.WaitGroup
	both.Go(func() {
		for over := false; !over; {
			r := server.want(generate.ListenerType, wire.InboundListener)
			heard <- fmt.Sprint("the server takes ", takes(t, r))
			server.accept(r)
			over = slices.Equal(takes(t, r), []string{"tls"})
		}
	})
	both.Go(func() {
		r := client.want(generate.EndpointsType, reviewsAll)
		heard <- fmt.Sprint("the client sends TLS: ", secure(t, r))
		client.accept(r)
	})
	if _, _, err := other.Apply(t.Context(), decode(t, source.LayerApplied, authentication("STRICT"))); err != nil {
		t.Fatal(err)
	}
	both.Wait()
	close(heard)
	for what := range heard {
		all = append(all, what)
	}
	return all
}

// replica starts one of the control planes that share an etcd.
func replica(t *testing.T, shared *etcdtest.Server, o Options) *control {
	t.Helper()
	store, err := etcd.Open(etcd.Options{Endpoints: []string{shared.Endpoint}, Check: compile.CheckFor(model.Settings{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	o.Applied, o.Replicated = store, true
	c := startWith(t, shortDir(t), o)
	c.report(map[string]string{"10.77.0.1": "v1"})
	return c
}

// TestASilentProxyDelaysAChangeOnly: one that does not answer holds a change of modes up for a while, and not for ever.
func TestASilentProxyDelaysAChangeOnly(t *testing.T) {
	c := startWith(t, shortDir(t), Options{StepTime: 20 * time.Millisecond})
	c.report(map[string]string{"10.77.0.1": "v1"})
	silent := c.proxy()
	silent.subscribe(generate.ListenerType, wire.InboundListener)
	silent.want(generate.ListenerType, wire.InboundListener)
	if _, _, err := c.Apply(t.Context(), decode(t, source.LayerApplied, authentication("STRICT"))); err != nil {
		t.Fatal(err)
	}
	for {
		r := silent.want(generate.ListenerType, wire.InboundListener)
		if got := takes(t, r); slices.Equal(got, []string{"tls"}) {
			return
		}
	}
}
