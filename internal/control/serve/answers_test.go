package serve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
)

// worldClient is a raw state-of-the-world client.
type worldClient struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	names  map[string][]string // that it asks for, by type
	first  bool
}

func (p *plane) connectWorld() *worldClient {
	p.t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.dial(p.certify("default", "productpage", time.Hour))).StreamAggregatedResources(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return &worldClient{t: p.t, stream: stream, names: map[string][]string{}, first: true}
}

func (c *worldClient) send(r *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	if c.first {
		r.Node, c.first = xdsNode(productpage()), false
	}
	r.ResourceNames = c.names[r.GetTypeUrl()]
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *worldClient) ask(typeURL string, names ...string) {
	c.t.Helper()
	c.names[typeURL] = names
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL})
}

// recv receives a response of a type with that many resources.
func (c *worldClient) recv(typeURL string, count int) *discoveryv3.DiscoveryResponse {
	c.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	if r.GetTypeUrl() != typeURL || len(r.GetResources()) != count {
		c.t.Fatalf("got %d of %s, want %d of %s", len(r.GetResources()), shortType(r.GetTypeUrl()), count, shortType(typeURL))
	}
	return r
}

func (c *worldClient) ack(r *discoveryv3.DiscoveryResponse) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo()})
}

func (c *worldClient) nack(r *discoveryv3.DiscoveryResponse, reason string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: reason}})
}

func (c *client) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

const (
	ratingsHost = "ratings.default.svc.cluster.local"
	ratingsAll  = "outbound|9080||" + ratingsHost
)

// both is the mesh with a service ratings as well; an address changes the endpoints of each.
func both(reviews, ratings string) *model.Mesh {
	return mesh(func(m *model.Mesh) {
		s, e := *m.Services.Get(reviewsHost), *m.Services.Get(reviewsHost).Endpoints[0]
		e.Address = ratings
		s.Host, s.Name, s.Endpoints, s.Addresses = ratingsHost, "ratings", []*model.Endpoint{&e}, []netip.Addr{netip.MustParseAddr("10.78.0.3")}
		m.Services.Put(s.Host, &s)
		m.ByAddress.Put(s.Addresses[0], []string{s.Host})
	}, reviews)
}

// told awaits a state of the only client, and what it holds of a type: "2/5" as `weft status` has it, and what it refused, in words.
func (p *plane) told(s State, typeURL, held string, refusals ...string) {
	p.t.Helper()
	var got string
	want := fmt.Sprint(s, " ", held, " ", refusals)
	p.awaitOr(func() string { return fmt.Sprintf("%s: got %s, want %s", shortType(typeURL), got, want) }, func() bool {
		all := p.server.Clients()
		if len(all) != 1 {
			return false
		}
		var has string
		var nacks []string
		for _, t := range all[0].Types {
			if t.Type == shortType(typeURL) {
				has = fmt.Sprintf("%d/%d", t.Resources, t.Resources+t.Stale)
				for _, n := range t.Nacks {
					nacks = append(nacks, strings.Join(n.Resources, ",")+": "+n.Message)
				}
			}
		}
		got = fmt.Sprint(all[0].State, " ", has, " ", nacks)
		return got == want
	})
	var found []string
	for _, f := range p.server.Findings() {
		if f.Code == "ProxyRefused" {
			found = append(found, f.Message)
		}
	}
	for _, r := range refusals {
		names, reason, _ := strings.Cut(r, ": ")
		if text := fmt.Sprintf("refused %s and keeps the configuration before: %s", strings.ReplaceAll(names, ",", ", "), reason); !slices.Contains(found, text) {
			p.t.Errorf("no finding says %q, but %q", text, found)
		}
	}
	if len(found) != len(refusals) {
		p.t.Errorf("findings %q for refusals %q", found, refusals)
	}
}

