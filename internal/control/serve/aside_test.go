package serve

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
)

// madeAside has what has more than one part made aside, as if it were large.
func (p *plane) madeAside() {
	p.server.cache.mu.Lock()
	defer p.server.cache.mu.Unlock()
	p.server.cache.aside.atOnce = 1
}

// catchUp takes everything, what is made aside included.
func (m *mirror) catchUp(p *plane) {
	m.t.Helper()
	m.sync() // so that the server has heard all questions
	for busy := true; busy; m.sync() {
		p.server.cache.mu.Lock()
		busy = p.server.cache.aside.working
		p.server.cache.mu.Unlock()
	}
}

// crafted is a plane whose large resources are made when the test says so.
type crafted struct {
	*plane
	mesh *model.Mesh
	// begun receives for each piece of work, which goes on when the test receives from it.
	begun chan struct{}
}

func newCrafted(t *testing.T) *crafted {
	p := &crafted{plane: newPlane(t, Options{}), mesh: ruled("v1", "v1"), begun: make(chan struct{})}
	p.publish(p.mesh)
	p.server.cache.mu.Lock()
	defer p.server.cache.mu.Unlock()
	p.server.cache.aside.pause = func() {
		select {
		case p.begun <- struct{}{}:
		case <-t.Context().Done():
		}
	}
	return p
}

// ruled is a mesh of two services, reviews with very many routes.
func ruled(reviews, ratings string) *model.Mesh {
	return mesh(func(m *model.Mesh) {
		s := *m.Services.Get(reviewsHost)
		s.Host, s.Name, s.Addresses = ratingsHost, "ratings", nil
		m.Services.Put(ratingsHost, &s)
		for host, version := range map[string]string{reviewsHost: reviews, ratingsHost: ratings} {
			set := &model.RouteSet{Ref: model.Ref{Kind: "VirtualService", Namespace: "default", Name: host[:7]}, Namespace: "default", Mesh: true, Hosts: []string{host}}
			parts := 1
			if host == reviewsHost {
				parts = maxAtOnce + 1
			}
			for i := range parts {
				set.HTTP = append(set.HTTP, model.HTTPRoute{Name: fmt.Sprintf("%s-%d", version, i), Destinations: []model.WeightedDestination{{Host: host}},
					Matches: []model.HTTPMatch{{Path: model.StringMatch{Exact: fmt.Sprintf("/%d", i)}}}})
			}
			m.RouteSets = append(m.RouteSets, set)
		}
	}, "10.77.0.1")
}

// change publishes a mesh with other routes of hosts.
func (p *crafted) change(to *model.Mesh, hosts ...string) {
	d := model.Delta{Routes: map[string]bool{}}
	for _, h := range hosts {
		d.Routes[h] = true
	}
	p.mesh = to
	p.server.Publish(to, d)
}

// works awaits that something is being made aside.
func (p *crafted) works() {
	p.t.Helper()
	select {
	case <-p.begun:
	case <-time.After(patience):
		p.t.Fatal("nothing is made aside")
	}
}

// finish lets the work go on to its end.
func (p *crafted) finish() {
	for {
		p.server.cache.mu.Lock()
		working := p.server.cache.aside.working
		p.server.cache.mu.Unlock()
		if !working {
			return
		}
		select {
		case <-p.begun:
		default:
			runtime.Gosched()
		}
	}
}

