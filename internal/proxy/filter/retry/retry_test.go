package retry

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func TestWanted(t *testing.T) {
	istio := conf.OnConnectFailure | conf.OnRefusedStream | conf.OnGRPCUnavailable | conf.OnGRPCCancelled | conf.OnStatus
	for _, c := range []struct {
		name       string
		on         conf.RetryOn
		a          Attempt
		repeatable bool
		want       bool
	}{
		{"refused connection, POST", istio, Attempt{Unsent: true}, false, true},
		{"broken off after sending, GET", istio | conf.OnResetBeforeRequest, Attempt{}, true, false},
		{"broken off after sending, GET, safe-reset", conf.OnSafeReset, Attempt{Safe: true}, true, true},
		{"broken off after sending, PUT, safe-reset", conf.OnSafeReset, Attempt{}, true, false},
		{"broken off after sending, POST with a key, safe-reset", conf.OnSafeReset, Attempt{}, true, false},
		{"broken off after sending, POST, safe-reset", conf.OnSafeReset, Attempt{}, false, false},
		{"503 as the workload broke off, GET, safe-reset", conf.OnSafeReset, Attempt{Status: 503, Begun: true, Unanswered: true, Safe: true}, true, true},
		{"503 of the workload, GET, safe-reset", conf.OnSafeReset, Attempt{Status: 503, Begun: true, Safe: true}, true, false},
		{"timeout, GET, safe-reset", conf.OnSafeReset, Attempt{TimedOut: true, Safe: true}, true, false},
		{"half a head, GET, safe-reset", conf.OnSafeReset, Attempt{Begun: true, Safe: true}, true, true},
		{"broken off after sending, GET, connect-failure", conf.OnConnectFailure, Attempt{}, true, false},
		{"broken off after sending, GET, reset", conf.OnReset, Attempt{}, true, true},
		{"broken off after sending, GET, gateway-error", conf.OnGatewayError, Attempt{}, true, true},
		{"broken off after sending, POST, reset", conf.OnReset, Attempt{}, false, true},
		{"broken off after sending, POST, all but reset", ^conf.OnReset, Attempt{GRPC: -1}, false, false},
		{"broken off after sending, POST", istio, Attempt{}, false, false},
		{"POST even by explicit policy", conf.On5xx, Attempt{}, false, false},
		{"POST answered 503", istio, Attempt{Status: 503, Begun: true}, false, true},
		{"POST answered 503, a condition that is no answer", conf.OnConnectFailure | conf.OnReset, Attempt{Status: 503, Begun: true}, false, false},
		{"POST answered 500, 5xx", conf.On5xx, Attempt{Status: 500, Begun: true}, false, true},
		{"GET answered 503", istio, Attempt{Status: 503, Begun: true}, true, true},
		{"GET answered 500", istio, Attempt{Status: 500, Begun: true}, true, false},
		{"GET answered 500, 5xx", conf.On5xx, Attempt{Status: 500, Begun: true}, true, true},
		{"GET answered 500, gateway-error", conf.OnGatewayError, Attempt{Status: 500, Begun: true}, true, false},
		{"half a head, GET", conf.On5xx, Attempt{Begun: true}, true, true},
		{"half a head, GET, reset", conf.OnReset, Attempt{Begun: true}, true, true},
		{"half a head, GET, connect-failure", conf.OnConnectFailure, Attempt{Begun: true}, true, false},
		{"half a head, POST", conf.On5xx, Attempt{Begun: true}, false, false},
		{"timeout, connect-failure only", conf.OnConnectFailure, Attempt{TimedOut: true}, true, false},
		{"timeout, 5xx", conf.On5xx, Attempt{TimedOut: true}, true, true},
		{"conflict", conf.OnRetriable4xx, Attempt{Status: 409, Begun: true}, true, true},
		{"grpc unavailable", istio, Attempt{Status: 200, GRPC: 14, Begun: true}, true, true},
		{"503 as the workload could not be reached, POST", conf.OnConnectFailure, Attempt{Status: 503, Begun: true, Unsent: true}, false, true},
		{"503 as the workload broke off, GET", conf.OnConnectFailure, Attempt{Status: 503, Begun: true, Unanswered: true}, true, false},
		{"503 as the workload broke off, GET, reset", conf.OnReset, Attempt{Status: 503, Begun: true, Unanswered: true}, true, true},
		{"503 as the workload broke off, POST, 5xx", conf.On5xx | conf.OnStatus, Attempt{Status: 503, Begun: true, Unanswered: true}, false, false},
		{"503 as the workload broke off, POST, reset", conf.OnReset, Attempt{Status: 503, Begun: true, Unanswered: true}, false, true},
		{"fine", istio, Attempt{Status: 200, GRPC: -1, Begun: true}, true, false},
	} {
		p := &conf.Retry{On: c.on, StatusCodes: []int{503}}
		if got := Wanted(p, &c.a, c.repeatable); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
		if Wanted(nil, &c.a, c.repeatable) {
			t.Errorf("%s: wanted without a policy", c.name)
		}
	}
}

func TestRepeatable(t *testing.T) {
	for method, want := range map[string]bool{"GET": true, "PUT": true, "DELETE": true, "POST": false, "PATCH": false, "CONNECT": false} {
		r := &message.Request{Method: method}
		if got := Repeatable(r); got != want {
			t.Errorf("%s: %v", method, got)
		}
		if r.Header.Add("idempotency-key", "1"); !Repeatable(r) {
			t.Errorf("%s with a key is not repeatable", method)
		}
	}
}

func TestBackOffGrowsWithinBounds(t *testing.T) {
	p := &conf.Retry{BackOff: 10 * time.Millisecond, MaxBackOff: 40 * time.Millisecond}
	for n, most := range map[int]time.Duration{1: 10, 2: 20, 3: 40, 9: 40} {
		for r := uint64(0); r < 1e9; r += 7654321 {
			if d := BackOff(p, n, r); d < 0 || d >= most*time.Millisecond {
				t.Fatalf("retry %d waits %v", n, d)
			}
		}
	}
}

func TestBudget(t *testing.T) {
	var b Budget
	now := time.Now()
	left := func() (n int) {
		for b.Retry(now) {
			n++
		}
		return n
	}
	if n := left(); n != burst/perRetry {
		t.Fatalf("%d retries from a full budget", n)
	}
	for range 50 {
		b.Request()
	}
	if n := left(); n != 10 {
		t.Fatalf("50 requests pay for %d retries", n)
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{99 * time.Millisecond, 0}, {time.Millisecond, 1}, {time.Second, 10}, {19 * time.Second, 190}, {time.Hour, burst / perRetry}, {0, 0}, {-time.Hour, 0}, {time.Hour + time.Second, 10}} {
		if now = now.Add(c.after); left() != c.want {
			t.Fatalf("%s pay for another number than %d retries", c.after, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { now = now.Add(time.Millisecond); b.Retry(now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
