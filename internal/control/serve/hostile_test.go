package serve

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// hostile is another process of the same workload.
func hostile() wire.Node {
	n := productpage()
	n.Name = "hostile-0"
	return n
}

// spared is how much of memory a client may make the server keep, or how late it may make others.
const (
	sparedMemory = 48 << 20
	sparedTime   = time.Minute // so that it is not the machine that is late
)

// served fails when a client does not get the newest endpoints in time.
func (c *client) served(p *plane, mesh *model.Mesh) {
	c.t.Helper()
	start := time.Now()
	p.publish(mesh)
	c.want(generate.EndpointsType, reviewsAll)
	if d := time.Since(start); d > sparedTime {
		c.t.Errorf("the others waited %v", d)
	}
}

// watching connects a client of the endpoints.
func (p *plane) watching() *client {
	p.t.Helper()
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, reviewsAll)
	c.want(generate.EndpointsType, reviewsAll)
	return c
}

// awaitAlone waits until there is one client, in a state.
func (p *plane) awaitAlone(s State) {
	p.t.Helper()
	p.await("one client is "+string(s), func() bool {
		all := p.server.Clients()
		return len(all) == 1 && all[0].State == s
	})
}

func TestAMillionNames(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	good, bad := p.watching(), p.connect(hostile())
	before := inUse()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		names := make([]string, 10_000)
		for batch := range 100 {
			for i := range names {
				names[i] = fmt.Sprintf("name-%d-%d.example:80", batch, i)
			}
			r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ListenerType, ResourceNamesSubscribe: names}
			if batch == 0 {
				r.Node = bad.node
			}
			if bad.stream.Send(r) != nil {
				return
			}
		}
	}()
	var err error
	for err == nil {
		_, err = bad.stream.Recv()
	}
	<-sent
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	p.await("its names are forgotten", func() bool { return p.metric("weft_xds_subscriptions", "") == 1 })
	if grown := inUse() - before; grown > sparedMemory {
		t.Errorf("%d bytes are kept", grown)
	}
	good.served(p, mesh(nil, "10.77.0.2"))
}

// TestManyStreamsOfOne: a workload that opens streams without end gets hardly more for all of them than for a few.
func TestManyStreamsOfOne(t *testing.T) {
	const most, streams = 1000, 100
	p := newPlane(t, Options{MaxSubscriptions: most})
	p.publish(mesh(nil, "10.77.0.1"))
	id := p.certify("default", "hostile", time.Hour)
	refused := 0
	for i := range streams {
		bad := p.connectAs(wire.Node{Role: wire.Sidecar, Name: fmt.Sprintf("hostile-%d", i), Namespace: "default", ServiceAccount: "hostile"}, id)
		names := make([]string, most*3/4)
		for n := range names {
			names[n] = fmt.Sprintf("name-%d-%d.example:80", i, n)
		}
		if err := bad.stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: bad.node, TypeUrl: generate.ListenerType, ResourceNamesSubscribe: names}); err != nil {
			t.Fatal(err)
		}
		switch _, err := bad.stream.Recv(); {
		case status.Code(err) == codes.ResourceExhausted:
			refused++
		case err != nil:
			t.Fatal(err)
		}
	}
	if got := p.metric("weft_xds_subscriptions", ""); refused == 0 || got > 2*fullShares*most {
		t.Errorf("%v subscriptions are kept, %d streams refused", got, refused)
	}
	p.watching().served(p, mesh(nil, "10.77.0.2"))
}

