package upgrade

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weftmesh/weft/internal/wire"
)

func TestNothingFailsThroughUpgrades(t *testing.T) {
	for _, role := range []wire.Role{wire.Gateway, wire.Sidecar} {
		t.Run(string(role), func(t *testing.T) {
			r := newRig(t, role)
			current := r.first()
			var answers sync.WaitGroup
			defer answers.Wait()
			l := r.load()
			l.calls()
			if role == wire.Gateway {
				r.awaitDatagrams()
				l.datagrams()
				r.awaitHTTP3()
				l.http3()
			}
			for i := range 4 {
				r.hold(&answers)
				if role == wire.Gateway {
					r.hold3(&answers)
				}
				watch, end := r.watch()
				l.more(100)
				next := r.start(binary, "--takeover")
				next.says("took over")
				current.says("this process drains")
				l.more(100)
				if r.ask("GET", "/ready") == "" {
					t.Fatal("not ready after an upgrade")
				}
				if current.ended() {
					t.Error("the process before ended with an answer under way")
				}
				r.changes(watch, i)
				end()
				close(r.held)
				if code := current.wait(); code != 0 {
					t.Fatalf("the process before ended with %d", code)
				}
				answers.Wait()
				r.held = make(chan struct{})
				current = next
			}
			l.stop()
			current.signal(syscall.SIGTERM)
			if code := current.wait(); code != 0 {
				t.Fatalf("the last process ended with %d", code)
			}
			for _, path := range []string{r.admin, r.config.UpgradeSocket} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s is left behind", path)
				}
			}
		})
	}
}

// awaitDatagrams waits until the gateway's port for datagrams is open.
func (r *rig) awaitDatagrams() {
	r.t.Helper()
	r.eventually("the port for datagrams is open", func() bool {
		c, err := net.Dial("udp", r.game)
		if err != nil {
			r.t.Fatal(err)
		}
		defer c.Close()
		return ask(c, "first") == nil
	})
}

// awaitHTTP3 waits until the gateway's port for HTTP/3 is open.
func (r *rig) awaitHTTP3() {
	r.t.Helper()
	c, end := r.http3()
	defer end()
	c.Timeout = 10 * time.Second
	r.eventually("the port for HTTP/3 is open", func() bool { return (&load{r: r}).post(c, "https://"+r.secure, "first") == nil })
}

// watch begins a stream of gRPC and waits for its first message.
func (r *rig) watch() (w healthv1.Health_WatchClient, end func()) {
	r.t.Helper()
	ctx, end := context.WithCancel(r.t.Context())
	w, err := r.dialGRPC().Watch(ctx, &healthv1.HealthCheckRequest{})
	if err == nil {
		_, err = w.Recv()
	}
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	return w, end
}

// changes lets the workload send another message on the stream.
func (r *rig) changes(w healthv1.Health_WatchClient, n int) {
	r.t.Helper()
	status := []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_NOT_SERVING, healthv1.HealthCheckResponse_SERVING}[n%2]
	r.health.SetServingStatus("", status)
	if m, err := w.Recv(); err != nil || m.Status != status {
		r.t.Errorf("a stream over an upgrade: %v, %v", m, err)
	}
}

// hold begins a request whose answer ends when r.held is closed, and waits for the answer's beginning.
func (r *rig) hold(answers *sync.WaitGroup) {
	r.t.Helper()
	r.holdBy(answers, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+r.address, func() {})
}

// hold3 does so over HTTP/3.
func (r *rig) hold3(answers *sync.WaitGroup) {
	r.t.Helper()
	c, end := r.http3()
	r.holdBy(answers, c, "https://"+r.secure, end)
}

func (r *rig) holdBy(answers *sync.WaitGroup, c *http.Client, at string, end func()) {
	r.t.Helper()
	res, err := c.Get(at + "/slow")
	if err != nil {
		r.t.Fatal(err)
	}
	answers.Go(func() { // ends when the answer does
		defer end()
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "begun and ended" {
			r.t.Errorf("an answer over an upgrade: %q, %v", body, err)
		}
	})
}

