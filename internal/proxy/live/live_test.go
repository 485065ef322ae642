package live_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/ads/adstest"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sidecar = wire.Node{Role: wire.Sidecar, Name: "productpage-1", Namespace: "default", ServiceAccount: "productpage", Workload: "productpage"}

func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func hcm(routes string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: routes}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})}}},
	}
}

func httpListener(name, routes string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{ApiListener: pack(hcm(routes))}}
}

func inboundListener(clusters ...string) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: wire.InboundListener}
	for _, c := range clusters {
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{Name: c, Filters: []*listenerv3.Filter{{Name: "tcp",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: c}})}}}})
	}
	return l
}

func routes(name string, clusters ...string) *routev3.RouteConfiguration {
	v := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	for _, c := range clusters {
		v.Routes = append(v.Routes, &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + c}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}}})
	}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{v}}
}

func edsCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name}}
}

func originalDst(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED}
}

func endpoints(cluster string, addresses ...string) *endpointv3.ClusterLoadAssignment {
	l := &endpointv3.LocalityLbEndpoints{}
	for _, a := range addresses {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: a,
				PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 9080}}}}}}})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{l}}
}

// set gives a server resources under their own names.
func set(s *adstest.Server, ms ...proto.Message) {
	all := map[string]proto.Message{}
	flush := func() {
		s.Set(all)
		all = map[string]proto.Message{}
	}
	for _, m := range ms {
		name := ""
		switch m := m.(type) {
		case *listenerv3.Listener:
			name = m.Name
		case *routev3.RouteConfiguration:
			name = m.Name
		case *clusterv3.Cluster:
			name = m.Name
		case *endpointv3.ClusterLoadAssignment:
			name = m.ClusterName
		case *dnsv3.DnsTable:
			name = m.VirtualDomains[0].Name
		}
		if _, taken := all[name]; taken {
			flush()
		}
		all[name] = m
	}
	flush()
}

// reviews is a complete destination with one cluster per subset.
func reviews(subsets ...string) []proto.Message {
	ms := []proto.Message{httpListener("reviews:9080", "reviews"), routes("reviews", subsets...)}
	for _, s := range subsets {
		ms = append(ms, edsCluster(s), endpoints(s, "10.0.0.1", "10.0.0.2"))
	}
	return ms
}

