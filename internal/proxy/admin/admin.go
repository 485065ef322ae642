// Package admin is the interface of operators and of the control plane's collector: readiness, metrics, the configuration in force,
// what has been found out about endpoints, draining. Paths and forms are Envoy's where users know them.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Facts are where the pages come from. Each func may be called from any goroutine.
type Facts struct {
	Version string
	Node    wire.Node
	Log     *slog.Logger
	Started time.Time
	// Epoch counts the takeovers before this process.
	Epoch int

	// Unready says why the proxy is not ready; empty when it is.
	Unready func() string
	// Unbound says why ports of a gateway are not open, by listener.
	Unbound  func() map[string]string
	Snapshot func() *conf.Snapshot
	// Live is the state of the configuration's keeper; nil for none.
	Live     func() live.Status
	Clusters func() []Cluster
	Metrics  func(w io.Writer) (int64, error)
	// Drain begins draining, and returns when it is over.
	Drain func(ctx context.Context)
}

// Cluster is a running cluster.
type Cluster struct {
	Name        string     `json:"name"`
	Connections int64      `json:"connections"`
	Pending     int64      `json:"pending"`
	Requests    int64      `json:"requests"`
	Retries     int64      `json:"retries"`
	Endpoints   []Endpoint `json:"endpoints"`
}

// Endpoint is an endpoint as its users have found it.
type Endpoint struct {
	Address     string    `json:"address"`
	Workload    string    `json:"workload,omitempty"`
	Condition   string    `json:"condition"`
	MutualTLS   bool      `json:"mutualTLS"`
	Active      int       `json:"activeRequests"`
	Open        int       `json:"openConnections"`
	Idle        int       `json:"idleConnections"`
	LastFailure string    `json:"lastFailure,omitempty"`
	FailedAt    time.Time `json:"failedAt,omitzero"`
}

// Handler serves the pages.
func Handler(f *Facts) http.Handler {
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", telemetry.ContentType)
		if _, err := f.Metrics(w); err != nil {
			f.Log.Debug("metrics page", "error", err)
		}
	}
	mux.HandleFunc("GET /metrics", page)
	mux.HandleFunc("GET /stats/prometheus", page)
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if why := f.Unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
	mux.HandleFunc("GET /ready", ready)
	mux.HandleFunc("GET /healthz/ready", ready)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /config_dump", func(w http.ResponseWriter, _ *http.Request) { f.writeJSON(w, f.dump()) })
	mux.HandleFunc("GET /clusters", func(w http.ResponseWriter, _ *http.Request) { f.writeJSON(w, f.Clusters()) })
	mux.HandleFunc("GET /server_info", func(w http.ResponseWriter, _ *http.Request) { f.writeJSON(w, f.serverInfo()) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, r *http.Request) {
		f.Drain(r.Context())
		fmt.Fprintln(w, "drained")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (f *Facts) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		f.Log.Debug("admin answer", "error", err)
	}
}

// dump is the configuration in force with the state of its keeper. Private keys are not in it.
func (f *Facts) dump() any {
	d := struct {
		Version  string            `json:"version,omitempty"`
		Node     wire.Node         `json:"node"`
		Ready    string            `json:"notReady,omitempty"`
		Unbound  map[string]string `json:"unboundGatewayPorts,omitempty"`
		Live     *live.Status      `json:"live,omitempty"`
		Snapshot any               `json:"snapshot"`
	}{Version: f.Version, Node: f.Node, Ready: f.Unready(), Unbound: f.Unbound(), Snapshot: redacted(f.Snapshot())}
	if f.Live != nil {
		s := f.Live()
		d.Live = &s
	}
	return d
}
