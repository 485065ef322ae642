package load_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/bench/load"
)

// target starts a server that answers 1,000 bytes, and 503 to the nth request when refuse is n.
func target(t *testing.T, refuse int64, hold <-chan struct{}) (load.Target, *atomic.Int64) {
	var served atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := served.Add(1)
		if hold != nil && n == 1 {
			<-hold
		}
		if n == refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write(bytes.Repeat([]byte("x"), 1000))
	}))
	t.Cleanup(s.Close)
	address := strings.TrimPrefix(s.URL, "http://")
	return load.Target{Address: address, Path: "/", Headers: []string{"Host: plain"}}, &served
}

func TestOpenLoopKeepsTheRate(t *testing.T) {
	to, served := target(t, 0, nil)
	res, err := load.OpenLoop(context.Background(), to, 4, 200, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 100 || res.Errors != 0 || served.Load() != 100 || res.Bytes != 100_000 {
		t.Errorf("got %+v, and the server saw %d requests; want 100 of 1,000 bytes", res, served.Load())
	}
	if res.Duration < 490*time.Millisecond {
		t.Errorf("100 requests at 200 per second took %v", res.Duration)
	}
	if res.P50 <= 0 || res.P99 < res.P50 {
		t.Errorf("p50 %v, p99 %v", res.P50, res.P99)
	}
}

func TestOpenLoopCountsWhatIsNot200(t *testing.T) {
	to, _ := target(t, 3, nil)
	res, err := load.OpenLoop(context.Background(), to, 1, 100, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 9 || res.Errors != 1 {
		t.Errorf("got %+v, want 9 answered and 1 error", res)
	}
}

// TestOpenLoopTimesFromWhenDue holds the first answer back: requests that were due meanwhile on the same connection have waited,
// though they were sent late.
func TestOpenLoopTimesFromWhenDue(t *testing.T) {
	hold := make(chan struct{})
	to, _ := target(t, 0, hold)
	time.AfterFunc(200*time.Millisecond, func() { close(hold) })
	res, err := load.OpenLoop(context.Background(), to, 1, 100, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 10 || res.P50 < 100*time.Millisecond {
		t.Errorf("got %+v; all of 10 requests waited for more than 100 ms", res)
	}
}

func TestHoldLeavesConnectionsOpen(t *testing.T) {
	to, served := target(t, 0, nil)
	held, err := load.Hold(context.Background(), to, 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != 5 || served.Load() != 5 {
		t.Errorf("%d connections, %d requests served, want 5 and 5", len(held), served.Load())
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

func TestHandshakes(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			t.Error("a session was resumed")
		}
		w.Write([]byte("x"))
	}))
	defer s.Close()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	to := load.Target{Address: strings.TrimPrefix(s.URL, "https://"), TLS: config, Path: "/", Headers: []string{"Host: plain"}}
	res, err := load.Handshakes(context.Background(), to, 2, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests == 0 || res.Errors != 0 || res.Bytes != int64(res.Requests) {
		t.Errorf("got %+v", res)
	}
}

func TestHandshakesSayWhyNoneSucceeds(t *testing.T) {
	to, _ := target(t, 0, nil)
	to.Address = "127.0.0.1:1"
	if _, err := load.Handshakes(context.Background(), to, 1, time.Millisecond); err == nil {
		t.Error("no error though nothing listens")
	}
}