// start runs a Live until the test ends or stop is called.
func start(t *testing.T, s *adstest.Server, o live.Options) (l *live.Live, stop func()) {
	t.Helper()
	if o.Node.Role == "" {
		o.Node = sidecar
	}
	l, err := live.New(s.Conn(t), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() {
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
	return l, stop
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a snapshot that fulfils f.
func until(t *testing.T, l *live.Live, what string, f func(*conf.Snapshot) bool) {
	t.Helper()
	ctx := soon(t)
	for {
		changed := l.Changed()
		if f(l.Snapshot()) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: did not happen; status %+v", what, l.Status())
		}
	}
}

func TestResolveFollowsToEndpoints(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1", "v2")...)
	l, _ := start(t, s, live.Options{})
	target, err := l.Resolve(soon(t), "reviews:9080")
	if err != nil || target == nil {
		t.Fatalf("Resolve = %v, %v", target, err)
	}
	if target.Routes == nil || len(target.Routes.Hosts[0].Routes) != 2 {
		t.Fatalf("routes: %+v", target.Routes)
	}
	snap := l.Snapshot()
	for _, name := range []string{"v1", "v2"} {
		if c := snap.Clusters[name]; c == nil || c.Total != 2 || c.Version == "" {
			t.Errorf("cluster %s: %+v", name, c)
		}
	}
	if again, _ := l.Resolve(soon(t), "reviews:9080"); again != target {
		t.Error("a known name gave another target")
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = l.Resolve(context.Background(), "reviews:9080") }); n != 0 {
		t.Errorf("%v allocations to resolve a known name", n)
	}
}

func TestUnknownNameIsAnsweredAtOnce(t *testing.T) {
	s := adstest.New(t)
	l, _ := start(t, s, live.Options{})
	target, err := l.Resolve(soon(t), "www.example.org:80")
	if target != nil || err != nil {
		t.Fatalf("Resolve = %v, %v", target, err)
	}
	if _, held := l.Snapshot().Outbound["www.example.org:80"]; !held {
		t.Error("the unknown name is asked for again each time")
	}
	set(s, httpListener("www.example.org:80", "r"), routes("r"))
	until(t, l, "the name appears", func(s *conf.Snapshot) bool { return s.Outbound["www.example.org:80"] != nil })
	s.Remove(decode.ListenerType, "www.example.org:80")
	until(t, l, "the name disappears", func(s *conf.Snapshot) bool { return s.Outbound["www.example.org:80"] == nil })
}

func TestAbsentClusterIsLeftOut(t *testing.T) {
	s := adstest.New(t)
	ms := reviews("v1")
	ms[1] = routes("reviews", "v1", "nowhere")
	set(s, ms...)
	l, _ := start(t, s, live.Options{})
	if target, err := l.Resolve(soon(t), "reviews:9080"); err != nil || target == nil {
		t.Fatalf("Resolve = %v, %v", target, err)
	}
	if s := l.Snapshot(); s.Clusters["v1"] == nil || s.Clusters["nowhere"] != nil {
		t.Errorf("clusters: %v", s.Clusters)
	}
}

func TestNewVersionSwapsWhenComplete(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{})
	before, err := l.Resolve(soon(t), "reviews:9080")
	if err != nil {
		t.Fatal(err)
	}
	// The new routes lead to a cluster whose endpoints are not there yet: known to the server, but silent about them.
	set(s, edsCluster("v2"), routes("reviews", "v1", "v2"))
	if _, err := s.Await(soon(t), asksFor(decode.EndpointsType, "v2")); err != nil {
		t.Fatal(err)
	}
	// The server says that there are none, which completes it.
	until(t, l, "new routes", func(s *conf.Snapshot) bool {
		now := s.Outbound["reviews:9080"]
		if now == before {
			return false
		}
		if s.Clusters["v2"] == nil {
			t.Error("new routes were published before their cluster")
		}
		return true
	})
	set(s, endpoints("v2", "10.0.0.9"))
	until(t, l, "endpoints", func(s *conf.Snapshot) bool { return s.Clusters["v2"].Total == 1 })
	set(s, routes("reviews", "v2"))
	until(t, l, "v1 is dropped", func(s *conf.Snapshot) bool { return s.Clusters["v1"] == nil && s.Clusters["v2"] != nil })
	if _, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return r.TypeUrl == decode.ClusterType && slices.Contains(r.ResourceNamesUnsubscribe, "v1")
	}); err != nil {
		t.Error(err)
	}
}

func asksFor(typeURL, name string) func(*discoveryv3.DeltaDiscoveryRequest) bool {
	return func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return r.TypeUrl == typeURL && slices.Contains(r.ResourceNamesSubscribe, name)
	}
}

func TestBadUpdateKeepsTheOld(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{})
	before, err := l.Resolve(soon(t), "reviews:9080")
	if err != nil {
		t.Fatal(err)
	}
	bad := routes("reviews", "v1")
	bad.VirtualHosts[0].Routes[0].Match.DynamicMetadata = []*matcherv3.MetadataMatcher{{Filter: "x"}}
	set(s, bad)
	nack, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool { return r.ErrorDetail != nil })
	if err != nil {
		t.Fatal(err)
	}
	if text := nack.ErrorDetail.Message; !strings.Contains(text, "routes reviews") || !strings.Contains(text, "virtual_hosts[0].routes[0].match.dynamic_metadata") {
		t.Errorf("nack says %q", text)
	}
	if now, _ := l.Resolve(soon(t), "reviews:9080"); now != before {
		t.Error("the bad update replaced the good one")
	}
	set(s, routes("reviews", "v1", "v1"))
	until(t, l, "recovery", func(s *conf.Snapshot) bool { return len(s.Outbound["reviews:9080"].Routes.Hosts[0].Routes) == 2 })
}

