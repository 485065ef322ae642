package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// knowsTable is knows with a table of the caller's.
func (p *pod) knowsTable(name string, port uint16, change func(*conf.RouteTable), routes ...*conf.Route) {
	p.knows(name, port, routes...)
	p.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		for _, t := range names {
			change(t.Routes)
		}
	})
}

func TestClusterByHeader(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	client.knows("reviews", 9080, &conf.Route{Name: "test", Forward: &conf.Forward{ClusterHeader: "x-to", UnknownStatus: 404}})
	for to, want := range map[string]int{"reviews": 200, "nowhere": 404, "": 404} {
		if status, body, _ := client.get(client.client(), "http://reviews:9080/", "X-To", to); status != want {
			t.Errorf("cluster %q: %d %q, want %d", to, status, body, want)
		}
	}
}

// TestHeaderChangesInOrder: the table has the last word, or else the most specific; a split's changes count in both directions.
func TestHeaderChangesInOrder(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-By"))
	}))
	by := func(who string) conf.HeaderChange {
		return conf.HeaderChange{Set: []conf.HeaderValue{{Name: "X-By", Value: who}}}
	}
	for _, specific := range []bool{false, true} {
		r := forwardTo("reviews")
		r.Request, r.Response = by("route"), by("route")
		r.Forward.Clusters[0].HeaderChange, r.Forward.Clusters[0].Response = by("split"), by("split")
		client.knowsTable("reviews", 9080, func(t *conf.RouteTable) {
			t.SpecificLast, t.Request, t.Response = specific, by("table"), by("table")
			t.Hosts[0].HeaderChange, t.Hosts[0].Response = by("host"), by("host")
		}, r)
		want := map[bool]string{false: "table", true: "split"}[specific]
		if _, body, h := client.get(client.client(), "http://reviews:9080/"); body != want || h.Get("X-By") != want {
			t.Errorf("specific last %v: the request is changed by %s, the response by %s", specific, body, h.Get("X-By"))
		}
	}
}

// failing answers a number of requests with a status, and then with the number of requests that came.
func failing(times int64, status int, header ...string) (http.Handler, *atomic.Int64) {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) <= times {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
		fmt.Fprint(w, r.Header.Get("X-Envoy-Attempt-Count"), " ", r.Header.Get("X-Envoy-Retry-On"))
	}), &n
}

func TestRequestsAskForRetriesAndTimeouts(t *testing.T) {
	client, server := pair(t)
	handler, asked := failing(2, 500)
	server.serve(9080, handler)
	client.knowsTable("reviews", 9080, func(t *conf.RouteTable) {
		t.Hosts[0].AttemptCount, t.Hosts[0].AttemptCountBack = true, true
	}, forwardTo("reviews"))
	status, body, h := client.get(client.client(), "http://reviews:9080/", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "3")
	if status != 200 || body != "3 " || h.Get("X-Envoy-Attempt-Count") != "3" || asked.Load() != 3 {
		t.Errorf("%d %q after %d attempts, told %q", status, body, asked.Load(), h.Get("X-Envoy-Attempt-Count"))
	}
	hang := make(chan struct{})
	defer close(hang)
	client2, server2 := pair(t)
	server2.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	if status, body, _ := client2.get(client2.client(), "http://reviews:9080/", "x-envoy-upstream-rq-timeout-ms", "20"); status != 504 {
		t.Errorf("after the time-out: %d %q", status, body)
	}
}

func TestRetryWaitsAsLongAsTheUpstreamSays(t *testing.T) {
	client, server := pair(t)
	handler, asked := failing(1, 429, "Retry-After", "1")
	server.serve(9080, handler)
	r := forwardTo("reviews")
	r.Forward.Retry = &conf.Retry{On: conf.OnStatus, StatusCodes: []int{429}, Attempts: 2, BackOff: time.Millisecond,
		RateLimited: &conf.RateLimited{Headers: []conf.ResetHeader{{Name: "retry-after"}}, Max: time.Minute}}
	client.knows("reviews", 9080, r)
	start := time.Now()
	status, _, _ := client.get(client.client(), "http://reviews:9080/")
	if took := time.Since(start); status != 200 || asked.Load() != 2 || took < time.Second {
		t.Errorf("%d after %d attempts and %v", status, asked.Load(), took)
	}
}

