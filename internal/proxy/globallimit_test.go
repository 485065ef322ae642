package proxy

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// limitService counts as a rate-limit service does: each descriptor by itself, all at once.
type limitService struct {
	servicev3.UnimplementedRateLimitServiceServer
	limit uint32
	asked chan struct{} // not nil: takes note of each question
	stall chan struct{} // not nil: no answer before it is closed

	mu     sync.Mutex
	counts map[string]uint32
}

func (s *limitService) ShouldRateLimit(ctx context.Context, q *servicev3.RateLimitRequest) (*servicev3.RateLimitResponse, error) {
	if s.asked != nil {
		s.asked <- struct{}{}
	}
	if s.stall != nil {
		select {
		case <-s.stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &servicev3.RateLimitResponse{OverallCode: servicev3.RateLimitResponse_OK,
		RequestHeadersToAdd:  []*corev3.HeaderValue{{Key: "x-counted", Value: "100%"}},
		ResponseHeadersToAdd: []*corev3.HeaderValue{{Key: "x-limit-domain", Value: q.GetDomain()}}}
	for _, d := range q.GetDescriptors() {
		key := q.GetDomain()
		for _, e := range d.GetEntries() {
			key += "|" + e.GetKey() + "=" + e.GetValue()
		}
		s.counts[key] += q.GetHitsAddend()
		status := &servicev3.RateLimitResponse_DescriptorStatus{Code: servicev3.RateLimitResponse_OK, DurationUntilReset: durationpb.New(time.Minute),
			CurrentLimit: &servicev3.RateLimitResponse_RateLimit{RequestsPerUnit: s.limit}, LimitRemaining: s.limit - min(s.limit, s.counts[key])}
		if s.counts[key] > s.limit {
			status.Code, r.OverallCode = servicev3.RateLimitResponse_OVER_LIMIT, servicev3.RateLimitResponse_OVER_LIMIT
		}
		r.Statuses = append(r.Statuses, status)
	}
	return r, nil
}

// limits runs a rate-limit service at a host without a sidecar.
func (m *mesh) limits(ip string, s *limitService) *pod {
	host := bare(m, ip)
	l, err := host.Listen(netip.AddrPortFrom(host.Addr(), 8081))
	if err != nil {
		m.t.Fatal(err)
	}
	s.counts = map[string]uint32{}
	g := grpc.NewServer()
	servicev3.RegisterRateLimitServiceServer(g, s)
	done := make(chan struct{})
	go func() { // ends by Stop
		defer close(done)
		g.Serve(l)
	}()
	m.t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return host
}

// askFirst makes the pod's port ask the service, describing requests by path and user.
func (p *pod) askFirst(l *conf.GlobalLimit) {
	listener := strict(9080)
	h := listener.Chains[0].HTTP
	h.GlobalLimits = []*conf.GlobalLimit{l}
	h.Routes.Hosts[0].LimitRules = []conf.LimitRule{
		{Actions: []conf.LimitAction{{Kind: conf.LimitHeader, Key: "user", Name: "x-user"}}},
		{Stage: 1, Actions: []conf.LimitAction{{Kind: conf.LimitGeneric, Key: "other", Value: "stage"}}}}
	p.accepts(listener)
}

func TestGlobalLimit(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	s := &limitService{limit: 2}
	host := m.limits("10.0.0.9", s)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Counted")) }))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	server.announces("limits", 8081, 0, host.Addr())
	server.askFirst(&conf.GlobalLimit{Domain: "shop", Cluster: "limits", Timeout: 5 * time.Second, Enabled: 1e6, Status: 429, Mark: true, Report: true,
		Deny: true, ErrorStatus: 500})
	c := client.client()
	for i, want := range []int{200, 200, 429} {
		status, body, h := client.get(c, "http://reviews:9080/", "x-user", "amy")
		if status != want || h.Get("X-Limit-Domain") != "shop" || h.Get("X-Ratelimit-Limit") != "2" || (h.Get("X-Envoy-Ratelimited") != "") != (want == 429) {
			t.Fatalf("request %d: %d %q %v", i, status, body, h)
		}
		if want == 200 && body != "100%" {
			t.Errorf("the workload was told %q", body)
		}
	}
	if status, _, _ := client.get(c, "http://reviews:9080/", "x-user", "bob"); status != 200 {
		t.Errorf("another user: %d", status)
	}
	if status, _, _ := client.get(c, "http://reviews:9080/"); status != 200 {
		t.Errorf("a request that nothing describes: %d", status)
	}
	s.mu.Lock()
	if len(s.counts) != 2 || s.counts["shop|user=amy"] != 3 {
		t.Errorf("the service has counted %v", s.counts)
	}
	s.mu.Unlock()
	eventually(t, "logged", func() bool { return server.logged("429", "RL", "request_rate_limited") })
}

func TestGlobalLimitWithoutAnAnswer(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	s := &limitService{limit: 2, stall: make(chan struct{})}
	host := m.limits("10.0.0.9", s)
	t.Cleanup(func() { close(s.stall) })
	server.serve(9080, hello("reviews"))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	server.announces("limits", 8081, 0, host.Addr())
	c := client.client()
	limit := conf.GlobalLimit{Domain: "shop", Cluster: "limits", Timeout: 30 * time.Millisecond, Enabled: 1e6, Status: 429, ErrorStatus: 503}
	server.askFirst(&limit)
	if status, body, _ := client.get(c, "http://reviews:9080/", "x-user", "amy"); status != 200 {
		t.Errorf("a service that stalls: %d %q", status, body)
	}
	closed := limit
	closed.Deny = true
	server.askFirst(&closed)
	eventually(t, "refused", func() bool {
		status, _, _ := client.get(c, "http://reviews:9080/", "x-user", "amy")
		return status == 503
	})
	missing := closed
	missing.Cluster, missing.Deny = "missing", false
	server.askFirst(&missing)
	eventually(t, "a cluster that is not there", func() bool {
		status, _, _ := client.get(c, "http://reviews:9080/", "x-user", "amy")
		return status == 200
	})
	var page strings.Builder
	if err := server.proxy.Metrics(&page); err != nil || !strings.Contains(page.String(), "weft_ratelimit_failures_total") {
		t.Errorf("not counted: %v", err)
	}
}
