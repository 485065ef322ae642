package serve

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// wide is a mesh of many services besides reviews.
func wide(services int, endpoint string) *model.Mesh {
	return mesh(func(m *model.Mesh) {
		for i := range services {
			s := *m.Services.Get(reviewsHost)
			s.Host, s.Name = fmt.Sprintf("s%d.default.svc.cluster.local", i), fmt.Sprintf("s%d", i)
			s.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 79, byte(i >> 8), byte(i)})}
			m.Services.Put(s.Host, &s)
			m.ByAddress.Put(s.Addresses[0], []string{s.Host})
		}
	}, endpoint)
}

// all subscribes to everything that can be.
func (c *client) all() {
	c.t.Helper()
	c.subscribe(generate.ClusterType, "*")
	c.subscribe(generate.ListenerType, "*")
}

// TestWildcardsOfOneNode: of the streams of one node that are never read there are a few, which have no copy of what they were to read.
func TestWildcardsOfOneNode(t *testing.T) {
	const streams, services = 60, 3000
	p := newPlane(t, Options{})
	p.publish(wide(services, "10.77.0.1"))
	good, id := p.watching(), p.certify("default", hostile().ServiceAccount, time.Hour)
	reader := p.connectAs(hostile(), p.certify("default", hostile().ServiceAccount, time.Hour))
	reader.all()
	for reader.recv().GetTypeUrl() != generate.ListenerType { // clusters come first, in several responses
	}
	before := inUse() // what is made for one is made for all
	for range streams {
		p.connectAs(hostile(), id).all()
	}
	good.served(p, wide(services, "10.77.0.2"))
	p.await("the newest are there alone", func() bool { return p.metric("pilot_xds", "") == 2+fullShares })
	for i := range 20 {
		good.served(p, wide(services, fmt.Sprintf("10.77.1.%d", i)))
	}
	if grown := inUse() - before; grown > sparedMemory {
		t.Errorf("%d bytes are kept for %d streams, and for their clients, which are here", grown, streams)
	}
}

// TestWildcardsAreReplaced: a node that comes back before the server knows that it was gone is served, and its oldest stream is told why it ends.
func TestWildcardsAreReplaced(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	id := p.certify("default", productpage().ServiceAccount, time.Hour)
	var streams []*client
	for range fullShares + 1 {
		c := p.connectAs(productpage(), id)
		c.subscribe(generate.ClusterType, "*")
		c.take(generate.ClusterType)
		streams = append(streams, c)
	}
	if _, err := streams[0].stream.Recv(); err == nil || err.Error() != errSuperseded.Error() {
		t.Errorf("the oldest got %v", err)
	}
	for _, c := range streams[1:] {
		c.quiet()
	}
	// Names are another thing: a program that dials many has a stream for each.
	for range 2 * fullShares {
		p.connectAs(productpage(), id).follow()
	}
	other := p.connectAs(productpage(), p.certify("default", productpage().ServiceAccount, time.Hour))
	other.subscribe(generate.ClusterType, "*")
	other.take(generate.ClusterType)
	for _, c := range streams[1:] {
		c.quiet()
	}
}