// TestRetriesWhereItFailed: with consistent hashing, another attempt goes to another endpoint or to the same one, as the route says.
func TestRetriesWhereItFailed(t *testing.T) {
	for _, c := range []struct {
		otherHosts bool
		endpoints  int
	}{{true, 2}, {false, 1}} {
		m := newMesh(t)
		client, a, b := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil)
		var asked sync.Map
		busy := func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { asked.Store(name, true); w.WriteHeader(503) }
		}
		a.serve(9080, busy("a"))
		b.serve(9080, busy("b"))
		cluster := meshCluster("reviews", 9080, a, b)
		cluster.Policy = conf.Maglev
		client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters["reviews"] = cluster })
		r := forwardTo("reviews")
		r.Forward.Hash = []conf.HashPolicy{{Header: "user"}}
		r.Forward.Retry = &conf.Retry{On: conf.OnGatewayError, Attempts: 3, BackOff: time.Millisecond, OtherHosts: c.otherHosts}
		client.knows("reviews", 9080, r)
		if status, _, _ := client.get(client.client(), "http://reviews:9080/", "user", "jason"); status != 503 {
			t.Errorf("status %d", status)
		}
		n := 0
		asked.Range(func(any, any) bool { n++; return true })
		if n != c.endpoints {
			t.Errorf("other hosts %v: %d endpoints were asked, want %d", c.otherHosts, n, c.endpoints)
		}
	}
}

// TestFirstByteIsWaitedForUpToTheIdleTime: an attempt that says nothing is given up, one that has begun may go on.
func TestFirstByteIsWaitedForUpToTheIdleTime(t *testing.T) {
	client, server := pair(t)
	const idle = 700 * time.Millisecond
	var n atomic.Int64
	hang := make(chan struct{})
	defer close(hang)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			<-hang
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-time.After(idle + idle/2):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, strings.Repeat("x", 10))
	}))
	r := forwardTo("reviews")
	r.Forward.Retry = &conf.Retry{On: conf.OnReset | conf.OnGatewayError, Attempts: 1, PerTryIdle: idle}
	client.knows("reviews", 9080, r)
	status, body, _ := client.get(client.client(), "http://reviews:9080/")
	for try := 0; try < 20 && status == 504; try++ { // on a slow machine the second attempt may not begin in time
		n.Store(0)
		status, body, _ = client.get(client.client(), "http://reviews:9080/")
	}
	if status != 200 || len(body) != 10 || n.Load() != 2 {
		t.Errorf("%d %q after %d attempts", status, body, n.Load())
	}
}

// TestPoliciesOfRoutes: what a route says of a filter's policies takes the place of the listener's.
func TestPoliciesOfRoutes(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	refusing := func(field string) *conf.RBAC {
		return &conf.RBAC{Filter: "rbac", Action: conf.Deny, Policies: []conf.RBACPolicy{{Name: field, Principals: []*conf.Rule{{Any: true}},
			Permissions: []*conf.Rule{{Header: &conf.HeaderMatch{Name: field, Present: true}}}}}}
	}
	fixed := refusing("fixed")
	fixed.Filter = ""
	at := func(path string, own map[string][]*conf.RBAC) *conf.Route {
		r := forwardTo(wire.InboundPassthroughCluster)
		r.Match.Path, r.RBAC = conf.StringMatch{Kind: conf.PrefixOf, Value: path}, own
		return r
	}
	l := strict(9080, fixed, refusing("listener"))
	for _, c := range l.Chains {
		if c.HTTP != nil {
			c.HTTP.Routes = table(at("/own", map[string][]*conf.RBAC{"rbac": {refusing("route")}}), at("/none", map[string][]*conf.RBAC{"rbac": nil}), at("/", nil))
		}
	}
	server.accepts(l)
	for ask, want := range map[string]int{"/ listener": 403, "/ route": 200, "/own listener": 200, "/own route": 403, "/none listener": 200, "/none fixed": 403, "/own fixed": 403} {
		path, field, _ := strings.Cut(ask, " ")
		if status, body, _ := client.get(client.client(), "http://reviews:9080"+path, field, "1"); status != want {
			t.Errorf("%s: %d %q, want %d", ask, status, body, want)
		}
	}
}

// TestSilence: the route's idle time holds while the answer is waited for.
func TestSilence(t *testing.T) {
	client, server := pair(t)
	hang := make(chan struct{})
	defer close(hang)
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	r := forwardTo("reviews")
	r.Forward.IdleTimeout = 20 * time.Millisecond
	client.knows("reviews", 9080, r)
	if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 504 || !strings.Contains(body, "nothing happened for 20ms") {
		t.Errorf("%d %q", status, body)
	}
	eventually(t, "log", func() bool { return client.logged(" 504 SI stream_idle_timeout") })
}

// TestOptionsAsterisk: the question to the server in general needs no route.
func TestOptionsAsterisk(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("frontend", "10.0.0.1", nil), m.pod("echo", "10.0.0.2", nil)
	client.cluster("echo", 9080, server)
	r := forwardTo("echo")
	r.Match.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: "/"}
	client.knows("echo", 9080, r)
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "OPTIONS * HTTP/1.1\r\nHost: echo\r\n\r\nGET * HTTP/1.1\r\nHost: echo\r\n\r\n")
	in := bufio.NewReader(c)
	for _, want := range []int{200, 400} {
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != want || want == 200 && res.ContentLength != 0 {
			t.Fatalf("%+v, %v, want %d", res, err, want)
		}
		io.Copy(io.Discard, res.Body)
	}
	eventually(t, "log", func() bool { return client.logged("OPTIONS * HTTP/1.1", " 200 ") })
}
