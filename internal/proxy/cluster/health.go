package cluster

import (
	"context"
	"net"
	"reflect"
	"time"

	"github.com/weftmesh/weft/internal/proxy/check"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
)

// watches are the health checks of a cluster's endpoints; clusters.mu guards them.
type watches struct {
	checks []conf.HealthCheck
	ends   map[reachKey]func() // stops an endpoint's checks and waits for their end
}

// watch brings the health checks of a cluster to its newest version. It is called with mu held.
func (r *Set) watch(c *Cluster) {
	w := &c.watches
	if !reflect.DeepEqual(w.checks, c.Conf.HealthChecks) {
		w.stop()
		w.checks = c.Conf.HealthChecks
		if len(w.checks) == 0 {
			for _, h := range c.Balancer.Hosts() {
				c.Balancer.Check(h, true, nil)
			}
		}
	}
	if len(w.checks) == 0 {
		return
	}
	if w.ends == nil {
		w.ends = map[reachKey]func(){}
	}
	present := map[reachKey]bool{}
	for _, e := range c.ends {
		key := keyOf(e.Host.Endpoint)
		if present[key] = true; w.ends[key] == nil && e.Err == nil {
			w.ends[key] = r.start(c, e)
		}
	}
	for key, stop := range w.ends {
		if !present[key] {
			stop()
			delete(w.ends, key)
		}
	}
}

// stop ends all checks.
func (w *watches) stop() {
	for _, stop := range w.ends {
		stop()
	}
	w.ends = nil
}

// start checks an endpoint until the function that it gives is called.
func (r *Set) start(c *Cluster, e *Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(r.ctx)
	t := check.Target{Host: c.Authority(e), Used: c.used.Load,
		Connect: func(ctx context.Context, http2 bool) (net.Conn, error) { return e.dialForCheck(ctx, http2) },
		Report:  func(well bool, err error) { c.Balancer.Check(e.Host, well, err) }}
	done := make(chan struct{})
	list := c.Conf.HealthChecks
	go func() { // ends by stop
		defer close(done)
		check.Run(ctx, &list[0], t)
	}()
	return func() {
		cancel()
		<-done
	}
}

// dialForCheck opens a connection as requests would use it.
func (e *Endpoint) dialForCheck(ctx context.Context, http2 bool) (net.Conn, error) {
	way := e.Pool.Way()
	if http2 && way.MuxTLS != nil {
		way.TLS = way.MuxTLS
	}
	up, err := way.Connect(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	return conn.ToNet(up.Conn), nil
}
