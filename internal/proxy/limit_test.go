package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// limited is a limit of n requests an hour, for each x-user.
func limited(n uint32) *conf.LocalLimit {
	return &conf.LocalLimit{Filter: "limit", Key: "test", MaxDynamic: 100, Enabled: 1e6, Enforced: 1e6, Status: 429, Report: true,
		Response: conf.HeaderChange{Add: []conf.HeaderValue{{Name: "X-Over", Value: "yes"}}},
		Rules:    []conf.LimitRule{{Actions: []conf.LimitAction{{Kind: conf.LimitHeader, Key: "user", Name: "x-user"}}}},
		Descriptors: []conf.LimitDescriptor{{Entries: []conf.LimitEntry{{Key: "user"}},
			Bucket: conf.TokenBucket{Max: n, Fill: 1, Interval: time.Hour}}}}
}

func TestLocalLimit(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	served := 0
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		io.WriteString(w, r.Header.Get("X-Unenforced"))
	}))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	c := client.client()
	listening := strict(9080)
	limit := limited(3)
	listening.Chains[0].HTTP.Limits = []*conf.LocalLimit{limit}
	server.accepts(listening)
	for i, want := range []int{200, 200, 200, 429, 429} {
		status, _, h := client.get(c, "http://reviews:9080/", "x-user", "amy")
		if status != want || h.Get("X-Ratelimit-Limit") != "3" || (h.Get("X-Over") != "") != (want == 429) {
			t.Fatalf("request %d: %d %v", i, status, h)
		}
		if left := h.Get("X-Ratelimit-Remaining"); i < 3 && left != string(rune('2'-i)) || i >= 3 && left != "0" {
			t.Errorf("request %d: %q are left", i, left)
		}
	}
	if status, _, h := client.get(c, "http://reviews:9080/"); status != 200 || h.Get("X-Ratelimit-Limit") != "" {
		t.Errorf("a request that no limit describes: %d %v", status, h)
	}
	if status, _, _ := client.get(c, "http://reviews:9080/", "x-user", "bob"); status != 200 || served != 5 {
		t.Errorf("another user: %d, %d requests came through", status, served)
	}
	eventually(t, "the refusal is logged", func() bool { return server.logged("429", "RL", "local_rate_limited") })
	// gRPC is told in its own words.
	status, _, h := client.do(c, "POST", "http://reviews:9080/svc/Method", nil, "x-user", "amy", "content-type", "application/grpc")
	if status != 200 || h.Get("Grpc-Status") != "14" {
		t.Errorf("gRPC: %d %v", status, h)
	}
	// The same limit configured anew keeps its count; one that is not enforced lets through and says so.
	again, relaxed := strict(9080), *limit
	relaxed.Enforced, relaxed.Unenforced = 0, conf.HeaderChange{Set: []conf.HeaderValue{{Name: "X-Unenforced", Value: "1"}}}
	again.Chains[0].HTTP.Limits = []*conf.LocalLimit{&relaxed}
	server.accepts(again)
	eventually(t, "unenforced", func() bool {
		status, body, _ := client.get(c, "http://reviews:9080/", "x-user", "amy")
		return status == 200 && body == "1"
	})
}

func TestRoutesReplaceLimits(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	server.serve(9080, hello("reviews"))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	c := client.client()
	route := func(path string, l *conf.LocalLimit) *conf.Route {
		r := *inboundHTTP().Routes.Hosts[0].Routes[0]
		r.Match.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: path}
		if path != "/plain" {
			r.Limits = map[string]*conf.LocalLimit{"limit": l}
		}
		return &r
	}
	tight := limited(1)
	tight.Key = "tight"
	listening := strict(9080)
	h := listening.Chains[0].HTTP
	h.Limits = []*conf.LocalLimit{limited(2)}
	h.Routes = table(route("/free", nil), route("/tight", tight), route("/plain", nil))
	server.accepts(listening)
	for path, want := range map[string]int{"/free": 5, "/tight": 1, "/plain": 2} {
		eventually(t, path+" served", func() bool { status, _, _ := client.get(c, "http://reviews:9080"+path); return status == 200 })
		got := 0
		for range 5 {
			if status, _, _ := client.get(c, "http://reviews:9080"+path, "x-user", "amy"); status == 200 {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d requests, want %d", path, got, want)
		}
	}
}
