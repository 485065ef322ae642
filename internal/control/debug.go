package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weftmesh/weft/internal/control/model"
)

// handler serves metrics, readiness and what an operator may want to see. Nothing of it is secret: keys are not among it.
func (c *Control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(append(prometheus.Gatherers{c.registry}, c.options.Gatherers...), promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /ready", c.ready)
	mux.HandleFunc("GET /debug/clients", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.Clients()) })
	mux.HandleFunc("GET /debug/findings", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.Findings()) })
	mux.HandleFunc("GET /debug/services", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, services(c.Mesh())) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// ready says whether there is a mesh to serve.
func (c *Control) ready(w http.ResponseWriter, _ *http.Request) {
	if c.Mesh() == nil {
		http.Error(w, "the sources have not been read yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// service is a line of /debug/services.
type service struct {
	Host      string            `json:"host"`
	Addresses []string          `json:"addresses"`
	Ports     map[uint16]string `json:"ports"` // protocol by number
	Ready     []string          `json:"ready"` // addresses of the endpoints that get traffic
	NotReady  []string          `json:"notReady,omitempty"`
}

func services(mesh *model.Mesh) []service {
	if mesh == nil {
		return nil
	}
	var out []service
	for _, host := range slices.Sorted(mesh.Services.Keys()) {
		s := mesh.Services.Get(host)
		line := service{Host: host, Ports: map[uint16]string{}}
		for _, a := range s.VirtualAddresses() {
			line.Addresses = append(line.Addresses, a.String())
		}
		for _, n := range s.Networks {
			line.Addresses = append(line.Addresses, n.String())
		}
		for _, p := range s.Ports {
			line.Ports[p.Number] = string(p.Protocol)
		}
		for _, e := range s.Endpoints {
			if e.Ready {
				line.Ready = append(line.Ready, e.Address)
			} else {
				line.NotReady = append(line.NotReady, e.Address)
			}
		}
		out = append(out, line)
	}
	return out
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// An error here is the reader's connection; it has noticed.
	_ = enc.Encode(v)
}
