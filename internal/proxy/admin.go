package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// status is what readiness depends on.
type status struct {
	mu       sync.Mutex
	ready    chan struct{} // closed when there is identity and configuration
	done     bool
	bound    bool
	ports    int
	unbound  map[string]string
	settled  bool // the gateway's ports were bound, or tried
	identity bool
}

// configured gives a channel that is closed once identity and first configuration are there.
func (s *status) configured() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready == nil {
		s.ready = make(chan struct{})
	}
	return s.ready
}

func (s *status) bind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = true
}

func (s *status) gateway(open int, failed map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports, s.unbound, s.settled = open, failed, true
}

// becomeReady waits for what the proxy cannot serve without.
func (p *Proxy) becomeReady(ctx context.Context) {
	configured := p.state.configured()
	if p.control != nil {
		select {
		case <-p.control.authority.Ready():
		case <-ctx.Done():
			return
		}
	}
	p.state.mu.Lock()
	p.state.identity = true
	p.state.mu.Unlock()
	if p.config.Ready(ctx) != nil {
		return // ctx has ended
	}
	p.state.mu.Lock()
	p.state.done = true
	p.state.mu.Unlock()
	close(configured)
}

// Unready says why the proxy is not ready; empty when it is.
func (p *Proxy) Unready() string {
	s := &p.state
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.draining():
		return "draining"
	case !s.identity:
		return "no certificate yet"
	case !s.done:
		return "no configuration yet"
	case !s.bound:
		return "listeners are not open yet"
	case p.opt.Bootstrap.Node.Role == wire.Gateway && !s.settled:
		return "gateway ports are not bound yet"
	case len(s.unbound) > 0 && s.ports == 0:
		return "no gateway port can be bound: " + unboundText(s.unbound)
	}
	return ""
}

// unboundText lists gateway listeners that are not bound, in the order of their ports: "port 8080: address already in use".
func unboundText(why map[string]string) string {
	port := func(listener string) int {
		n, err := strconv.Atoi(listener[strings.LastIndexByte(listener, '_')+1:])
		if err != nil {
			return -1 // not named by wire.GatewayListenerName
		}
		return n
	}
	names := slices.SortedFunc(maps.Keys(why), func(a, b string) int { return cmp.Or(cmp.Compare(port(a), port(b)), cmp.Compare(a, b)) })
	for i, name := range names {
		if n := port(name); n >= 0 {
			names[i] = "port " + strconv.Itoa(n)
		}
		names[i] += ": " + why[name]
	}
	return strings.Join(names, "; ")
}

// admin is the interface of operators and of the control plane's collector.
func (p *Proxy) admin() http.Handler {
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", telemetry.ContentType)
		if _, err := p.metrics.WriteTo(w); err != nil {
			p.log.Debug("metrics page", "error", err)
		}
	}
	mux.HandleFunc("GET /metrics", page)
	mux.HandleFunc("GET /stats/prometheus", page)
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if why := p.Unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
	mux.HandleFunc("GET /ready", ready)
	mux.HandleFunc("GET /healthz/ready", ready)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /config_dump", func(w http.ResponseWriter, _ *http.Request) { p.writeJSON(w, p.dump()) })
	mux.HandleFunc("GET /clusters", func(w http.ResponseWriter, _ *http.Request) { p.writeJSON(w, p.Clusters()) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, r *http.Request) {
		p.Drain()
		p.Drained(r.Context())
		fmt.Fprintln(w, "drained")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (p *Proxy) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		p.log.Debug("admin answer", "error", err)
	}
}

// dump is the configuration in force with the state of its keeper. Private keys are not in it.
func (p *Proxy) dump() any {
	d := struct {
		Version  string            `json:"version,omitempty"`
		Node     wire.Node         `json:"node"`
		Ready    string            `json:"notReady,omitempty"`
		Unbound  map[string]string `json:"unboundGatewayPorts,omitempty"`
		Live     *live.Status      `json:"live,omitempty"`
		Snapshot any               `json:"snapshot"`
	}{Version: p.opt.Version, Node: p.opt.Bootstrap.Node, Ready: p.Unready(), Snapshot: redacted(p.config.Snapshot())}
	p.state.mu.Lock()
	d.Unbound = p.state.unbound
	p.state.mu.Unlock()
	if p.control != nil {
		s := p.control.live.Status()
		d.Live = &s
	}
	return d
}

// ClusterStatus is a running cluster, for people and tests.
type ClusterStatus struct {
	Name        string           `json:"name"`
	Connections int64            `json:"connections"`
	Pending     int64            `json:"pending"`
	Requests    int64            `json:"requests"`
	Retries     int64            `json:"retries"`
	Endpoints   []EndpointStatus `json:"endpoints"`
}

// EndpointStatus is an endpoint as its users have found it.
type EndpointStatus struct {
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

// Clusters describes all running clusters.
func (p *Proxy) Clusters() []ClusterStatus {
	var list []ClusterStatus
	now := p.opt.Now()
	for _, c := range p.clusters.all() {
		s := ClusterStatus{Name: c.conf.Name, Endpoints: []EndpointStatus{}}
		s.Connections, s.Pending, s.Requests, s.Retries = c.breaker.InUse()
		for _, e := range c.endpoints() {
			es := EndpointStatus{Address: e.raw.Address, Workload: e.host.Endpoint.Workload, Condition: e.host.Condition(now),
				MutualTLS: e.raw.Source != nil, Active: e.host.Active()}
			es.Open, es.Idle = e.pool.Count()
			if f := e.host.LastFailure(); f != nil {
				es.LastFailure, es.FailedAt = f.Text, f.At
			}
			s.Endpoints = append(s.Endpoints, es)
		}
		list = append(list, s)
	}
	return list
}

func (c *cluster) endpoints() []*endpoint {
	list := append([]*endpoint(nil), c.ends...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.visited {
		list = append(list, e)
	}
	return list
}

// gauges are the proxy's own metrics.
func (p *Proxy) gauges(page *telemetry.Page) {
	open, working := p.tracker.counts()
	page.Gauge("weft_downstream_connections", "Open HTTP connections of clients.", float64(open))
	page.Gauge("weft_downstream_requests_active", "Requests under way.", float64(working))
	page.Counter("weft_access_log_dropped_total", "Access log lines lost because the writer was too slow.", float64(p.access.Dropped()))
	page.Counter("weft_mirror_dropped_total", "Mirrored requests that were not sent.", float64(p.unmirrored.Load()))
	if m := p.source.Current(); m != nil && m.Certificate != nil {
		page.Gauge("weft_certificate_expiry_timestamp_seconds", "When the workload's certificate ends.", float64(m.NotAfter().Unix()))
	}
	if p.control == nil {
		return
	}
	renewed, failed := p.control.authority.Stats()
	page.Counter("weft_certificate_renewals_total", "Certificates obtained.", float64(renewed))
	page.Counter("weft_certificate_failures_total", "Failed attempts to obtain one.", float64(failed))
	connected := 1.0
	if _, stale := p.control.live.Stale(); stale {
		connected = 0
	}
	page.Gauge("weft_control_plane_connected", "Whether the configuration stream is up.", connected)
}