// TestWildcardsOfOneCertificate: what wildcards list counts, whatever the nodes are called; a few streams may list all that there is.
func TestWildcardsOfOneCertificate(t *testing.T) {
	const most, services = 100, 300
	p := newPlane(t, Options{MaxSubscriptions: most})
	p.publish(wide(services, "10.77.0.1"))
	id := p.certify("default", "hostile", time.Hour)
	node := func(i int) wire.Node {
		return wire.Node{Role: wire.Sidecar, Name: fmt.Sprintf("hostile-%d", i), Namespace: "default", ServiceAccount: "hostile"}
	}
	for i := range 10 {
		c := p.connectAs(node(i), id)
		c.subscribe(generate.ClusterType, "*")
		switch r, err := c.stream.Recv(); {
		case i < fullShares && (err != nil || len(r.GetResources()) < services):
			t.Fatalf("stream %d: %d clusters, %v", i, len(r.GetResources()), err)
		case i >= fullShares && status.Code(err) != codes.ResourceExhausted:
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	p.await("the others have ended", func() bool { return p.metric("pilot_xds", "") == fullShares })

	// Where lists are short, many may have them.
	p.publish(mesh(nil, "10.77.0.1"))
	p.await("the lists are short", func() bool {
		for _, h := range p.server.holdings() {
			if h.spare > most {
				return false
			}
		}
		return true
	})
	for i := range 10 {
		c := p.connectAs(node(100+i), id)
		c.subscribe(generate.ClusterType, "*")
		c.take(generate.ClusterType)
	}
	p.watching().served(p, mesh(nil, "10.77.0.2"))
	for s, h := range p.server.holdings() {
		if h.spare < 0 || h.streams == 0 {
			t.Errorf("certificate %x: %d streams, %d spare", s, h.streams, h.spare)
		}
	}
}

// TestTakesNamesBack: names that are taken back count until the client has read what became of them.
func TestTakesNamesBack(t *testing.T) {
	const most = 1000
	p := newPlane(t, Options{MaxSubscriptions: most})
	p.publish(wide(1000, "10.77.0.1"))
	bad := p.connect(hostile())
	bad.all()
	for round := range 20 {
		names := make([]string, most*3/4)
		for i := range names {
			names[i] = fmt.Sprintf("name-%d-%d.example:80", round, i)
		}
		bad.subscribe(generate.ClusterType, names...)
		bad.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ClusterType, ResourceNamesUnsubscribe: names})
	}
	var err error
	for err == nil {
		_, err = bad.stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	p.await("nothing counts any more", func() bool { return len(p.server.holdings()) == 0 })
}

// holdings are those of now, by certificate.
func (s *Server) holdings() map[string]holding {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	out := map[string]holding{}
	for serial, h := range s.byCertificate {
		out[serial] = *h
	}
	return out
}

// TestWildcardsShareTheirLists: what streams see alike is listed once, and so are the routes of a gateway's replicas.
func TestWildcardsShareTheirLists(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(func(m *model.Mesh) {
		routed(reviewsHost)(m)
		ref := model.Ref{Kind: "Gateway.istio", Namespace: "istio-system", Name: "edge"}
		m.Gateways = []*model.Gateway{{Ref: ref, Selector: map[string]string{"istio": "edge"},
			Servers: []model.Server{{Port: 80, Name: "http", Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}}}}}
		m.RouteSets[0].Gateways = []model.GatewayRef{{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}}
		for i, labels := range []map[string]string{{"istio": "edge"}, {"istio": "edge"}, {"istio": "edge", "canary": "yes"}} {
			name := fmt.Sprintf("edge-%d", i)
			m.Workloads.Put("istio-system/"+name, &model.Workload{Namespace: "istio-system", Name: name, ServiceAccount: "edge", Labels: labels})
		}
	}, "10.77.0.1"))
	type seen struct{ typeURL, name string }
	connect := func(n wire.Node, names ...seen) {
		c := p.connect(n)
		for _, x := range names {
			c.subscribe(x.typeURL, x.name)
			if got := c.take(x.typeURL); len(got) == 0 || strings.HasPrefix(got[0], "-") {
				t.Fatalf("%s has %v of %s", n.Name, got, x.name)
			}
		}
	}
	for i := range 3 {
		connect(wire.Node{Role: wire.Gateway, Name: fmt.Sprintf("edge-%d", i), Namespace: "istio-system", ServiceAccount: "edge"},
			seen{generate.ListenerType, "*"}, seen{generate.RouteType, "http.80"})
		connect(wire.Node{Role: wire.Sidecar, Name: fmt.Sprintf("web-%d", i), Namespace: "default", ServiceAccount: "web", Labels: map[string]string{"app": fmt.Sprint(i)}},
			seen{generate.ListenerType, "*"}, seen{generate.ClusterType, "*"})
	}
	p.server.cache.mu.Lock()
	defer p.server.cache.mu.Unlock()
	made := map[entryName]map[*entry]bool{}
	for c := range p.server.streams {
		for _, w := range c.watches {
			entries := []*entry{}
			if w.list != nil {
				entries = append(entries, w.list.entry)
			}
			for _, s := range w.subs {
				entries = append(entries, s.entry)
			}
			for _, e := range entries {
				if made[e.entryName] == nil {
					made[e.entryName] = map[*entry]bool{}
				}
				made[e.entryName][e] = true
			}
		}
	}
	for name, want := range map[entryName]int{
		{generate.ListenerType, "*"}:       3, // of the two equal gateways, of the other one, of all sidecars
		{generate.ClusterType, "*"}:        1,
		{generate.RouteType, "http.80"}:    2,
		{generate.ClusterType, reviewsAll}: 1,
	} {
		if got := len(made[name]); got != want {
			t.Errorf("%s %s is made %d times, want %d", shortType(name.typeURL), name.name, got, want)
		}
	}
}
