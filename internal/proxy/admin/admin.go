// Package admin is the interface of operators and of the control plane's collector: readiness, metrics, the configuration in force,
// what has been found out about endpoints, draining. Paths and forms are Envoy's where users know them.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/identity"
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
	// Unbound says why ports that the configuration names are not open, by listener, and Lacking the same in a line.
	Unbound  func() map[string]string
	Lacking  func() string
	Snapshot func() *conf.Snapshot
	// Live is the state of the configuration's keeper, and Resources what it holds; nil for none.
	Live      func() live.Status
	Resources func() []live.Resource
	Clusters  func() []Cluster
	Listeners func() []Listener
	Identity  func() *identity.Material
	Stats     func() []telemetry.Stat
	Metrics   func(w io.Writer) (int64, error)
	// Drain begins draining of what comes in, or of what the workload calls too; Drained waits until nothing comes in any more.
	Drain   func(inboundOnly bool)
	Drained func(ctx context.Context)
	// Quit makes the proxy drain and end.
	Quit func()
	// Level is the log's; nil where it cannot be changed.
	Level *slog.LevelVar
}

// Listener is an open one. Address is where it really listens.
type Listener struct{ Name, Address string }

// Handler serves the pages. What changes the proxy, and profiles, are for the machine's own loopback and unix sockets.
func Handler(f *Facts) http.Handler {
	mux := http.NewServeMux()
	for _, p := range f.pages() {
		serve := p.serve
		if takes, ok := parameters[p.path]; ok || p.method == "POST " {
			serve = taking(p.path, takes, serve)
		}
		if p.local {
			serve = local(serve)
		}
		mux.HandleFunc(p.method+p.path, serve)
	}
	mux.HandleFunc("GET /{$}", f.index)
	mux.HandleFunc("/", f.missed)
	return mux
}

// page is one path. method is "GET " or "POST "; empty takes both.
type page struct {
	method, path string
	local        bool
	text         string // for the index
	serve        http.HandlerFunc
}

func (f *Facts) pages() []page {
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if why := f.Unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		if lacking := f.Lacking(); lacking != "" {
			fmt.Fprintln(w, wire.ReadyBut+lacking)
			return
		}
		fmt.Fprintln(w, "ready")
	}
	show := func(of func() any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { f.writeJSON(w, of()) }
	}
	return []page{
		{"GET ", "/certs", false, "certificates of the workload, public facts", show(f.certs)},
		{"GET ", "/clusters", false, "clusters and what was found out about their endpoints; ?format=json", f.clusters},
		{"GET ", "/config_dump", false, "the configuration in force, without secrets; ?resource=dynamic_active_clusters and the like, ?name_regex", f.configDump},
		{"", "/debug/pprof/", true, "profiles of the Go runtime", pprof.Index},
		{"", "/debug/pprof/cmdline", true, "", pprof.Cmdline},
		{"", "/debug/pprof/profile", true, "", pprof.Profile},
		{"", "/debug/pprof/symbol", true, "", pprof.Symbol},
		{"", "/debug/pprof/trace", true, "", pprof.Trace},
		{"POST ", "/drain", true, "end inbound connections after their current request; answers when none is left", f.drain},
		{"POST ", "/drain_listeners", true, "begin to drain, and answer at once; ?inboundonly leaves what the workload calls", f.drainListeners},
		{"GET ", "/healthz", false, "200 while the proxy runs", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }},
		{"GET ", "/healthz/ready", false, "as /ready", ready},
		{"GET ", "/help", false, "", f.index},
		{"GET ", "/listeners", false, "open listeners; ?format=json", f.listeners},
		{"POST ", "/logging", true, "?level=debug, info, warning or error", f.logging},
		{"GET ", "/memory", false, "memory in use, in bytes", show(memory)},
		{"GET ", "/metrics", false, "as /stats/prometheus", f.metrics},
		{"POST ", "/quitquitquit", true, "drain and end", f.quit},
		{"GET ", "/ready", false, "200 when the proxy can serve, and which ports it cannot open; else 503 and what is missing", ready},
		{"GET ", "/server_info", false, "version, state, epoch, node", show(func() any { return f.serverInfo() })},
		{"GET ", "/stats", false, "counters; ?filter=REGEXP, ?usedonly, ?format=json or prometheus", f.stats},
		{"GET ", "/stats/prometheus", false, "all metrics; ?filter=REGEXP, ?usedonly", f.metrics},
	}
}

