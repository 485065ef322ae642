package check

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func to(address string) Target {
	return Target{Host: "service", Used: func() bool { return true }, Connect: func(ctx context.Context, _ bool) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}}
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "service" || r.Method != "HEAD" {
			w.WriteHeader(http.StatusTeapot)
		}
		if r.URL.Path == "/ill" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	target := to(s.Listener.Addr().String())
	c := &conf.HealthCheck{Timeout: time.Minute, HTTP: &conf.HTTPCheck{Path: "/well", Method: "HEAD"}}
	if err := Once(t.Context(), c, target); err != nil {
		t.Error(err)
	}
	c.HTTP.Path = "/ill"
	if err := Once(t.Context(), c, target); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v", err)
	}
	c.HTTP.Expected = []conf.StatusRange{{Start: 500, End: 504}}
	if err := Once(t.Context(), c, target); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := Once(t.Context(), c, target); err == nil {
		t.Error("a server that is gone is well")
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	go s.Serve(l)
	defer s.Stop()
	h.SetServingStatus("a", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("b", healthpb.HealthCheckResponse_NOT_SERVING)
	for service, well := range map[string]bool{"": true, "a": true, "b": false, "unknown": false} {
		c := &conf.HealthCheck{Timeout: time.Minute, GRPC: &conf.GRPCCheck{Service: service}}
		if err := Once(t.Context(), c, to(l.Addr().String())); (err == nil) != well {
			t.Errorf("service %q: %v", service, err)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("+PO"))
			c.Write([]byte("NG extra READY"))
			c.Close()
		}
	}()
	for _, step := range []struct {
		want []string
		well bool
	}{{nil, true}, {[]string{"PONG"}, true}, {[]string{"PONG", "READY"}, true}, {[]string{"READY", "PONG"}, false}} {
		c := &conf.HealthCheck{Timeout: time.Minute, TCP: &conf.TCPCheck{}}
		for _, w := range step.want {
			c.TCP.Receive = append(c.TCP.Receive, []byte(w))
		}
		if err := Once(t.Context(), c, to(l.Addr().String())); (err == nil) != step.well {
			t.Errorf("%v: %v", step.want, err)
		}
	}
}

// An endpoint that is well, ill, and well again, in virtual time.
func TestThresholdsAndIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var tries, verdicts []time.Duration
		var peers []net.Conn
		target := Target{Used: func() bool { return true },
			Connect: func(context.Context, bool) (net.Conn, error) {
				now := time.Since(start)
				tries = append(tries, now)
				if now > 15*time.Second && now < 40*time.Second {
					return nil, errors.New("refused")
				}
				a, b := net.Pipe()
				peers = append(peers, b)
				return a, nil
			},
			Report: func(well bool, err error) {
				if well != (err == nil) {
					t.Errorf("well %v, error %v", well, err)
				}
				verdicts = append(verdicts, time.Since(start))
			}}
		c := &conf.HealthCheck{Timeout: time.Second, Interval: 10 * time.Second, Unhealthy: 5 * time.Second, UnhealthyEdge: 2 * time.Second,
			HealthyEdge: time.Second, UnhealthyThreshold: 2, HealthyThreshold: 3, TCP: &conf.TCPCheck{}}
		done := make(chan struct{})
		go func() { Run(ctx, c, target); close(done) }()
		time.Sleep(62 * time.Second)
		cancel()
		<-done
		for _, p := range peers {
			p.Close()
		}
		s := time.Second
		check := func(what string, got, want []time.Duration) {
			if len(got) != len(want) {
				t.Errorf("%s at %v, want %v", what, got, want)
				return
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s at %v, want %v", what, got, want)
					return
				}
			}
		}
		check("checked", tries, []time.Duration{0, 10 * s, 20 * s, 22 * s, 27 * s, 32 * s, 37 * s, 42 * s, 43 * s, 44 * s, 54 * s})
		check("decided", verdicts, []time.Duration{0, 22 * s, 44 * s})
	})
}
