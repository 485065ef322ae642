package serve

import (
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/churn"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// TestClientsHaveTheNewest changes a mesh at random. After each change every client must hold exactly what is made anew for it.
func TestClientsHaveTheNewest(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPlane(t, Options{})
			if seed == 2 {
				p.madeAside()
			}
			c := churn.New(seed)
			far := wire.Node{Role: wire.Sidecar, Name: "far-0", Namespace: "other", ServiceAccount: "far", Labels: map[string]string{"tier": "x"}}
			edge := wire.Node{Role: wire.Gateway, Name: "edge-0", Namespace: "istio-system", ServiceAccount: "edge"}
			c.Edit(func(m *model.Mesh) {
				m.Workloads.Put("istio-system/edge-0", &model.Workload{Namespace: "istio-system", Name: "edge-0", ServiceAccount: "edge",
					Labels: map[string]string{"istio": "ingressgateway"}})
			})
			p.publish(c.Mesh)
			var mirrors []*mirror
			for _, n := range []wire.Node{productpage(), far, edge} {
				m := &mirror{client: p.connect(n), node: n, has: map[entryName]string{}}
				m.subscribeToMuch()
				mirrors = append(mirrors, m)
			}
			for i := range 120 {
				before := c.Mesh
				what := fmt.Sprintf("round %d, %s", i, c.Change())
				if i%10 == 9 {
					what = fmt.Sprintf("round %d, labels of the sidecar", i)
					c.Edit(func(m *model.Mesh) {
						m.Workloads.Put("default/productpage-0", &model.Workload{Namespace: "default", Name: "productpage-0", ServiceAccount: "productpage",
							Labels: map[string]string{"app": "productpage", "round": fmt.Sprint(i)},
							Ports:  []model.WorkloadPort{{Number: uint16(9000 + i), Protocol: model.HTTP}}})
					})
				}
				p.server.Publish(c.Mesh, churn.Delta(before, c.Mesh))
				for _, m := range mirrors {
					m.catchUp(p)
					m.check(c.Mesh, what)
				}
			}
		})
	}
}

// mirror is a client that keeps what it gets.
type mirror struct {
	*client
	node   wire.Node
	names  map[string][]string
	has    map[entryName]string
	rounds int
}

func (m *mirror) subscribeToMuch() {
	m.names = map[string][]string{generate.ListenerType: {wire.InboundListener}, generate.ClusterType: {"inbound|9009||"}}
	for _, h := range churn.Hosts {
		m.names[generate.ListenerType] = append(m.names[generate.ListenerType], wire.ListenerName(h, 9080))
		m.names[generate.RouteType] = append(m.names[generate.RouteType], wire.RouteName(h, 9080))
		m.names[generate.ClusterType] = append(m.names[generate.ClusterType], wire.OutboundCluster(9080, "", h))
		m.names[generate.EndpointsType] = append(m.names[generate.EndpointsType], wire.OutboundCluster(9080, "", h))
		m.names[generate.DNSType] = append(m.names[generate.DNSType], h)
	}
	if m.node.Role == wire.Gateway {
		m.names[generate.ListenerType] = []string{"*"}
		m.names[generate.RouteType] = append(m.names[generate.RouteType], "http.80")
	}
	for typeURL, names := range m.names {
		m.subscribe(typeURL, names...)
	}
	m.sync()
}

// sync takes everything up to the answer to a question of its own.
func (m *mirror) sync() {
	m.t.Helper()
	m.rounds++
	question := fmt.Sprintf("question-%d.example", m.rounds)
	m.subscribe(generate.DNSType, question)
	for {
		r := m.recv()
		m.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		for _, x := range r.GetResources() {
			m.has[entryName{r.GetTypeUrl(), x.GetName()}] = string(x.GetResource().GetValue())
		}
		for _, n := range r.GetRemovedResources() {
			if n == question {
				m.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.DNSType, ResourceNamesUnsubscribe: []string{question}})
				return
			}
			delete(m.has, entryName{r.GetTypeUrl(), n})
		}
	}
}

func (m *mirror) check(mesh *model.Mesh, what string) {
	m.t.Helper()
	g := generate.New(mesh, readClaim(xdsNode(m.node)).node(caller{Peer: m.peer()}, mesh))
	want := map[entryName]string{}
	for typeURL, names := range m.names {
		if slices.Contains(names, "*") {
			names = g.Names(typeURL)
		}
		for _, n := range names {
			if r, ok := g.Resource(typeURL, n); ok {
				body, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
				if err != nil {
					m.t.Fatal(err)
				}
				want[entryName{typeURL, n}] = string(body)
			}
		}
	}
	if maps.Equal(m.has, want) {
		return
	}
	for k := range want {
		if m.has[k] != want[k] {
			m.t.Fatalf("%s: %s has\n%q of %s %q, want\n%q", what, m.node.Name, m.has[k], shortType(k.typeURL), k.name, want[k])
		}
	}
	for k := range m.has {
		if _, ok := want[k]; !ok {
			m.t.Fatalf("%s: %s has %s %q, which is gone", what, m.node.Name, shortType(k.typeURL), k.name)
		}
	}
}

