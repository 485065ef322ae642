package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/examples/bookinfo/app"
	"github.com/weftmesh/weft/examples/bookinfo/internal/memnet"
)

func environment(pairs ...string) func(string) string {
	env := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return env[name] }
}

func TestSettings(t *testing.T) {
	plain := app.Config{
		Version: "v1", PodName: "here",
		Details: "http://details:9080", Reviews: "http://reviews:9080", Ratings: "http://ratings:9080",
	}
	tests := []struct {
		name string
		args []string
		env  []string
		port string
		want func(*app.Config)
	}{
		{"defaults", []string{"reviews"}, nil, "9080", func(*app.Config) {}},
		{"flags after", []string{"reviews", "-port", "1", "-version=v3"}, nil, "1", func(c *app.Config) { c.Version = "v3" }},
		{"flags before", []string{"-port=1", "reviews"}, nil, "1", func(*app.Config) {}},
		{"flags win", []string{"reviews", "-version", "v3"}, []string{"SERVICE_VERSION", "v2"}, "9080", func(c *app.Config) { c.Version = "v3" }},
		{"version, port", []string{"reviews"}, []string{"SERVICE_VERSION", "v2", "PORT", "81"}, "81", func(c *app.Config) { c.Version = "v2" }},
		{"names", []string{"reviews"}, []string{"CLUSTER_NAME", "east", "STAR_COLOR", "blue"}, "9080",
			func(c *app.Config) { c.ClusterName, c.StarColor = "east", "blue" }},
		{"addresses", []string{"reviews"}, []string{"RATINGS_HOSTNAME", "stars", "RATINGS_SERVICE_PORT", "80", "SERVICES_DOMAIN", "shop.svc"}, "9080",
			func(c *app.Config) {
				c.Details, c.Reviews, c.Ratings = "http://details.shop.svc:9080", "http://reviews.shop.svc:9080", "http://stars.shop.svc:80"
			}},
		{"one machine", []string{"reviews"}, []string{"RATINGS_SERVICE_HOST", "127.0.0.1", "RATINGS_SERVICE_PORT", "80", "DETAILS_SERVICE_HOST", "::1"}, "9080",
			func(c *app.Config) { c.Ratings, c.Details = "http://127.0.0.1:80", "http://[::1]:9080" }},
		{"cluster address", []string{"reviews"}, []string{"RATINGS_SERVICE_HOST", "10.0.0.7", "RATINGS_SERVICE_PORT", "9080"}, "9080", func(*app.Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readSettings(tt.args, environment(append(tt.env, "HOSTNAME", "here")...), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			want := plain
			tt.want(&want)
			if got.app != want || got.port != tt.port || got.service != "reviews" {
				t.Errorf("got  %+v\nwant %+v, port %s", got, want, tt.port)
			}
		})
	}
}

func TestSettingsRefused(t *testing.T) {
	tests := []struct {
		args []string
		env  []string
		want error  // nil: any
		says string // in the error or on stderr
	}{
		{nil, nil, errUsage, "usage:"},
		{[]string{"reviews", "ratings"}, nil, errUsage, "usage:"},
		{[]string{"reviews", "-color=red"}, nil, errUsage, "-color"},
		{[]string{"-h"}, nil, flag.ErrHelp, "SERVICE_VERSION"},
		{[]string{"reviews"}, []string{"PORT", "http"}, nil, `port "http"`},
		{[]string{"reviews"}, []string{"PORT", "70000"}, nil, `port "70000"`},
		{[]string{"reviews"}, []string{"LOG_LEVEL", "loud"}, nil, "LOG_LEVEL"},
		{[]string{"orders"}, nil, nil, `"orders"`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(append(tt.args, tt.env...), " "), func(t *testing.T) {
			var stderr strings.Builder
			err := run(t.Context(), tt.args, environment(tt.env...), io.Discard, &stderr)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if said := err.Error() + stderr.String(); !strings.Contains(said, tt.says) {
				t.Errorf("no %q in %s", tt.says, said)
			}
		})
	}
}

// run starts, serves on a port of its own, and ends without error when told to.
func TestRun(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, log := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"details", "-port=0"}, environment(), log, io.Discard)
		log.Close()
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	_, address, ok := strings.Cut(lines.Text(), "address=")
	if !ok {
		t.Fatalf("no address in %q", lines.Text())
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://127.0.0.1:" + port + "/health") // not in the log
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("health: status %d", resp.StatusCode)
	}
	stop()
	for lines.Scan() {
	}
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestServeDrains(t *testing.T) {
	tests := []struct {
		name             string
		request, stopped time.Duration // how long the live request takes; when serve returns after the signal
		finished         bool
	}{
		{"finishes", 2 * time.Second, 2 * time.Second, true},
		{"is cut off", time.Hour, maxDrain, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testDrain(t, tt.request, tt.stopped, tt.finished) })
		})
	}
}

func testDrain(t *testing.T, request, stopped time.Duration, finished bool) {
	var network memnet.Net
	ctx, stop := context.WithCancel(t.Context())
	arrived, result, ended := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		timer := time.NewTimer(request)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	})
	listener := network.Listen("shop:80")
	go func() { ended <- serve(ctx, listener, handler) }()
	go func() {
		transport := &http.Transport{DialContext: network.DialContext, DisableKeepAlives: true}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://shop:80/", nil)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		result <- err
	}()
	<-arrived
	start := time.Now()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	// Shutdown looks for idle connections at intervals of up to half a second.
	if took := time.Since(start); took < stopped || took > stopped+500*time.Millisecond {
		t.Errorf("stopped after %v, want %v", took, stopped)
	}
	if err := <-result; (err == nil) != finished {
		t.Errorf("live request: error %v, want finished %v", err, finished)
	}
	if _, err := network.DialContext(t.Context(), "tcp", "shop:80"); err == nil {
		t.Error("still listening")
	}
}