func TestRefusedWithoutAnOlderVersion(t *testing.T) {
	s := adstest.New(t)
	set(s, &listenerv3.Listener{Name: "reviews:9080"})
	l, _ := start(t, s, live.Options{})
	_, err := l.Resolve(soon(t), "reviews:9080")
	if !errors.Is(err, live.ErrRefused) || !strings.Contains(err.Error(), "listener reviews:9080") {
		t.Fatalf("Resolve: %v", err)
	}
	set(s, reviews("v1")...)
	until(t, l, "recovery", func(s *conf.Snapshot) bool { return s.Outbound["reviews:9080"] != nil })
}

func TestWithdrawnClusterHasGrace(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{RemovalGrace: 50 * time.Millisecond})
	if _, err := l.Resolve(soon(t), "reviews:9080"); err != nil {
		t.Fatal(err)
	}
	s.Remove(decode.ClusterType, "v1")
	until(t, l, "removal", func(s *conf.Snapshot) bool { return s.Clusters["v1"] == nil })
	if l.Snapshot().Outbound["reviews:9080"] == nil {
		t.Error("the target went with the cluster")
	}
	set(s, edsCluster("v1"))
	until(t, l, "return", func(s *conf.Snapshot) bool { return s.Clusters["v1"] != nil && s.Clusters["v1"].Total == 2 })
}

func TestUnreachable(t *testing.T) {
	s := adstest.New(t)
	s.Stop()
	l, _ := start(t, s, live.Options{UnreachableWait: 50 * time.Millisecond})
	waits := uint64(1)
	_, err := l.Resolve(soon(t), "reviews:9080")
	for ctx := soon(t); ctx.Err() == nil && err != nil && strings.Contains(err.Error(), "not connected yet"); waits++ { // it tries to for longer than we wait
		_, err = l.Resolve(ctx, "reviews:9080")
	}
	if !errors.Is(err, live.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Fatalf("Resolve: %v", err)
	}
	if _, stale := l.Stale(); !stale {
		t.Error("not stale")
	}
	set(s, reviews("v1")...)
	s.Start()
	until(t, l, "recovery", func(s *conf.Snapshot) bool { return s.Outbound["reviews:9080"] != nil })
	if _, stale := l.Stale(); stale {
		t.Error("stale after the return")
	}
	if w := l.Status().Waits; w.Outcome["unreachable"] != waits {
		t.Errorf("waits: %+v", w)
	}
}

func TestSilentServerTimesOut(t *testing.T) {
	s := adstest.New(t)
	set(s, inboundListener("in"), originalDst("in"))
	l, _ := start(t, s, live.Options{UnreachableWait: 20 * time.Millisecond, AnswerWait: 100 * time.Millisecond})
	if err := l.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	s.Silence()
	if _, err := l.Resolve(soon(t), "reviews:9080"); !errors.Is(err, live.ErrTimeout) {
		t.Fatalf("Resolve: %v", err)
	}
}

func TestRestartResumes(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{})
	if _, err := l.Resolve(soon(t), "reviews:9080"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if target, err := l.Resolve(soon(t), "reviews:9080"); target == nil || err != nil {
		t.Fatalf("with the control plane down: %v, %v", target, err)
	}
	s.Forget()
	set(s, endpoints("v1", "10.0.0.7"))
	s.Start()
	until(t, l, "what changed meanwhile", func(s *conf.Snapshot) bool { return s.Clusters["v1"].Total == 1 })
	r, err := s.Await(soon(t), asksFor(decode.RoutesType, "reviews"))
	if err != nil {
		t.Fatal(err)
	}
	if r.InitialResourceVersions["reviews"] == "" {
		t.Errorf("resumed without versions: %v", r)
	}
}

func TestInboundStaysCurrent(t *testing.T) {
	s := adstest.New(t)
	l, _ := start(t, s, live.Options{})
	set(s, inboundListener("in"), originalDst("in"))
	if err := l.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	if snap := l.Snapshot(); snap.Inbound == nil || snap.Clusters["in"] == nil {
		t.Fatalf("snapshot: %+v", snap)
	}
	set(s, inboundListener("in", "in"))
	until(t, l, "change", func(s *conf.Snapshot) bool { return len(s.Inbound.Chains) == 2 })
}