// TestOnlyTheConcernedAreWoken: a change of one service's endpoints is nothing to clients of others.
func TestOnlyTheConcernedAreWoken(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	concerned, other := p.connect(productpage()), p.connect(productpage())
	concerned.follow()
	other.subscribe(generate.DNSType, "elsewhere")
	other.want(generate.DNSType, "-elsewhere")
	other.quiet()
	before := p.metric("pilot_proxy_convergence_time", "")
	for i := range 5 {
		p.server.Publish(mesh(nil, fmt.Sprintf("10.77.0.%d", 10+i)), model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
		concerned.want(generate.EndpointsType, reviewsAll)
	}
	concerned.quiet()
	other.quiet()
	if got := p.metric("pilot_proxy_convergence_time", "") - before; got != 5 {
		t.Errorf("%v wake-ups with something to send, want 5", got)
	}
	// What comes to the same is sent to nobody.
	p.server.Publish(mesh(nil, "10.77.0.14"), model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
	concerned.quiet()
}

// TestAnAddressConcernsWhoListensAtIt: a workload that gets another address has nothing made for it again, unless its Sidecar has it listen
// there.
func TestAnAddressConcernsWhoListensAtIt(t *testing.T) {
	p := newPlane(t, Options{})
	at := func(address string, edit func(*model.Mesh)) *model.Mesh {
		return mesh(func(m *model.Mesh) {
			m.Workloads.Put("default/productpage-0", &model.Workload{Namespace: "default", Name: "productpage-0", ServiceAccount: "productpage",
				Addresses: []netip.Addr{netip.MustParseAddr(address)}, Ports: []model.WorkloadPort{{Number: 9080, Protocol: model.HTTP}}})
			if edit != nil {
				edit(m)
			}
		}, "10.77.0.1")
	}
	listens := func(m *model.Mesh) {
		m.Sidecars = []*model.Sidecar{{Ref: model.Ref{Kind: "Sidecar", Namespace: "default", Name: "productpage"}, Namespace: "default",
			Egress:  []model.Egress{{Hosts: []model.EgressHost{{Namespace: "*", Host: "*"}}}},
			Ingress: []model.Ingress{{Port: 9080, Protocol: model.HTTP, Endpoint: "127.0.0.1:8080", Open: true}}}}
	}
	moved := model.Delta{Workloads: map[string]bool{"default/productpage-0": true}}
	p.publish(at("10.77.9.1", nil))
	c := p.connect(productpage())
	c.follow()
	c.subscribe(generate.ListenerType, wire.InboundListener, wire.OutboundListener)
	c.want(generate.ListenerType, wire.InboundListener, wire.OutboundListener)
	c.quiet()
	remade, mark := p.metric("weft_xds_resources_remade_total", ""), p.server.Mark()
	p.server.Publish(at("10.77.9.2", nil), moved)
	c.quiet()
	if n := p.metric("weft_xds_resources_remade_total", "") - remade; n != 0 {
		t.Errorf("%v resources were made again", n)
	}
	p.server.cache.mu.Lock()
	for s := range p.server.streams {
		if s.touched > mark {
			t.Error("the stream was woken")
		}
	}
	p.server.cache.mu.Unlock()

	p.publish(at("10.77.9.2", listens))
	got := c.take(generate.ListenerType)
	if !slices.Contains(got, wire.OutboundListener) {
		t.Fatalf("the Sidecar changed %v", got)
	}
	c.quiet()
	p.server.Publish(at("10.77.9.3", listens), moved)
	c.want(generate.ListenerType, wire.OutboundListener)
	c.quiet()
}

// TestNothingIsKept: what nobody subscribes to any more is forgotten, whichever way it comes to that.
func TestNothingIsKept(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	for i := range 20 {
		c := p.connect(productpage())
		c.follow()
		c.subscribe(generate.ClusterType, "*")
		c.want(generate.ClusterType, "BlackHoleCluster", "InboundPassthroughCluster", "PassthroughCluster")
		for j := range 20 {
			name := fmt.Sprintf("churned-%d-%d", i, j)
			c.subscribe(generate.DNSType, name)
			c.want(generate.DNSType, "-"+name)
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.DNSType, ResourceNamesUnsubscribe: []string{name}})
		}
		if i%2 == 0 {
			p.publish(mesh(nil, fmt.Sprintf("10.77.0.%d", 2+i)))
		}
		c.cancel()
	}
	p.await("all streams have ended", func() bool { return p.metric("pilot_xds", "") == 0 })
	p.server.cache.mu.Lock()
	defer p.server.cache.mu.Unlock()
	if c := &p.server.cache; c.size != 0 || len(c.entries) != 0 || c.readers.Len() != 0 || len(p.server.byWorkload) != 0 {
		t.Errorf("left: %d resources, %d names, %d keys, %d workloads", c.size, len(c.entries), c.readers.Len(), len(p.server.byWorkload))
	}
}

// TestMemoryIsFlat: thousands of changes leave nothing behind.
func TestMemoryIsFlat(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.follow()
	heap := func(rounds int) uint64 {
		for i := range rounds {
			p.server.Publish(mesh(nil, fmt.Sprintf("10.77.%d.%d", i/250, i%250)), model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
			c.want(generate.EndpointsType, reviewsAll)
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first := heap(500)
	if last := heap(3000); last > first+first/4 {
		t.Errorf("the heap grew from %d to %d bytes in 3000 changes", first, last)
	}
}

// await polls what cannot be waited for.
func (p *plane) await(what string, done func() bool) {
	p.t.Helper()
	p.awaitOr(func() string { return what }, done)
}

// awaitOr is await for those who can say what there is instead.
func (p *plane) awaitOr(what func() string, done func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %v: %s", patience, what())
		}
		runtime.Gosched()
	}
}
