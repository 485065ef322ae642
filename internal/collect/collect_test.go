package collect

import (
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var labels = []string{"reporter", "source_workload", "source_workload_namespace", "source_version", "destination_workload",
	"destination_workload_namespace", "destination_version", "destination_service", "destination_service_name", "request_protocol",
	"response_code", "response_flags", "connection_security_policy", "destination_principal"}

// proxy serves metrics on a unix socket as a sidecar does.
type proxy struct {
	target   Target
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newProxy(t *testing.T, pod string) *proxy {
	t.Helper()
	p := &proxy{
		target:   Target{Pod: pod, Namespace: "default", Socket: filepath.Join(t.TempDir(), "s")},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_requests_total"}, labels),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "istio_request_duration_milliseconds",
			Buckets: []float64{1, 5, 10, 50, 100}}, labels),
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(p.requests, p.latency)
	l, err := net.Listen("unix", p.target.Socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return p
}

func (p *proxy) count(reporter, source, destination, code string, n int, ms float64) {
	l := []string{reporter, source, "default", "v1", destination, "default", "v1", "reviews.default.svc.cluster.local", "reviews", "http",
		code, "-", "unknown", "spiffe://cluster.local/ns/default/sa/x"}
	for range n {
		p.requests.WithLabelValues(l...).Inc()
		p.latency.WithLabelValues(l...).Observe(ms)
	}
}

func collector(t *testing.T, targets *[]Target) *Collector {
	c := New(func() []Target { return *targets }, time.Second, slog.New(slog.DiscardHandler))
	t.Cleanup(c.closeClients)
	return c
}

func TestEdgesAddUpOverProxiesAndRestarts(t *testing.T) {
	a, b := newProxy(t, "a"), newProxy(t, "b")
	targets := []Target{a.target, b.target}
	c := collector(t, &targets)
	c.Scrape(t.Context())
	a.count("source", "productpage-v1", "reviews-v1", "200", 8, 3)
	a.count("source", "productpage-v1", "reviews-v1", "503", 2, 3)
	b.count("destination", "productpage-v1", "reviews-v1", "200", 8, 3) // the same requests, seen from the other side
	b.count("destination", "unknown", "reviews-v1", "200", 5, 30)       // a caller without a sidecar
	c.Scrape(t.Context())
	a2 := newProxy(t, "a2") // the proxy begins anew, its counters at zero
	a2.count("source", "productpage-v1", "reviews-v1", "200", 10, 3)
	targets = []Target{a2.target, b.target}
	c.Scrape(t.Context())

	edges, _ := c.Edges(time.Minute)
	if len(edges) != 2 {
		t.Fatalf("edges: %+v", edges)
	}
	e := edges[0]
	if e.Source != "productpage-v1" || e.Requests != 20 || e.Errors != 2 || !e.MutualTLS {
		t.Errorf("first edge: %+v", e)
	}
	if e.P50 <= 1 || e.P50 > 5 {
		t.Errorf("p50 = %v, want within (1, 5]", e.P50)
	}
	if u := edges[1]; u.Source != "unknown" || u.Requests != 5 || u.P99 <= 10 || u.P99 > 50 {
		t.Errorf("second edge: %+v", u)
	}
}

func TestEdgesForgetWhatIsOlderThanTheWindow(t *testing.T) {
	a := newProxy(t, "a")
	targets := []Target{a.target}
	c := collector(t, &targets)
	a.count("source", "x", "y", "200", 4, 1)
	c.Scrape(t.Context())
	c.history[0].at = time.Now().Add(-30 * time.Second)
	a.count("source", "x", "y", "200", 3, 1)
	c.Scrape(t.Context())
	edges, covered := c.Edges(20 * time.Second)
	if len(edges) != 1 || edges[0].Requests != 3 {
		t.Fatalf("edges: %+v", edges)
	}
	if covered < 29*time.Second {
		t.Errorf("covered %v", covered)
	}
}

func TestGatherNamesTheProxyAndSurvivesADeadOne(t *testing.T) {
	a, b := newProxy(t, "a"), newProxy(t, "b")
	a.count("source", "x", "y", "200", 1, 1)
	b.count("source", "x", "y", "200", 2, 1)
	targets := []Target{a.target, b.target, {Pod: "gone", Socket: filepath.Join(t.TempDir(), "none")}}
	c := collector(t, &targets)
	families, err := c.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "istio_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "pod" {
					got[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	if len(got) != 2 || got["a"] != 1 || got["b"] != 2 {
		t.Fatalf("got %v", got)
	}
}

func TestHistoryStaysBounded(t *testing.T) {
	c := collector(t, &[]Target{})
	start := time.Now()
	for s := range 3600 {
		c.remember(start.Add(time.Duration(s) * time.Second))
	}
	if n := len(c.history); n > 140 {
		t.Fatalf("%d moments kept after an hour", n)
	}
	if span := c.history[len(c.history)-1].at.Sub(c.history[0].at); span < MaxWindow-coarseStep {
		t.Fatalf("history spans %v", span)
	}
}

func TestQuantilesOfAnOpenBucket(t *testing.T) {
	q := quantiles(map[float64]float64{10: 1, math.Inf(1): 2}, nil, 0.5, 0.99)
	if q[0] != 10 || q[1] != 10 {
		t.Fatalf("got %v", q)
	}
}

func TestFailedCountsTheServersFaults(t *testing.T) {
	for _, c := range []struct {
		labels string
		want   bool
	}{
		{"request_protocol=http response_code=200", false},
		{"request_protocol=http response_code=404", false},
		{"request_protocol=http response_code=500", true},
		{"request_protocol=http response_code=0", true},
		{"request_protocol=grpc response_code=200 grpc_response_status=14", true},
		{"request_protocol=grpc response_code=200 grpc_response_status=5", false},
		{"request_protocol=tcp response_code=0 response_flags=UF", true},
		{"request_protocol=tcp response_code=0 response_flags=-", false},
	} {
		l := map[string]string{}
		for f := range strings.FieldsSeq(c.labels) {
			k, v, _ := strings.Cut(f, "=")
			l[k] = v
		}
		if got := failed(l); got != c.want {
			t.Errorf("%s: got %v", c.labels, got)
		}
	}
}
