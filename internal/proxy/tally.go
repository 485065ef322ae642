package proxy

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
)

// tally counts what became of a cluster's requests. It outlives the cluster's versions.
type tally struct {
	upstream.Counts
	attempts, retries, retriesWell, retryOverflow, timeouts, tryTimeouts, overflow, relays atomic.Int64
	classes                                                                                [6]atomic.Int64 // of answers, by the status's first digit
}

// count takes a finished exchange.
func (t *tally) count(x *exchange) {
	if x.to != nil {
		t.attempts.Add(int64(x.attempt))
	}
	if again := int64(x.attempt) - 1; again > 0 {
		t.retries.Add(again)
		if x.err == nil && x.status < 500 {
			t.retriesWell.Add(1)
		}
	}
	if x.err == nil || x.err.Fault() == failure.OfUpstream || x.err.Kind == failure.Overflow { // as in Envoy our answers in the upstream's place count
		if class := x.status / 100; class < len(t.classes) {
			t.classes[class].Add(1)
		}
	}
	if x.err == nil {
		return
	}
	switch x.err.Kind {
	case failure.UpstreamTimeout:
		t.timeouts.Add(1)
	case failure.TryTimeout:
		t.tryTimeouts.Add(1)
	case failure.Overflow:
		t.overflow.Add(1)
	}
}

// used reports whether there is anything to tell.
func (t *tally) used() bool {
	return t.attempts.Load()+t.Connected.Load()+t.Failed.Load()+t.overflow.Load() > 0
}

// maxClusterStats bounds the clusters on a metrics page.
const maxClusterStats = 500

// Stats are the proxy's own counters by Envoy's names: of the server, of its listeners, and of the clusters that were used.
func (p *Proxy) Stats() []telemetry.Stat {
	list := append(p.serverStats(), p.controlStats()...)
	p.traffic.each(func(name string, t *traffic) {
		list = append(list, telemetry.Stat{Scope: "listener", Instance: name, Name: "downstream_cx_total", Value: t.total.Load()},
			telemetry.Stat{Scope: "listener", Instance: name, Name: "downstream_cx_active", Gauge: true, Value: t.active.Load()})
	})
	shown := 0
	for _, c := range p.clusters.all() {
		if !c.tally.used() && c.names.attempts.Load() == 0 {
			continue
		}
		if shown++; shown > maxClusterStats {
			break
		}
		list = c.stats(list)
	}
	return list
}

func (c *cluster) stats(list []telemetry.Stat) []telemetry.Stat {
	t := &c.tally
	add := func(name string, gauge bool, value int64) {
		list = append(list, telemetry.Stat{Scope: "cluster", Instance: c.conf.Name, Name: name, Gauge: gauge, Value: value})
	}
	connections, pending, requests, _ := c.inUse()
	healthy, ejected, members := int64(0), int64(0), int64(len(c.balancer.Hosts()))
	for _, h := range c.balancer.Hosts() {
		if h.Healthy() {
			healthy++
		}
		if h.Ejected() {
			ejected++
		}
	}
	if c.conf.Discovery == conf.OriginalDst { // those that were connected to lately
		members = int64(len(c.endpoints()))
		healthy = members
	}
	add("membership_healthy", true, healthy)
	add("membership_total", true, members)
	add("outlier_detection_ejections_active", true, ejected)
	add("outlier_detection_ejections_enforced_total", false, c.balancer.Ejections())
	add("ssl_connection_error", false, t.HandshakesFailed.Load())
	add("ssl_handshake", false, t.Handshakes.Load())
	add("upstream_cx_active", true, connections+t.relays.Load())
	add("upstream_cx_connect_fail", false, t.Failed.Load())
	add("upstream_cx_connect_timeout", false, t.TimedOut.Load())
	add("upstream_cx_total", false, t.Connected.Load()+t.Failed.Load())
	for class, name := range []string{2: "upstream_rq_2xx", 3: "upstream_rq_3xx", 4: "upstream_rq_4xx", 5: "upstream_rq_5xx"} {
		if name != "" {
			add(name, false, t.classes[class].Load())
		}
	}
	add("upstream_rq_active", true, requests)
	add("upstream_rq_pending_active", true, pending)
	add("upstream_rq_pending_overflow", false, t.overflow.Load())
	add("upstream_rq_per_try_timeout", false, t.tryTimeouts.Load())
	add("upstream_rq_retry", false, t.retries.Load())
	add("upstream_rq_retry_overflow", false, t.retryOverflow.Load())
	add("upstream_rq_retry_success", false, t.retriesWell.Load())
	add("upstream_rq_timeout", false, t.timeouts.Load())
	add("upstream_rq_total", false, t.attempts.Load())
	if n := &c.names; named(c.conf) {
		add("update_attempt", false, n.attempts.Load())
		add("update_empty", false, n.empty.Load())
		add("update_failure", false, n.failures.Load())
		add("update_success", false, n.successes.Load())
	}
	return list
}

