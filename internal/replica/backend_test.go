package replica

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

func TestJoinRefusesWhatAProxyCannotStartWith(t *testing.T) {
	c, err := control.New(control.Options{StateDir: t.TempDir(), Address: "127.0.0.1:0", HTTPAddress: "-"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := &replica{control: c, Options: Options{Settings: model.Settings{TrustDomain: "cluster.local"}}}
	good := api.JoinRequest{Name: "reviews-1", Namespace: "default", ServiceAccount: "reviews", Workload: "reviews-v1"}
	reply, err := r.Join(t.Context(), good)
	var b wire.Bootstrap
	if err != nil || json.Unmarshal(reply.Bootstrap, &b) != nil || b.Control != c.Addr().String() || b.Check() != nil {
		t.Fatalf("%v: %s", err, reply.Bootstrap)
	}
	if edge := (api.JoinRequest{Name: "edge-1", Namespace: "default", ServiceAccount: "edge", Workload: "edge", Gateway: true, Labels: map[string]string{"istio": "edge"}}); len(reply.Notes) > 0 {
		t.Errorf("notes of a sidecar: %q", reply.Notes)
	} else if reply, err := r.Join(t.Context(), edge); err != nil || len(reply.Notes) != 1 ||
		!strings.Contains(reply.Notes[0], `spec: {address: ADDRESS, serviceAccount: edge, labels: {"istio":"edge"}}`) {
		t.Errorf("a gateway that nobody knows: %q, %v", reply.Notes, err)
	}
	for want, change := range map[string]func(*api.JoinRequest){
		"node.name":     func(q *api.JoinRequest) { q.Name = "Bad Name" },
		"node.workload": func(q *api.JoinRequest) { q.Workload = "a~b" },
		"node.ip":       func(q *api.JoinRequest) { q.IP = "nonsense" },
		"control":       func(q *api.JoinRequest) { q.Control = "10.0.0.1:15012,nonsense" },
		"admin":         func(q *api.JoinRequest) { q.Admin = "15000" },
		"drainSeconds":  func(q *api.JoinRequest) { q.DrainSeconds = new(-1) },
	} {
		bad := good
		change(&bad)
		if reply, err := r.Join(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want+": ") {
			t.Errorf("%s: %v: %s", want, err, reply.Bootstrap)
		}
	}
}

func TestNewsAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	r := &replica{Options: Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	wrong := []model.Finding{{Severity: model.Error, File: "a.yaml", Message: "wrong"}, {Severity: model.Info, Message: "by the way"}}
	told := r.tellNews(nil, wrong)
	told = r.tellNews(told, wrong)
	r.tellNews(told, nil)
	if got := log.String(); strings.Count(got, "something is wrong") != 1 || strings.Count(got, "right again") != 1 || strings.Contains(got, "by the way") {
		t.Error(got)
	}
	log.Reset()
	var many []model.Finding
	for i := range 2 * tellMost {
		many = append(many, model.Finding{Severity: model.Warning, Line: i, File: strings.Repeat("x", i)})
	}
	r.tellNews(nil, many)
	if got := log.String(); strings.Count(got, "\n") != tellMost+1 || !strings.Contains(got, "more=20") {
		t.Error(got)
	}
}

// TestNothingIsLeft of a control plane that could not start.
func TestNothingIsLeft(t *testing.T) {
	run := filepath.Join(t.TempDir(), "weft", "x")
	err := Run(t.Context(), Options{Mesh: "x", StateDir: t.TempDir(), RunDir: run, Kubeconfig: "/nowhere", Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Fatal(err)
	}
	if _, err := os.Stat(run); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", run, err)
	}
}

// TestWaitsForEtcd: a control plane that starts before its etcd says so, and can be ended.
func TestWaitsForEtcd(t *testing.T) {
	run := filepath.Join(t.TempDir(), "weft", "x")
	ended := make(chan error, 1)
	go func() { // ends with down
		ended <- Run(t.Context(), Options{Mesh: "x", StateDir: t.TempDir(), RunDir: run, Etcd: []string{"127.0.0.1:1"}, Log: slog.New(slog.DiscardHandler)})
	}()
	client := api.NewClient(filepath.Join(run, "api.sock"))
	defer client.Close()
	_, err := client.Status(t.Context())
	for errors.Is(err, api.ErrNotRunning) {
		runtime.Gosched()
		_, err = client.Status(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "waits for etcd since 2") || !strings.Contains(err.Error(), "no answer from 127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if err := client.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(run); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", run, err)
	}
}

// TestGoneMayBeElsewhere: where there may be other replicas, one that is gone from this one is not said to be gone from all.
func TestGoneMayBeElsewhere(t *testing.T) {
	proxies := func() []api.Proxy {
		return []api.Proxy{{Node: "a", State: "synced"}, {Node: "b", State: "gone", Reason: "it closed its stream"}}
	}
	for others, want := range map[bool]string{true: "it closed its stream; another replica may have it", false: "it closed its stream"} {
		if got := orElsewhere(proxies(), others); got[0].Reason != "" || got[1].Reason != want {
			t.Errorf("others %v: %+v", others, got)
		}
	}
}
