package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's own binary be the control plane's process, as the command is.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-plane") {
		main()
		return
	}
	os.Exit(m.Run())
}

// A small run goes through everything that a large one does, and what does not depend on speed holds.
func TestSmallRun(t *testing.T) {
	dir := t.TempDir()
	o := &options{size: size{services: 100, endpoints: 3}, clients: 40, uses: 5, interested: 20, changes: 3, rate: 200, storm: 300 * time.Millisecond}
	certificates, err := certify(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := startPlane(ctx, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	r := &results{options: o}
	m := &measurement{options: o, plane: p, results: r, certificates: certificates}
	if err := m.run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if r.endpoint.interested != 20 || r.fewer.interested != 2 || r.unused.interested != 0 {
		t.Errorf("interested: %d, %d, %d; want 20, 2 and 0", r.endpoint.interested, r.fewer.interested, r.unused.interested)
	}
	for name, c := range map[string]change{"endpoint": r.endpoint, "fewer": r.fewer, "unused": r.unused, "route": r.route, "unused route": r.unusedRoute} {
		if c.strays != 0 {
			t.Errorf("%s: %d responses to proxies that do not use the service", name, c.strays)
		}
		if c.responses != int64(c.interested) {
			t.Errorf("%s: %d responses for %d proxies", name, c.responses, c.interested)
		}
	}
	text := r.markdown()
	if strings.Count(text, "met |") != len(r.goals())-1 {
		t.Errorf("the table lacks goals:\n%s", text)
	}
	if !strings.Contains(text, "| no verdict with fewer than 10000 proxies |") {
		t.Errorf("the memory of each of so few proxies is judged:\n%s", text)
	}
}