// controlStats is the stream to the control plane as the connection of a cluster, by the name that Istio's bootstrap of Envoy gives it
// and its dashboards read.
func (p *Proxy) controlStats() []telemetry.Stat {
	if p.plane == nil {
		return nil
	}
	_, stale := p.plane.Live.Stale()
	return []telemetry.Stat{{Scope: "cluster", Instance: "xds-grpc", Name: "upstream_cx_active", Gauge: true, Value: int64(number(!stale))}}
}

func (p *Proxy) serverStats() []telemetry.Stat {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	connections := int64(0)
	p.traffic.each(func(_ string, t *traffic) { connections += t.active.Load() })
	state := int64(2) // envoy.admin.v3.ServerInfo.State: LIVE 0, DRAINING 1, PRE_INITIALIZING 2
	switch {
	case p.draining():
		state = 1
	case p.state.Missing() == "":
		state = 0
	}
	list := []telemetry.Stat{
		{Name: "concurrency", Value: int64(runtime.GOMAXPROCS(0))}, {Name: "hot_restart_epoch", Value: int64(p.epoch())},
		{Name: "live", Value: int64(number(state == 0))}, {Name: "memory_allocated", Value: int64(m.HeapAlloc)},
		{Name: "memory_heap_size", Value: int64(m.HeapSys)}, {Name: "memory_physical_size", Value: int64(m.Sys)},
		{Name: "state", Value: state}, {Name: "total_connections", Value: connections},
		{Name: "uptime", Value: int64(time.Since(p.started).Seconds())},
	}
	if m := p.source.Current(); m != nil && m.Certificate != nil {
		list = append(list, telemetry.Stat{Name: "days_until_first_cert_expiring", Value: int64(m.NotAfter().Sub(p.opt.Now()).Hours() / 24)})
	}
	for i := range list {
		list[i].Scope, list[i].Gauge = "server", true
	}
	return list
}

// traffic is what came to one listener.
type traffic struct{ total, active atomic.Int64 }

// listeners counts by listener: configured address of those of the bootstrap, name of a gateway's.
type listeners struct {
	mu     sync.RWMutex
	byName map[string]*traffic
}

func (l *listeners) get(name string) *traffic {
	l.mu.RLock()
	t := l.byName[name]
	l.mu.RUnlock()
	if t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.byName[name]; t != nil {
		return t
	}
	if l.byName == nil {
		l.byName = map[string]*traffic{}
	}
	t = &traffic{}
	l.byName[name] = t
	return t
}

func (l *listeners) each(f func(name string, t *traffic)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(l.byName)) {
		f(name, l.byName[name])
	}
}

// serve counts a connection while it is handled.
func (t *traffic) serve(a listen.Accepted, handle func(listen.Accepted)) {
	t.total.Add(1)
	t.active.Add(1)
	a.AtEnd(func() { t.active.Add(-1) })
	handle(a)
}