// program writes a shell script that takes a proxy's place.
func (r *rig) program(text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestFailedUpgradeChangesNothing(t *testing.T) {
	r := newRig(t, wire.Gateway)
	old := r.first()
	l := r.load()
	defer l.stop()
	if code := r.start(r.program("exit 7"), "--takeover").wait(); code != 7 {
		t.Fatalf("the program ended with %d", code)
	}
	l.more(50)
	// One that has the sockets already, and cannot become ready: its control plane is another's.
	good, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), `"stateDir":"`+r.config.StateDir, `"stateDir":"`+r.dir+`/nothing`, 1)
	bad = strings.Replace(bad, "/xds\"", "/nowhere\"", 1)
	if err := os.WriteFile(r.file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	stuck := r.start(binary, "--takeover")
	old.says("upgrade begins")
	l.more(50)
	if second := r.start(binary, "--takeover"); second.wait() != 3 || !strings.Contains(second.out.String(), "an upgrade is under way already, by process") {
		t.Errorf("the second of two upgrades: %d %s", second.cmd.ProcessState.ExitCode(), second.out)
	}
	stuck.signal(syscall.SIGKILL)
	stuck.wait()
	old.says("this process carries on")
	l.more(50)
	if old.ended() || r.ask("GET", "/ready") == "" {
		t.Fatal("the old process does not carry on")
	}
	if err := os.WriteFile(r.file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	next := r.start(binary, "--takeover")
	next.says("took over")
	l.more(50)
	old.wait()
	if next.ended() {
		t.Fatal("the successor ended")
	}
}

func TestUpgradeOfWhatDrainsIsRefused(t *testing.T) {
	r := newRig(t, wire.Sidecar)
	old := r.first()
	var answers sync.WaitGroup
	defer answers.Wait()
	r.hold(&answers)
	defer close(r.held)
	r.ask("POST", "/drain")
	next := r.start(binary, "--takeover")
	if code := next.wait(); code != 3 || !strings.Contains(next.out.String(), "is draining") {
		t.Fatalf("%d %s", code, next.out)
	}
	if old.ended() {
		t.Fatal("the old process ended")
	}
}

func TestUpgradeWhileThePredecessorDrains(t *testing.T) {
	r := newRig(t, wire.Gateway)
	first := r.first()
	var answers sync.WaitGroup
	defer answers.Wait()
	l := r.load()
	r.hold(&answers)
	second := r.start(binary, "--takeover")
	second.says("took over")
	r.hold(&answers)
	third := r.start(binary, "--takeover")
	third.says("took over")
	l.more(100)
	if first.ended() || second.ended() {
		t.Error("a process ended with an answer under way")
	}
	close(r.held)
	if a, b := first.wait(), second.wait(); a != 0 || b != 0 {
		t.Errorf("ended with %d and %d", a, b)
	}
	l.more(50)
	l.stop()
}

func TestTakeoverOfNobody(t *testing.T) {
	r := newRig(t, wire.Sidecar)
	p := r.start(binary, "--takeover")
	if code := p.wait(); code != 3 || !strings.Contains(p.out.String(), "no proxy runs there") {
		t.Fatalf("%d %s", code, p.out)
	}
}

func TestSupervisor(t *testing.T) {
	r := newRig(t, wire.Gateway)
	s := r.start(binary, "--supervise")
	r.eventually("ready", func() bool { return s.ended() || r.ask("GET", "/ready") != "" })
	l := r.load()
	l.more(50)
	for n := 1; n <= 2; n++ {
		s.signal(syscall.SIGHUP)
		r.eventually("an upgrade", func() bool { return strings.Count(s.out.String(), "took over") == n })
		r.eventually("the end of the process before", func() bool { return strings.Count(s.out.String(), "process ended") == n })
		l.more(50)
	}
	l.stop()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Fatalf("ended with %d", code)
	}
}
