package proxy

import (
	"io"
	"net/http"

	"github.com/weftmesh/weft/internal/proxy/admin"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/internal/telemetry"
)

// Handler serves the admin interface, for whoever listens for it elsewhere.
func (p *Proxy) Handler() http.Handler {
	f := &admin.Facts{
		Version: p.opt.Version, Node: p.opt.Bootstrap.Node, Log: p.log, Started: p.started, Epoch: p.epoch(),
		Unready: p.Unready, Unbound: p.state.Unbound, Lacking: p.state.Lacking, Snapshot: p.config.Snapshot, Clusters: p.Clusters, Listeners: p.Listeners,
		Identity: p.source.Current, Stats: p.Stats, Metrics: p.metrics.WriteTo,
		Drain: p.drain, Drained: p.Drained, Quit: p.Quit, Level: p.opt.Level,
	}
	if p.plane != nil {
		f.Live, f.Resources = p.plane.Live.Status, p.plane.Live.Resources
	}
	return admin.Handler(f)
}

// Metrics writes the metrics page.
func (p *Proxy) Metrics(w io.Writer) error {
	_, err := p.metrics.WriteTo(w)
	return err
}

// Unready says why the proxy is not ready; empty when it is.
func (p *Proxy) Unready() string {
	if p.draining() {
		return admin.Draining
	}
	if s := p.guard.Stage(); s >= overload.Refuse {
		return "memory: overload stage " + s.String()
	}
	return p.state.Missing()
}

// Clusters describes all running clusters.
func (p *Proxy) Clusters() []admin.Cluster { return p.clusters.Describe() }

// drain begins draining, of what the workload calls too unless inboundOnly.
func (p *Proxy) drain(inboundOnly bool) {
	p.Drain()
	if !inboundOnly {
		p.ending.Store(true)
	}
}

// Listeners describes what is open.
func (p *Proxy) Listeners() []admin.Listener {
	if r := p.running.Load(); r != nil {
		return r.list()
	}
	return nil
}

// gauges are the proxy's own metrics.
func (p *Proxy) gauges(page *telemetry.Page) {
	page.Stats(p.Stats())
	open, working := p.tracker.Counts()
	page.Gauge("weft_downstream_connections", "Open HTTP connections of clients.", float64(open))
	page.Gauge("weft_downstream_requests_active", "Requests under way.", float64(working))
	load := p.guard.Facts()
	page.Gauge("weft_overload_stage", "Shortness of memory or descriptors: 0 none, 1 idle connections are closed, 2 requests refused, 3 connections too.", float64(load.Stage))
	page.Gauge("weft_memory_used_bytes", "Memory of the process.", float64(load.Memory))
	page.Gauge("weft_memory_limit_bytes", "The limit of memory, 0 for none.", float64(load.MemoryLimit))
	page.Gauge("weft_listener_connections", "Open connections of clients, relayed ones included.", float64(load.Connections))
	page.Counter("weft_overload_connections_total", "Connections of clients turned away by limits.", float64(load.TurnedAway))
	page.Gauge("weft_listener_connections_max", "Connections of clients for which there are file descriptors, 0 for no limit.", float64(load.Bearable))
	page.Counter("weft_descriptors_exhausted_total", "Times that no file descriptor was left for a connection.", float64(load.Exhausted))
	page.Counter("weft_connections_evicted_total", "Idle connections of clients closed for want of file descriptors.", float64(p.evicted.Load()))
	page.Counter("weft_ratelimit_failures_total", "Requests of which a rate-limit service said nothing in time.", float64(p.carrier.Unasked.Load()))
	page.Counter("weft_overload_requests_total", "Requests refused by limits.", float64(load.Refused))
	page.Counter("weft_overload_answers_total", "Answers cut off for want of memory, because clients took too little of them.", float64(load.Shed))
	page.Counter("weft_access_log_dropped_total", "Access log lines lost because the writer was too slow.", float64(p.book.Dropped()))
	page.Gauge("weft_restart_epoch", "Takeovers since the first process of this proxy.", float64(p.epoch()))
	if t := p.opt.Taken; t != nil {
		left, draining := t.Left()
		page.Gauge("weft_predecessor_draining", "Whether the process before this one still ends connections.", number(draining))
		page.Gauge("weft_predecessor_connections", "Connections that the process before this one still has.", float64(left))
	}
	page.Counter("weft_mirror_dropped_total", "Mirrored requests that were not sent.", float64(p.carrier.Mirrors.Lost.Load()))
	page.Counter("weft_panics_total", "Requests whose handling failed by a mistake in the proxy.", float64(p.carrier.Panics.Load()))
	if m := p.source.Current(); m != nil && m.Certificate != nil {
		page.Gauge("weft_certificate_expiry_timestamp_seconds", "When the workload's certificate ends.", float64(m.NotAfter().Unix()))
	}
	if p.plane == nil {
		return
	}
	renewed, failed := p.plane.Authority.Stats()
	page.Counter("weft_certificate_renewals_total", "Certificates obtained.", float64(renewed))
	page.Counter("weft_certificate_failures_total", "Failed attempts to obtain one.", float64(failed))
	_, stale := p.plane.Live.Stale()
	page.Gauge("weft_control_plane_connected", "Whether the configuration stream is up.", number(!stale))
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