// TestRefusalsByResource: each resource is refused until a later version of it is accepted, it is refused in other words, or it is gone.
func TestRefusalsByResource(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe(generate.ClusterType, "*")
	first := c.recv()
	others := slices.DeleteFunc(contents(first), func(n string) bool { return n == reviewsAll })
	rest := strings.Join(others, ",")
	c.nack(generate.ClusterType, first.GetNonce(), "none of them")
	p.told(Refused, generate.ClusterType, "0/4", rest+","+reviewsAll+": none of them")

	limited := func(m *model.Mesh) *model.Mesh {
		m.Destinations.Put(reviewsHost, []*model.Destination{{Ref: model.Ref{Kind: "DestinationRule", Namespace: "default", Name: "reviews"},
			Host: reviewsHost, Policy: model.TrafficPolicy{Pool: &model.ConnectionPool{MaxConnections: 7}}}})
		return m
	}
	p.publish(limited(both("10.77.0.1", "10.77.0.2")))
	second := c.recv()
	if got := contents(second); !slices.Equal(got, []string{ratingsAll, reviewsAll}) {
		t.Fatalf("got %v", got)
	}
	c.nack(generate.ClusterType, second.GetNonce(), "nor these")
	p.told(Refused, generate.ClusterType, "0/5", rest+": none of them", ratingsAll+","+reviewsAll+": nor these")

	p.publish(limited(mesh(nil, "10.77.0.1")))
	third := c.recv()
	c.ack(third)
	p.told(Refused, generate.ClusterType, "0/4", rest+": none of them", reviewsAll+": nor these")
	p.publish(mesh(nil, "10.77.0.1"))
	c.want(generate.ClusterType, reviewsAll)
	p.told(Refused, generate.ClusterType, "1/4", rest+": none of them")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ClusterType, ResourceNamesSubscribe: others})
	c.want(generate.ClusterType, others...)
	p.told(Synced, generate.ClusterType, "4/4")
}

// TestRefusesWhatIsGone: a client can refuse what it has nothing of afterwards; its next answer ends that.
func TestRefusesWhatIsGone(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(both("10.77.0.1", "10.77.0.2"))
	c := p.connect(productpage())
	c.subscribe(generate.ClusterType, "*")
	c.take(generate.ClusterType)
	p.publish(mesh(nil, "10.77.0.1"))
	c.nack(generate.ClusterType, c.recv().GetNonce(), "still needed")
	p.told(Refused, generate.ClusterType, "4/4", ratingsAll+": still needed")
	p.publish(both("10.77.0.1", "10.77.0.2"))
	c.want(generate.ClusterType, ratingsAll)
	p.told(Synced, generate.ClusterType, "5/5")

	p.publish(mesh(nil, "10.77.0.1"))
	c.nack(generate.ClusterType, c.recv().GetNonce(), "still needed")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ClusterType, ResourceNamesUnsubscribe: []string{"*"}})
	c.subscribe(generate.ClusterType, reviewsAll)
	r := c.recv()
	c.nack(generate.ClusterType, r.GetNonce(), "not this one")
	p.told(Refused, generate.ClusterType, "0/1", reviewsAll+": not this one")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ClusterType, ResourceNamesUnsubscribe: []string{reviewsAll}})
	p.told(Synced, generate.ClusterType, "0/0")
}

// TestManyRefusals: what is kept of them is bounded, and no resource is lost.
func TestManyRefusals(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	for i := range 3 * maxRefusals {
		c.subscribe(generate.ListenerType, fmt.Sprintf("%02d.example:80", i))
		c.nack(generate.ListenerType, c.recv().GetNonce(), fmt.Sprint("no ", i))
	}
	c.quiet()
	lds := p.server.Clients()[0].Types[1]
	all := 0
	for _, n := range lds.Nacks {
		all += len(n.Resources) + n.More
	}
	if last := lds.Nacks[len(lds.Nacks)-1]; len(lds.Nacks) != maxRefusals || all != 3*maxRefusals || last.Message != fmt.Sprint("no ", 3*maxRefusals-1) {
		t.Errorf("%d refusals of %d resources, %+v", len(lds.Nacks), all, last)
	}
}

// TestWorldRefusals: of types of which a response has not all, other resources' acks do not end a refusal; the resource's end does.
func TestWorldRefusals(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(both("10.77.0.1", "10.77.0.2"))
	c := p.connectWorld()
	c.ask(generate.EndpointsType, reviewsAll, ratingsAll)
	c.ack(c.recv(generate.EndpointsType, 2))
	p.publish(both("10.77.0.3", "10.77.0.2"))
	c.nack(c.recv(generate.EndpointsType, 1), "no")
	p.publish(both("10.77.0.3", "10.77.0.4"))
	c.ack(c.recv(generate.EndpointsType, 1))
	p.told(Refused, generate.EndpointsType, "1/2", reviewsAll+": no")
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	p.told(Synced, generate.EndpointsType, "0/0")

	c.ask(generate.ClusterType)
	c.nack(c.recv(generate.ClusterType, 3), "none")
	p.publish(mesh(nil, "10.77.0.1"))
	c.ack(c.recv(generate.ClusterType, 4))
	c.ack(c.recv(generate.EndpointsType, 1))
	p.told(Synced, generate.ClusterType, "4/4")
}

