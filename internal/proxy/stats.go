package proxy

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/telemetry"
)

// Stats are the proxy's own counters by Envoy's names: of the server, of its listeners, and of the clusters that were used.
func (p *Proxy) Stats() []telemetry.Stat {
	list := append(p.serverStats(), p.controlStats()...)
	p.traffic.each(func(name string, t *traffic) {
		list = append(list, telemetry.Stat{Scope: "listener", Instance: name, Name: "downstream_cx_total", Value: t.total.Load()},
			telemetry.Stat{Scope: "listener", Instance: name, Name: "downstream_cx_active", Gauge: true, Value: t.active.Load()})
	})
	return p.clusters.Stats(p.relays.stats(list))
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
