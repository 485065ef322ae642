package retry

import (
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func asking(fields ...string) *message.Request {
	r := &message.Request{Method: "GET", Path: "/"}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, "=")
		r.Header.Add(n, v)
	}
	return r
}

func TestWanting(t *testing.T) {
	route := &conf.Retry{On: conf.OnReset, Attempts: 2, StatusCodes: []int{500}}
	r := asking("x-envoy-retry-on=5xx, gateway-error,nonsense", "X-Envoy-Retry-Grpc-On=unavailable", "x-envoy-max-retries=7",
		"x-envoy-retriable-status-codes=418, 9,x", "x-envoy-retriable-header-names=X-Again, ", "x-envoy-upstream-rq-timeout-ms=250",
		"x-envoy-upstream-rq-per-try-timeout-ms=100", "x-envoy-internal=true", "x-other=1")
	w := Wanting(route, r, true)
	p := w.Policy
	switch {
	case p == nil || p == route:
		t.Fatalf("policy %+v", p)
	case p.On != conf.OnReset|conf.On5xx|conf.OnGatewayError|conf.OnGRPCUnavailable || p.Attempts != 7 || p.PerTry != 100*time.Millisecond:
		t.Errorf("policy %+v", p)
	case len(p.StatusCodes) != 2 || p.StatusCodes[1] != 418 || len(route.StatusCodes) != 1:
		t.Errorf("status codes %v, the route's %v", p.StatusCodes, route.StatusCodes)
	case len(p.Headers) != 1 || p.Headers[0].Name != "x-again":
		t.Errorf("headers %+v", p.Headers)
	case !w.Timed || w.Timeout != 250*time.Millisecond:
		t.Errorf("timeout %v %v", w.Timed, w.Timeout)
	}
	var left []string
	for f := range r.Header.All() {
		left = append(left, f.Name)
	}
	if got := strings.Join(left, " "); got != "x-envoy-internal x-other" {
		t.Errorf("left in the request: %s", got)
	}
}

func TestWantingOfStrangersAndNothing(t *testing.T) {
	route := &conf.Retry{On: conf.OnReset, Attempts: 2}
	r := asking("x-envoy-retry-on=5xx", "x-envoy-upstream-rq-timeout-ms=1")
	if w := Wanting(route, r, false); w.Policy != route || w.Timed || r.Header.Len() != 0 {
		t.Errorf("a stranger's: %+v, %d fields left", w, r.Header.Len())
	}
	if w := Wanting(nil, asking("x-envoy-max-retries=3"), true); w.Policy != nil {
		t.Errorf("retries without a condition: %+v", w.Policy)
	}
	if w := Wanting(nil, asking("x-envoy-retry-on=5xx"), true); w.Policy == nil || w.Policy.Attempts != 1 {
		t.Errorf("without a policy of the route: %+v", w.Policy)
	}
	only := &conf.Retry{On: conf.On5xx, Attempts: 1, RequestHeaders: []conf.HeaderMatch{{Name: "x-again", Present: true}}}
	if Wanting(only, asking(), true).Policy != nil || Wanting(only, asking("X-Again=1"), true).Policy != only {
		t.Error("the fields that a request needs for retries are not asked for")
	}
	plain := asking("x-request-id=1", "x-envoy-internal=1")
	if n := testing.AllocsPerRun(100, func() { Wanting(route, plain, true) }); n != 0 {
		t.Errorf("%v allocations for a request that asks for nothing", n)
	}
}

func TestRetriableHeadersAndRateLimits(t *testing.T) {
	var h, turned message.Header
	h.Add("X-Retry", "please")
	turned.Add("x-envoy-ratelimited", "true")
	byHeader := &conf.Retry{On: conf.OnHeaders, Headers: []conf.HeaderMatch{{Name: "x-retry", Value: conf.StringMatch{Kind: conf.Exact, Value: "please"}}}}
	byStatus := &conf.Retry{On: conf.OnHeaders, Headers: []conf.HeaderMatch{{Name: ":status", Value: conf.StringMatch{Kind: conf.Exact, Value: "418"}}}}
	for _, c := range []struct {
		name       string
		p          *conf.Retry
		a          Attempt
		repeatable bool
		want       bool
	}{
		{"by header", byHeader, Attempt{Status: 200, GRPC: -1, Begun: true, Header: &h}, true, true},
		{"by header, not repeatable", byHeader, Attempt{Status: 200, GRPC: -1, Begun: true, Header: &h}, false, true},
		{"without the header", byHeader, Attempt{Status: 200, GRPC: -1, Begun: true, Header: &turned}, true, false},
		{"by status as a header", byStatus, Attempt{Status: 418, GRPC: -1, Begun: true, Header: &h}, true, true},
		{"limited, not asked for", &conf.Retry{On: conf.On5xx | conf.OnGatewayError}, Attempt{Status: 503, GRPC: -1, Begun: true, Header: &turned}, true, false},
		{"limited", &conf.Retry{On: conf.OnRateLimited}, Attempt{Status: 429, GRPC: -1, Begun: true, Header: &turned}, false, true},
	} {
		if got := Wanted(c.p, &c.a, c.repeatable); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestWait(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := &conf.Retry{BackOff: time.Millisecond, MaxBackOff: time.Millisecond, RateLimited: &conf.RateLimited{Max: 10 * time.Second,
		Headers: []conf.ResetHeader{{Name: "retry-after"}, {Name: "x-reset", Unix: true}}}}
	for _, c := range []struct {
		fields   string
		min, max time.Duration
	}{
		{"Retry-After=4", 4 * time.Second, 6 * time.Second},
		{"Retry-After=11", 0, time.Millisecond}, // longer than is allowed
		{"Retry-After=Fri, 31 Dec 1999 23:59:59 GMT", 0, time.Millisecond},
		{"X-Reset=1000002", 2 * time.Second, 3 * time.Second},
		{"X-Reset=999999", 0, time.Millisecond},
		{"X-Other=1", 0, time.Millisecond},
	} {
		r := asking(c.fields)
		for _, random := range []uint64{0, 1 << 40, 1<<64 - 1} {
			if got := Wait(p, 1, &r.Header, now, random); got < c.min || got > c.max {
				t.Errorf("%s: %v", c.fields, got)
			}
		}
	}
	if got := Wait(p, 1, nil, now, 5); got > time.Millisecond {
		t.Errorf("without a response: %v", got)
	}
}