// TestWorldKnowsWhatIsGone: a client that asks for a listener by name has accepted that it is gone with the list without it.
func TestWorldKnowsWhatIsGone(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connectWorld()
	c.ask(generate.ListenerType, reviewsHost+":9080")
	c.ack(c.recv(generate.ListenerType, 1))
	c.ask(generate.EndpointsType, reviewsAll)
	c.ack(c.recv(generate.EndpointsType, 1))
	p.publish(&model.Mesh{Settings: model.Settings{ClusterDomain: "cluster.local"}})
	c.ack(c.recv(generate.ListenerType, 0))
	p.told(Synced, generate.ListenerType, "0/0")
	p.told(Synced, generate.EndpointsType, "0/0")
}

// TestSkippedResponses: a client that answers a later response has accepted those before, unless it says otherwise.
func TestSkippedResponses(t *testing.T) {
	t.Run("state of the world", func(t *testing.T) {
		p := newPlane(t, Options{})
		p.publish(both("10.77.0.1", "10.77.0.2"))
		c := p.connectWorld()
		c.ask(generate.EndpointsType, reviewsAll, ratingsAll)
		c.recv(generate.EndpointsType, 2)
		p.publish(both("10.77.0.3", "10.77.0.2"))
		second := c.recv(generate.EndpointsType, 1)
		p.told(Waiting, generate.EndpointsType, "0/2")
		c.ack(second)
		p.told(Synced, generate.EndpointsType, "2/2")
		p.publish(both("10.77.0.3", "10.77.0.4"))
		third := c.recv(generate.EndpointsType, 1)
		p.publish(both("10.77.0.5", "10.77.0.4"))
		c.nack(c.recv(generate.EndpointsType, 1), "no")
		c.nack(third, "too late") // its nonce is stale
		p.told(Refused, generate.EndpointsType, "1/2", reviewsAll+": no")
	})
	t.Run("delta", func(t *testing.T) {
		p := newPlane(t, Options{})
		p.publish(both("10.77.0.1", "10.77.0.2"))
		c := p.connect(productpage())
		c.subscribe(generate.EndpointsType, reviewsAll, ratingsAll)
		first := c.recv()
		p.publish(both("10.77.0.3", "10.77.0.2"))
		second := c.recv()
		p.told(Waiting, generate.EndpointsType, "0/2")
		c.ack(second)
		p.told(Synced, generate.EndpointsType, "2/2")
		c.nack(generate.EndpointsType, first.GetNonce(), "late") // of the reviews it has accepted a later version
		p.told(Refused, generate.EndpointsType, "1/2", ratingsAll+": late")
		p.publish(both("10.77.0.3", "10.77.0.4"))
		third := c.recv()
		p.publish(both("10.77.0.3", "10.77.0.5"))
		c.nack(generate.EndpointsType, c.recv().GetNonce(), "no")
		c.ack(third) // which says nothing of the version after
		c.quiet()
		p.told(Refused, generate.EndpointsType, "1/2", ratingsAll+": no")
	})
}

// TestSilence: however much a client that answers nothing is sent, it is known since when; one answer is enough then.
func TestSilence(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, reviewsAll)
	r := c.recv()
	heard := time.Now()
	for i := range 2 * maxInFlight {
		p.publish(mesh(nil, fmt.Sprintf("10.77.1.%d", i)))
		r = c.recv()
	}
	p.told(Waiting, generate.EndpointsType, "0/1")
	if got := p.server.Clients()[0]; got.Since.After(heard) || got.Types[0].Pending != maxInFlight {
		t.Errorf("waiting since %v, sent first before %v; %+v", got.Since, heard, got.Types[0])
	}
	c.ack(r)
	p.told(Synced, generate.EndpointsType, "1/1")
}

