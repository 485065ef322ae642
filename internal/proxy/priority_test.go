package proxy

import (
	"net/http"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/admin"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

// TestPriorities has each priority held to the limits of its own, on connections of its own.
func TestPriorities(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	entered, leave := make(chan string), make(chan struct{})
	server.serve(9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.URL.Path
		<-leave
	}))
	limits := func(normal, high conf.Limits) {
		client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			c := meshCluster("reviews", 9080, server)
			c.Limits, c.High = normal, high
			s.Clusters["reviews"] = c
		})
	}
	urgent := forwardTo("reviews")
	urgent.Match.Path, urgent.Match.CaseSensitive = conf.StringMatch{Kind: conf.PrefixOf, Value: "/urgent"}, true
	urgent.Forward.High = true
	client.knows("reviews", 9080, urgent, forwardTo("reviews"))
	c := client.client()
	for name, l := range map[string]conf.Limits{"requests": {MaxRequests: 1}, "connections": {MaxConnections: 1, MaxPending: 1}} {
		limits(l, l)
		results := make(chan int)
		begin := func(path string) {
			go func() {
				status, _, _ := client.get(c, "http://reviews:9080"+path)
				results <- status
			}()
			if got := <-entered; got != path {
				t.Errorf("%s: %s is served in the place of %s", name, got, path)
			}
		}
		begin("/usual")
		begin("/urgent") // the usual request's connection does not count
		if name == "requests" {
			for _, path := range []string{"/usual", "/urgent"} {
				if status, _, _ := client.get(c, "http://reviews:9080"+path); status != 503 {
					t.Errorf("a second request to %s: %d", path, status)
				}
			}
		}
		all := client.proxy.Clusters()
		if open := all[slices.IndexFunc(all, func(c admin.Cluster) bool { return c.Name == "reviews" })]; open.Requests != 2 || open.Connections != 2 {
			t.Errorf("%s: %d requests on %d connections are counted, want 2 and 2", name, open.Requests, open.Connections)
		}
		for range 2 {
			leave <- struct{}{}
			if status := <-results; status != 200 {
				t.Errorf("%s: %d", name, status)
			}
		}
	}
	// What the usual requests may not exceed does not bind urgent ones where these have no limits.
	limits(conf.Limits{MaxRequests: 1}, conf.Limits{})
	results := make(chan int)
	for range 3 {
		go func() {
			status, _, _ := client.get(c, "http://reviews:9080/urgent")
			results <- status
		}()
		<-entered
	}
	for range 3 {
		leave <- struct{}{}
		if status := <-results; status != 200 {
			t.Errorf("without limits: %d", status)
		}
	}
}