// TestLargeHoldsUpNobody: while very many routes are being made, others are told what changed for them, and the clients of the routes
// whatever else did but what is gone.
func TestLargeHoldsUpNobody(t *testing.T) {
	p := newCrafted(t)
	many, few := p.connect(productpage()), p.connect(productpage())
	few.subscribe(generate.RouteType, ratingsHost+":9080")
	few.want(generate.RouteType, ratingsHost+":9080")
	many.subscribe(generate.RouteType, reviewsHost+":9080")
	p.works() // also for the first time
	many.quiet()
	p.change(ruled("v1", "v2"), ratingsHost)
	few.want(generate.RouteType, ratingsHost+":9080")
	p.finish()
	many.want(generate.RouteType, reviewsHost+":9080")
	many.subscribe(generate.ListenerType, "ratings:9080")
	many.want(generate.ListenerType, "ratings:9080")
	many.subscribe(generate.EndpointsType, reviewsAll)
	many.want(generate.EndpointsType, reviewsAll)

	p.change(ruled("v2", "v2"), reviewsHost)
	p.works()
	// ratings goes, and the endpoints of reviews change.
	to := mesh(nil, "10.77.0.2")
	to.RouteSets = p.mesh.RouteSets
	p.server.Publish(to, model.Delta{Services: map[string]bool{ratingsHost: true}, Endpoints: map[string]bool{reviewsHost: true}})
	few.want(generate.RouteType, "-"+ratingsHost+":9080")
	many.want(generate.EndpointsType, reviewsAll)
	many.quiet()
	if c := p.clientsBy(Behind); len(c) != 1 || c[0].Reason != "what changed is large, and still being made" || !c[0].Owed {
		t.Errorf("%+v", c)
	}
	p.finish()
	many.want(generate.RouteType, reviewsHost+":9080")
	many.want(generate.ListenerType, "-ratings:9080")
	many.quiet()
}

func (p *plane) clientsBy(s State) []Client {
	return slices.DeleteFunc(p.server.Clients(), func(c Client) bool { return c.State != s })
}

// TestLargeIsOvertaken: what was made of a mesh that is old by then goes out, and is followed by what the newest one has.
func TestLargeIsOvertaken(t *testing.T) {
	p := newCrafted(t)
	many := p.connect(productpage())
	many.subscribe(generate.RouteType, reviewsHost+":9080")
	p.works()
	p.finish()
	many.want(generate.RouteType, reviewsHost+":9080")
	p.change(ruled("v2", "v1"), reviewsHost)
	p.works()
	p.change(ruled("v3", "v1"), reviewsHost)
	p.change(ruled("v4", "v1"), reviewsHost)
	p.finish()
	for version := ""; version != "v4"; {
		r, table := many.recv(), &routev3.RouteConfiguration{}
		many.ack(r)
		if err := r.GetResources()[0].GetResource().UnmarshalTo(table); err != nil {
			t.Fatal(err)
		}
		version, _, _ = strings.Cut(table.GetVirtualHosts()[0].GetRoutes()[0].GetName(), "-")
		if version != "v2" && version != "v4" {
			t.Fatalf("got routes of %s", version)
		}
	}
	many.quiet()
}

// TestLargeWorld: a state-of-the-world client is told everything together.
func TestLargeWorld(t *testing.T) {
	p := newCrafted(t)
	many := p.connectWorld()
	many.ask(generate.EndpointsType, reviewsAll)
	many.ack(many.recv(generate.EndpointsType, 1))
	many.ask(generate.RouteType, reviewsHost+":9080")
	p.works()
	p.finish()
	many.ack(many.recv(generate.RouteType, 1))

	p.change(ruled("v2", "v1"), reviewsHost)
	p.works()
	to := mesh(nil, "10.77.0.2")
	to.RouteSets = p.mesh.RouteSets
	p.server.Publish(to, model.Delta{Endpoints: map[string]bool{reviewsHost: true}})
	p.finish()
	many.ack(many.recv(generate.EndpointsType, 1))
	many.ack(many.recv(generate.RouteType, 1))
}

// TestLargeIsForgotten: what nobody subscribes to any more is not made, and what everything replaced is nobody's.
func TestLargeIsForgotten(t *testing.T) {
	p := newCrafted(t)
	many := p.connect(productpage())
	many.subscribe(generate.RouteType, reviewsHost+":9080")
	p.works()
	p.publish(ruled("v2", "v1")) // all anew
	p.finish()
	many.want(generate.RouteType, reviewsHost+":9080")
	many.quiet()
	p.change(ruled("v3", "v1"), reviewsHost)
	p.works()
	many.cancel()
	p.await("the stream has ended", func() bool { return p.metric("pilot_xds", "") == 0 })
	p.finish()
	p.server.cache.mu.Lock()
	defer p.server.cache.mu.Unlock()
	if p.server.cache.size != 0 {
		t.Errorf("%d entries are left", p.server.cache.size)
	}
}