// TestWildcardRefuses: what a wildcard lists is known to be refused or accepted, each for itself, however many responses are under way.
func TestWildcardRefuses(t *testing.T) {
	const services = 5000
	p := newPlane(t, Options{})
	p.publish(wide(services, "10.77.0.1"))
	c := p.connect(productpage())
	c.subscribe(generate.ClusterType, "*")
	var sent []*discoveryv3.DeltaDiscoveryResponse
	n := 0
	for n < services {
		r := c.recv()
		sent, n = append(sent, r), n+len(r.GetResources())
	}
	if len(sent) < 2 {
		t.Fatalf("%d clusters came in one response: there are to be several", n)
	}
	for _, r := range sent {
		c.nack(generate.ClusterType, r.GetNonce(), "no")
	}
	p.await("each is refused", func() bool {
		refused := 0
		for _, nack := range p.server.Clients()[0].Types[0].Nacks {
			refused += len(nack.Resources) + nack.More
		}
		return refused == n
	})
}

// TestAnswersWakeWhoWaits: the function that Publish gives returns with the last answer, or with the client's end.
func TestAnswersWakeWhoWaits(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	a, b := p.watching(), p.watching()
	a.quiet()
	b.quiet()
	waits := func(address string) <-chan struct{} {
		answered := p.server.Publish(mesh(nil, address), model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
		done := make(chan struct{})
		go func() { // ends with the answers
			defer close(done)
			answered(t.Context())
		}()
		return done
	}
	open := func(done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
			t.Fatal("it did not wait for all answers")
		default:
		}
	}
	done := waits("10.77.0.2")
	a.want(generate.EndpointsType, reviewsAll)
	a.quiet()
	r := b.recv()
	open(done)
	b.nack(r.GetTypeUrl(), r.GetNonce(), "an answer too")
	<-done

	done = waits("10.77.0.3")
	a.want(generate.EndpointsType, reviewsAll)
	b.recv()
	open(done)
	b.cancel()
	<-done

	done = waits("10.77.0.4")
	a.recv()
	open(done)
	a.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.EndpointsType, ResourceNamesUnsubscribe: []string{reviewsAll}})
	a.quiet()
	open(done) // what was sent is to be answered all the same
	ctx, cancel := context.WithCancel(t.Context())
	answered := p.server.Publish(mesh(nil, "10.77.0.5"), model.Delta{All: true})
	cancel()
	answered(ctx)
	a.cancel()
	<-done
}

// TestAnsweredLastsAsLongAsTheChange: what a client asks for because of an update, before it acknowledges that, belongs to the change.
func TestAnsweredLastsAsLongAsTheChange(t *testing.T) {
	const other = "outbound|9080||other.default.svc.cluster.local"
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	a, idle := p.connect(productpage()), p.watching()
	a.subscribe(generate.RouteType, reviewsHost+":9080")
	a.want(generate.RouteType, reviewsHost+":9080")
	a.quiet()
	idle.quiet()

	mark := p.server.Mark()
	p.server.Publish(mesh(routed("other.default.svc.cluster.local"), "10.77.0.1"), model.Delta{Routes: map[string]bool{reviewsHost: true}})
	done := make(chan struct{})
	go func() { // ends with the answers
		defer close(done)
		p.server.Answered(t.Context(), mark, time.Hour)
	}()
	r := a.recv()
	a.subscribe(generate.ClusterType, other)
	a.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.RouteType, ResponseNonce: r.GetNonce()})
	r = a.recv()
	a.quiet() // both requests were read
	select {
	case <-done:
		t.Fatal("the change was taken for over")
	default:
	}
	a.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: generate.ClusterType, ResponseNonce: r.GetNonce()})
	<-done
}

// TestSilentClientsAreNotWaitedFor: one that has not answered for long does not hold up whoever changes something.
func TestSilentClientsAreNotWaitedFor(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	c := p.watching()
	mark := p.server.Mark()
	publish := func(address string) {
		p.server.Publish(mesh(nil, address), model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
		c.recv()
	}
	publish("10.77.0.2")
	publish("10.77.0.3")
	p.server.Answered(t.Context(), mark, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.server.Answered(ctx, mark, time.Hour) // which would wait
	p.server.Answered(t.Context(), p.server.Mark(), time.Hour)
}