func TestRefusesAllTheTime(t *testing.T) {
	log := &lengths{}
	p := newPlane(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	p.publish(mesh(nil, "10.77.0.1"))
	good, bad := p.watching(), p.connect(hostile())
	bad.follow()
	reason := strings.Repeat("no", 100_000)
	for i := range 50 {
		p.publish(mesh(routed(fmt.Sprintf("to-%d.example", i)), "10.77.0.1"))
		r := bad.recv()
		for range 10 { // the same nonce again says nothing new
			bad.nack(r.GetTypeUrl(), r.GetNonce(), reason)
		}
	}
	bad.quiet()
	for _, c := range p.server.Clients() {
		if raw, err := json.Marshal(c); err != nil || len(raw) > 20_000 || len(c.Reason) > 2*maxNackMessage {
			t.Errorf("a client's status has %d bytes, its reason %d (%v)", len(raw), len(c.Reason), err)
		}
	}
	if n := log.longest.Load(); n == 0 || n > 10_000 {
		t.Errorf("the longest line of the log has %d bytes", n)
	}
	f := p.server.Findings()
	if len(f) != 1 || len(f[0].Message) > 10_000 {
		t.Errorf("%d findings, the first with %d bytes", len(f), len(f[0].Message))
	}
	if got := p.metric("pilot_total_xds_rejects", "rds"); got != 50 {
		t.Errorf("%v refusals are counted, want 50", got)
	}
	good.served(p, mesh(routed("to-49.example"), "10.77.0.2"))
}

// lengths keeps how long the longest line of a log is.
type lengths struct{ longest atomic.Int64 }

func (l *lengths) Write(line []byte) (int, error) {
	if n := int64(len(line)); n > l.longest.Load() { // a log writes one line at a time
		l.longest.Store(n)
	}
	return len(line), nil
}

func TestFloodOfRequests(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	good, bad := p.watching(), p.connect(hostile())
	before := inUse()
	ended := make(chan struct{})
	go func() { // it never reads, and ends with its stream
		defer close(ended)
		node := bad.node
		for i := 0; ; i++ {
			r := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: generate.EndpointsType, ResourceNamesSubscribe: []string{reviewsAll}}
			if node = nil; bad.stream.Send(r) != nil {
				return
			}
		}
	}()
	for i := range 50 {
		good.served(p, mesh(nil, fmt.Sprintf("10.77.1.%d", i)))
	}
	if grown := inUse() - before; grown > sparedMemory {
		t.Errorf("%d bytes are kept", grown)
	}
	bad.cancel()
	<-ended
}

func TestForeignNonces(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, reviewsAll)
	first := c.recv()
	for _, nonce := range []string{"nonsense", "999999", "-1", strings.Repeat("9", 5000)} {
		c.nack(generate.EndpointsType, nonce, "why not")
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.EndpointsType, ResponseNonce: nonce})
	}
	c.quiet()
	pending := func() int {
		types := p.server.Clients()[0].Types
		return types[slices.IndexFunc(types, func(t TypeStatus) bool { return t.Type == "eds" })].Pending
	}
	if f := p.server.Findings(); len(f) != 0 || pending() != 1 {
		t.Errorf("findings %v, %d pending", f, pending())
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.EndpointsType, ResponseNonce: first.GetNonce()})
	p.await("it is known as accepted", func() bool { return pending() == 0 })
}

func TestUnsubscribes(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.watching()
	stop := func(typeURL, name string) {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: []string{name}})
	}
	stop(generate.EndpointsType, reviewsAll)
	stop(generate.EndpointsType, "never asked for")
	c.quiet()
	p.publish(mesh(nil, "10.77.0.2"))
	c.quiet()
	c.subscribe(generate.EndpointsType, reviewsAll)
	c.want(generate.EndpointsType, reviewsAll)

	// What a wildcard lists stays when its name is given up.
	c.subscribe(generate.ClusterType, "*")
	if got := c.take(generate.ClusterType); !slices.Contains(got, reviewsAll) {
		t.Fatalf("the wildcard gives %v", got)
	}
	c.subscribe(generate.ClusterType, reviewsAll)
	c.want(generate.ClusterType, reviewsAll)
	stop(generate.ClusterType, reviewsAll)
	c.want(generate.ClusterType, reviewsAll)
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	c.want(generate.EndpointsType, "-"+reviewsAll)
	if got := c.take(generate.ClusterType); !slices.Contains(got, "-"+reviewsAll) {
		t.Errorf("got %v", got)
	}
}

func TestUnknownType(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe("type.googleapis.com/made.up", "a")
	c.want("type.googleapis.com/made.up", "-a")
	c.follow()
}

// TestResumesAtAnotherServer goes on with what one server gave, at one that never saw the client.
func TestResumesAtAnotherServer(t *testing.T) {
	names := map[string]string{generate.ListenerType: reviewsName, generate.RouteType: reviewsHost + ":9080",
		generate.ClusterType: reviewsAll, generate.EndpointsType: reviewsAll}
	versions := map[string]map[string]string{}
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	for typeURL, name := range names {
		c.subscribe(typeURL, name)
		versions[typeURL] = map[string]string{name: c.recv().GetResources()[0].GetVersion()}
	}
	c.cancel()

	p = newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	p.publish(mesh(nil, "10.77.0.9"))
	c = p.connect(productpage())
	for typeURL, name := range names {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{name}, InitialResourceVersions: versions[typeURL]})
	}
	c.want(generate.EndpointsType, reviewsAll)
	c.quiet()
	p.awaitAlone(Synced)
}

// productpages is a mesh that expects the client of most tests.
func productpages(address string) *model.Mesh {
	return mesh(func(m *model.Mesh) {
		m.Workloads.Put("default/productpage-0", &model.Workload{Namespace: "default", Name: "productpage-0", ServiceAccount: "productpage"})
	}, address)
}

