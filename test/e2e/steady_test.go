package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSteady sends 10,000 requests for the whole page over 16 connections while routes are applied over and over, the control
// plane restarts and all versions of reviews are replaced. It runs alone, since it keeps the machine busy.
func TestSteady(t *testing.T) {
	m := start(t, settings{account: self()})
	began := time.Now()
	load := m.traffic(16)
	stop, done := make(chan struct{}), make(chan error, 1)
	applied := 0
	go func() { // ends with stop, or with an apply that fails
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			route := strings.Replace(redReviews, "v3", fmt.Sprintf("v%d", i%3+1), 1)
			r := m.weftWith(route, "apply", "-f", "-")
			if r.code != 0 && !strings.Contains(r.stderr, "control plane") && !strings.Contains(r.stderr, "not yet in force") {
				done <- fmt.Errorf("apply: %s", r)
				return
			}
			if r.code == 0 {
				applied++
			}
		}
	}()
	restarts := 0
	for load.sent.Load() < 10_000 && time.Since(began) < 90*time.Second {
		m.must("control", "restart")
		for _, w := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
			m.must("restart", w)
		}
		restarts++
		m.eventually(30*time.Second, "reviews are replaced", func() error {
			for _, w := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
				if err := m.ready(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	load.halt()
	t.Logf("%.0f s, %.0f requests/s, routes applied %d times, %d restarts of the control plane and of reviews",
		time.Since(began).Seconds(), float64(load.sent.Load())/time.Since(began).Seconds(), applied, restarts)
	load.end("changes of everything")
	if n := load.sent.Load(); n < 10_000 {
		t.Logf("the machine is slow: only %d requests in 90 s", n)
	}
}

// TestCertificates lets certificates be renewed several times under traffic. Each is renewed with a third of its life left, which is what a
// busy machine has for it.
func TestCertificates(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self(), flags: []string{"--cert-ttl", "15s"}})
	m.apply("strict-mtls.yaml")
	load := m.traffic(2)
	journal := filepath.Join(m.dir, "state", "ca", "journal.jsonl")
	issued := func() int { return lines(t, journal) }
	m.eventually(40*time.Second, "every proxy has had four certificates", func() error {
		if n := issued(); n < 7*4 {
			return fmt.Errorf("%d were issued", n)
		}
		return nil
	})
	load.await(50)
	load.end("four certificates for each proxy")
	t.Logf("%d certificates were issued", issued())
}