func TestSidecarFollowsWhatItOpens(t *testing.T) {
	s := adstest.New(t)
	l, _ := start(t, s, live.Options{})
	opening := func(addresses ...any) *listenerv3.Listener {
		list, err := structpb.NewStruct(map[string]any{wire.OpenOutbound: addresses})
		if err != nil {
			t.Fatal(err)
		}
		return &listenerv3.Listener{Name: wire.OutboundListener, Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{wire.ProxySettings: list}},
			FilterChains: inboundListener("out").FilterChains}
	}
	set(s, inboundListener("in"), originalDst("in"), originalDst("out"), opening("127.0.0.1:3306", "127.0.0.1:80"))
	until(t, l, "two addresses", func(s *conf.Snapshot) bool {
		return len(s.Opened) == 2 && s.Opened[0].Address.String() == "127.0.0.1:3306"
	})
	set(s, opening("127.0.0.1:80"))
	until(t, l, "one address", func(s *conf.Snapshot) bool { return len(s.Opened) == 1 && s.Opened[0].Address.Port() == 80 })
	set(s, opening())
	until(t, l, "none", func(s *conf.Snapshot) bool { return len(s.Opened) == 0 })
}

func gatewayListener(port uint16) *listenerv3.Listener {
	return &listenerv3.Listener{Name: wire.GatewayListenerName(port),
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "0.0.0.0",
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{ConfigType: &listenerv3.Filter_TypedConfig{
			TypedConfig: pack(hcm(wire.GatewayRouteName(port)))}}}}}}
}

func TestGatewayFollowsEverything(t *testing.T) {
	s := adstest.New(t)
	l, _ := start(t, s, live.Options{Node: wire.Node{Role: wire.Gateway, Name: "gw", Namespace: "default", ServiceAccount: "gw"}})
	if err := l.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	set(s, gatewayListener(8080), gatewayListener(8081), routes("http.8080", "v1"), routes("http.8081"), edsCluster("v1"), endpoints("v1", "10.0.0.1"))
	until(t, l, "both listeners", func(s *conf.Snapshot) bool { return len(s.Gateways) == 2 })
	snap := l.Snapshot()
	if snap.RouteTables["http.8080"] == nil || snap.RouteTables["http.8081"] == nil || snap.Clusters["v1"] == nil {
		t.Fatalf("snapshot: %+v", snap)
	}
	s.Remove(decode.ListenerType, wire.GatewayListenerName(8080))
	until(t, l, "removal", func(s *conf.Snapshot) bool {
		return len(s.Gateways) == 1 && s.Gateways[0].Address.Port() == 8081 && s.Clusters["v1"] == nil
	})
}

// TestFollowComesBeforeTheAnswer: what has to be as the configuration says is so when the control plane hears that it has been taken, and
// what an update leads to is asked for before that.
func TestFollowComesBeforeTheAnswer(t *testing.T) {
	s := adstest.New(t)
	set(s, gatewayListener(8080), routes("http.8080", "v1"), edsCluster("v1"), endpoints("v1", "10.0.0.1"))
	var l *live.Live
	ready, followed := make(chan struct{}), make(chan int, 10)
	l, _ = start(t, s, live.Options{Node: wire.Node{Role: wire.Gateway, Name: "gw", Namespace: "default", ServiceAccount: "gw"}, Follow: func() {
		<-ready
		if n := len(l.Snapshot().Gateways); n > 0 {
			for _, r := range s.Requests() {
				if r.GetTypeUrl() == decode.EndpointsType && r.GetResponseNonce() != "" {
					n = -1
				}
			}
			followed <- n
		}
	}})
	close(ready)
	if n := <-followed; n != 1 {
		t.Errorf("acknowledged before it was followed: %d", n)
	}
	if _, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return r.GetTypeUrl() == decode.EndpointsType && r.GetResponseNonce() != ""
	}); err != nil {
		t.Fatal(err)
	}
	order := []string{}
	for _, r := range s.Requests() {
		what := r.GetTypeUrl()[strings.LastIndexByte(r.GetTypeUrl(), '.')+1:]
		if r.GetResponseNonce() != "" {
			what = "ack of " + what
		}
		order = append(order, what)
	}
	want := []string{"Listener", "RouteConfiguration", "ack of Listener", "Cluster", "ack of RouteConfiguration", "ClusterLoadAssignment",
		"ack of Cluster", "ack of ClusterLoadAssignment"}
	if !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