func TestTwoStreamsOfOneNode(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(productpages("10.77.0.1"))
	old, next := p.watching(), p.watching()
	p.publish(productpages("10.77.0.2"))
	old.want(generate.EndpointsType, reviewsAll)
	next.want(generate.EndpointsType, reviewsAll)
	old.cancel()
	p.await("the old stream has ended", func() bool { return p.metric("pilot_xds", "") == 1 })
	next.served(p, productpages("10.77.0.3"))
	next.quiet()
	p.awaitAlone(Synced)
	next.cancel()
	p.awaitAlone(Gone)
}

// TestConnectsAllTheTime: a client whose streams end soon after they began is not as good as any other.
func TestConnectsAllTheTime(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(productpages("10.77.0.1"))
	start := time.Now()
	for i := range manyReturns + 1 {
		c := p.watching()
		if i < manyReturns {
			p.awaitAlone(Synced)
			c.cancel()
			p.awaitAlone(Gone)
			continue
		}
		p.awaitAlone(Reconnecting)
		p.refusesAfter(c, "3 times in the last minute; eds: no")
		c.cancel()
	}
	p.await("it has left", func() bool { return p.metric("pilot_xds", "") == 0 })
	p.awaitAlone(Reconnecting)
	c := p.server.Clients()[0]
	if !strings.Contains(c.Reason, "3 times") || c.Since.Before(start) {
		t.Errorf("%s since %v", c.Reason, c.Since)
	}
}

// refusesAfter has a client that comes back all the time refuse the endpoints, which counts more, and accept others.
func (p *plane) refusesAfter(c *client, reason string) {
	p.t.Helper()
	p.publish(productpages("10.77.0.2"))
	c.nack(generate.EndpointsType, c.recv().GetNonce(), "no")
	p.awaitAlone(Refused)
	if got := p.server.Clients()[0].Reason; !strings.HasSuffix(got, reason) {
		p.t.Errorf("the reason is %q, want ...%q", got, reason)
	}
	p.publish(productpages("10.77.0.3"))
	c.want(generate.EndpointsType, reviewsAll)
	p.awaitAlone(Reconnecting)
}

// TestNeverReads lets everything change while a client reads nothing.
func TestNeverReads(t *testing.T) {
	p := newPlane(t, Options{})
	large := func(n int) *model.Mesh {
		return mesh(func(m *model.Mesh) {
			r := &model.RouteSet{Ref: model.Ref{Name: fmt.Sprint(n)}, Namespace: "default", Mesh: true, Hosts: []string{reviewsHost}}
			for range 2000 {
				r.HTTP = append(r.HTTP, model.HTTPRoute{Name: strings.Repeat("x", 500),
					Matches:      []model.HTTPMatch{{Path: model.StringMatch{Exact: "/" + fmt.Sprint(n)}}},
					Destinations: []model.WeightedDestination{{Host: reviewsHost}}})
			}
			m.RouteSets = []*model.RouteSet{r}
		}, fmt.Sprintf("10.77.0.%d", n))
	}
	p.publish(large(1))
	good, bad := p.watching(), p.connect(hostile())
	bad.subscribe(generate.RouteType, reviewsHost+":9080")
	before := inUse()
	for n := 2; n < 60; n++ {
		good.served(p, large(n))
	}
	if grown := inUse() - before; grown > sparedMemory/2 {
		t.Errorf("%d bytes are kept", grown)
	}
	p.await("the client counts as slow", func() bool {
		return slices.ContainsFunc(p.server.Clients(), func(c Client) bool { return c.Name == "hostile-0" && c.State == Slow })
	})
}

// TestStateOfTheWorldOrder replaces a service by another one: what is new comes first, and what is gone goes last, after all that
// referred to it.
func TestStateOfTheWorldOrder(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connectWorld()
	want := func(typeURL string, count int) {
		t.Helper()
		c.ack(c.recv(typeURL, count))
	}
	c.ask(generate.ListenerType, reviewsHost+":9080")
	want(generate.ListenerType, 1)
	c.ask(generate.ClusterType)
	want(generate.ClusterType, 4) // that of reviews, and three without a service

	p.publish(mesh(func(m *model.Mesh) {
		s := *m.Services.Get(reviewsHost)
		s.Host, s.Name = "ratings.default.svc.cluster.local", "ratings"
		m.Services.Delete(reviewsHost)
		m.Services.Put(s.Host, &s)
		m.ByAddress.Put(s.Addresses[0], []string{s.Host})
	}, "10.77.0.1"))
	want(generate.ClusterType, 5)
	want(generate.ListenerType, 0)
	want(generate.ClusterType, 4)
	p.publish(mesh(nil, "10.77.0.1"))
	want(generate.ClusterType, 5)
	want(generate.ListenerType, 1)
	want(generate.ClusterType, 4)
}