// parameters are those that pages with any take. Others are refused, there and by the pages that act: nobody shall believe a page
// chosen from that is whole, and a mistyped word shall not do more than was asked for.
var parameters = map[string][]string{
	"/clusters":         {"format"},
	"/config_dump":      {"include_eds", "name_regex", "resource"},
	"/drain_listeners":  {"graceful", "inboundonly"}, // graceful is the only way that there is
	"/listeners":        {"format"},
	"/logging":          {"level"},
	"/metrics":          {"filter", "usedonly"},
	"/stats":            {"filter", "format", "usedonly"},
	"/stats/prometheus": {"filter", "usedonly"},
}

// taking refuses parameters that a page does not take.
func taking(path string, takes []string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, "parameters that cannot be read: "+err.Error(), http.StatusBadRequest)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(r.Form)) {
			if !slices.Contains(takes, name) {
				http.Error(w, fmt.Sprintf("%s has no parameter %q; it takes %s", path, name, cmp.Or(strings.Join(takes, ", "), "none")), http.StatusBadRequest)
				return
			}
		}
		serve(w, r)
	}
}

// missed answers what no page does: a wrong method is told the right one, a wrong path where the right ones are listed.
func (f *Facts) missed(w http.ResponseWriter, r *http.Request) {
	for _, p := range f.pages() {
		if p.path == r.URL.Path {
			method := strings.TrimSpace(p.method)
			w.Header().Set("Allow", method)
			http.Error(w, fmt.Sprintf("%s takes %s, not %s", p.path, method, r.Method), http.StatusMethodNotAllowed)
			return
		}
	}
	http.Error(w, fmt.Sprintf("there is no page %s; /help lists those that there are", r.URL.Path), http.StatusNotFound)
}

// local refuses callers from other machines.
func local(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// A unix socket's peer has no address that could be parsed.
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "only from this machine's loopback", http.StatusForbidden)
			return
		}
		serve(w, r)
	}
}

func (f *Facts) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", plainText)
	for _, p := range f.pages() {
		if p.text != "" {
			fmt.Fprintf(w, "%-5s%-20s %s\n", p.method, p.path, p.text)
		}
	}
}

func (f *Facts) clusters(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("format") == "json" {
		f.writeJSON(w, clusterStatuses(f.Clusters()))
		return
	}
	w.Header().Set("Content-Type", plainText)
	writeClusters(w, f.Clusters())
}

func (f *Facts) listeners(w http.ResponseWriter, r *http.Request) {
	list := f.Listeners()
	if r.FormValue("format") != "json" {
		w.Header().Set("Content-Type", plainText)
		for _, l := range list {
			fmt.Fprintf(w, "%s::%s\n", l.Name, l.Address)
		}
		return
	}
	statuses := []any{}
	for _, l := range list {
		statuses = append(statuses, map[string]any{"name": l.Name, "local_address": socketAddress(l.Address)})
	}
	f.writeJSON(w, map[string]any{"listener_statuses": statuses})
}

func (f *Facts) drain(w http.ResponseWriter, r *http.Request) {
	f.Drain(true)
	f.Drained(r.Context())
	fmt.Fprintln(w, "drained")
}

func (f *Facts) drainListeners(w http.ResponseWriter, r *http.Request) {
	f.Drain(r.Form.Has("inboundonly"))
	fmt.Fprintln(w, "OK")
}

func (f *Facts) quit(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "OK")
	f.Quit()
}

// levels are Envoy's names; what we do not tell apart is the nearest.
var levels = map[string]slog.Level{"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn,
	"warn": slog.LevelWarn, "error": slog.LevelError, "critical": slog.LevelError}

func (f *Facts) logging(w http.ResponseWriter, r *http.Request) {
	if f.Level == nil {
		http.Error(w, "the level of this log is not the proxy's to change", http.StatusNotImplemented)
		return
	}
	if name := r.FormValue("level"); name != "" {
		level, ok := levels[name]
		if !ok {
			http.Error(w, fmt.Sprintf("level %q is none of debug, info, warning and error", name), http.StatusBadRequest)
			return
		}
		f.Level.Set(level)
	}
	fmt.Fprintln(w, "level:", strings.ToLower(f.Level.Level().String()))
}

// memory is envoy.admin.v3.Memory as far as Go's runtime can tell.
func memory() any {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return map[string]string{
		"allocated": strconv.FormatUint(m.HeapAlloc, 10), "heap_size": strconv.FormatUint(m.HeapSys, 10),
		"pageheap_free": strconv.FormatUint(m.HeapIdle-m.HeapReleased, 10), "pageheap_unmapped": strconv.FormatUint(m.HeapReleased, 10),
		"total_physical_bytes": strconv.FormatUint(m.Sys-m.HeapReleased, 10),
	}
}

func (f *Facts) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		f.Log.Debug("admin answer", "error", err)
	}
}