func TestDNS(t *testing.T) {
	s := adstest.New(t)
	set(s, &dnsv3.DnsTable{VirtualDomains: []*dnsv3.DnsTable_DnsVirtualDomain{{Name: "reviews", Endpoint: &dnsv3.DnsTable_DnsEndpoint{
		EndpointConfig: &dnsv3.DnsTable_DnsEndpoint_AddressList{AddressList: &dnsv3.DnsTable_AddressList{Address: []string{"10.78.0.1"}}}}}}})
	l, _ := start(t, s, live.Options{})
	found, err := l.LookupDNS(soon(t), "reviews")
	if err != nil || found == nil || len(found.Addresses) != 1 || found.Addresses[0].String() != "10.78.0.1" {
		t.Fatalf("LookupDNS = %v, %v", found, err)
	}
	if found, err := l.LookupDNS(soon(t), "example.org"); found != nil || err != nil {
		t.Fatalf("unknown: %v, %v", found, err)
	}
}

func TestNamesAreBounded(t *testing.T) {
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{MaxNames: 3})
	for i := range 10 {
		if _, err := l.Resolve(soon(t), fmt.Sprintf("attack-%d:80", i)); err != nil {
			t.Fatal(err)
		}
	}
	if target, err := l.Resolve(soon(t), "reviews:9080"); target == nil || err != nil {
		t.Fatalf("Resolve = %v, %v", target, err)
	}
	if n := len(l.Snapshot().Outbound); n != 3 {
		t.Errorf("%d names held", n)
	}
}

func TestStartsFromDisk(t *testing.T) {
	dir := t.TempDir()
	s := adstest.New(t)
	set(s, append(reviews("v1"), inboundListener("in"), originalDst("in"))...)
	l, stop := start(t, s, live.Options{StateDir: dir})
	if err := l.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resolve(soon(t), "reviews:9080"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resolve(soon(t), "unknown:80"); err != nil {
		t.Fatal(err)
	}
	stop()
	info, err := os.Stat(filepath.Join(dir, "config.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("saved file: %v, %v", info, err)
	}
	s.Stop()

	other := sidecar
	other.Name = "productpage-2" // another instance of the workload inherits
	l, stop = start(t, s, live.Options{StateDir: dir, Node: other, UnreachableWait: time.Millisecond})
	if err := l.Ready(soon(t)); err != nil {
		t.Fatal(err)
	}
	if target, err := l.Resolve(soon(t), "reviews:9080"); target == nil || err != nil || l.Snapshot().Clusters["v1"].Total != 2 {
		t.Fatalf("from disk: %v, %v", target, err)
	}
	if target, err := l.Resolve(soon(t), "unknown:80"); target != nil || err != nil {
		t.Fatalf("unknown, from disk: %v, %v", target, err)
	}
	s.Forget()
	set(s, endpoints("v1", "10.0.0.3"))
	s.Start()
	until(t, l, "recovery", func(s *conf.Snapshot) bool { return s.Clusters["v1"].Total == 1 })
	r, err := s.Await(soon(t), asksFor(decode.ClusterType, "v1"))
	if err != nil || r.InitialResourceVersions["v1"] == "" {
		t.Errorf("the saved version was not offered: %v, %v", r, err)
	}
	stop()

	stranger := sidecar
	stranger.ServiceAccount = "other"
	s.Stop()
	l, _ = start(t, s, live.Options{StateDir: dir, Node: stranger, UnreachableWait: time.Millisecond})
	if _, err := l.Resolve(soon(t), "reviews:9080"); !errors.Is(err, live.ErrUnreachable) {
		t.Errorf("another service account inherited: %v", err)
	}
}

func TestDamagedFileIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := adstest.New(t)
	set(s, reviews("v1")...)
	l, _ := start(t, s, live.Options{StateDir: dir})
	if target, err := l.Resolve(soon(t), "reviews:9080"); target == nil || err != nil {
		t.Fatalf("Resolve = %v, %v", target, err)
	}
}
