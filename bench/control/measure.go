package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/identity"
)

// measurement is one run.
type measurement struct {
	*options
	plane        *planeProcess
	certificates []*identity.Material
	fleet        *fleet
	results      *results
}

// run measures everything, in an order in which nothing disturbs what follows.
func (m *measurement) run(ctx context.Context) (err error) {
	m.results.start, m.results.first = m.plane.start, m.plane.first
	if err := m.connect(ctx); err != nil {
		return err
	}
	defer m.fleet.close()
	r := m.results
	progress("single changes")
	if r.endpoint, err = m.endpointChanges(ctx, 0); err != nil {
		return err
	}
	if r.fewer, err = m.endpointChanges(ctx, 1); err != nil {
		return err
	}
	if r.unused, err = m.endpointChanges(ctx, 2); err != nil {
		return err
	}
	if r.route, err = m.routeChanges(ctx, 0); err != nil {
		return err
	}
	if r.unusedRoute, err = m.routeChanges(ctx, 2); err != nil {
		return err
	}
	return m.storms(ctx)
}

// connect connects all proxies and takes what each costs.
func (m *measurement) connect(ctx context.Context) error {
	before, err := m.plane.do(order{Do: "settle"})
	if err != nil {
		return err
	}
	progress("%d proxies connect", m.clients)
	began := time.Now()
	if m.fleet, err = m.options.connect(ctx, m.plane.address, m.certificates); err != nil {
		return err
	}
	r := m.results
	r.connecting = time.Since(began)
	after, err := m.plane.do(order{Do: "settle"})
	if err != nil {
		return err
	}
	n := int64(m.clients)
	r.residentEach, r.liveEach = (after.Resident-before.Resident)/n, (after.Live-before.Live)/n
	r.connectCPU, r.bytesEach = (after.CPU-before.CPU)/time.Duration(n), m.fleet.bytes.Load()/n
	r.settled, r.connected = before, after
	return m.heap("connected.pprof")
}

// change is what single changes of one kind cost; medians, but for latest and strays.
type change struct {
	interested       int
	published        time.Duration // until the mesh was published
	last, latest     time.Duration // until the last interested proxy had it: median and worst
	cpu              time.Duration // of the control plane
	bytes, responses int64         // to all proxies together
	strays           int           // responses, over all changes, to proxies that do not use it
}

func (m *measurement) endpointChanges(ctx context.Context, service int) (change, error) {
	return m.measureChanges(ctx, service, generate.EndpointsType, clusterName(service), func(int) order { return order{Do: "endpoint", Service: service} })
}

func (m *measurement) routeChanges(ctx context.Context, service int) (change, error) {
	name := fmt.Sprintf("%s:%d", host(service), port)
	return m.measureChanges(ctx, service, generate.RouteType, name, func(i int) order { return order{Do: "route", Service: service, Version: i + 1} })
}

func (m *measurement) measureChanges(ctx context.Context, service int, typeURL, name string, what func(i int) order) (change, error) {
	out := change{interested: m.fleet.using(service)}
	var published, last, cpu []time.Duration
	var bytes, responses []int64
	for i := range m.changes {
		before, err := m.plane.do(order{Do: "usage"})
		if err != nil {
			return out, err
		}
		b, n := m.fleet.bytes.Load(), m.fleet.responses.Load()
		got := m.fleet.watch(typeURL, name, out.interested)
		r, err := m.plane.do(what(i))
		if err != nil {
			return out, err
		}
		select {
		case <-got:
		case <-time.After(20 * time.Second):
			return out, fmt.Errorf("change %d of %s: %d of %d proxies did not get it within 20 s", i, name, m.fleet.missing, out.interested)
		case <-ctx.Done():
			return out, ctx.Err()
		}
		after, err := m.quiet(ctx)
		if err != nil {
			return out, err
		}
		published, cpu = append(published, r.Took), append(cpu, after.CPU-before.CPU)
		bytes, responses = append(bytes, m.fleet.bytes.Load()-b), append(responses, m.fleet.responses.Load()-n)
		m.fleet.mu.Lock()
		last, out.strays = append(last, m.fleet.last), out.strays+m.fleet.strays
		m.fleet.watched, m.fleet.last = "", 0
		m.fleet.mu.Unlock()
	}
	out.published, out.last, out.latest, out.cpu = median(published), median(last), slices.Max(last), median(cpu)
	out.bytes, out.responses = median(bytes), median(responses)
	return out, nil
}

// quiet waits until the control plane has nothing more to do, such as the acknowledgements of a change: no more than a fiftieth of its core.
func (m *measurement) quiet(ctx context.Context) (reply, error) {
	const look = 100 * time.Millisecond
	r, err := m.plane.do(order{Do: "usage"})
	for range 100 {
		if err != nil {
			return r, err
		}
		before := r
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return r, ctx.Err()
		}
		if r, err = m.plane.do(order{Do: "usage"}); err == nil && r.CPU-before.CPU < look/50 {
			return r, nil
		}
	}
	return r, err
}

func median[T int64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// storm is one part of the time in which endpoints change all the time.
type storm struct {
	changes  int
	lag      time.Duration // from the last change until it was published
	cpu      float64       // share of the core
	live     int64         // bytes in use after it
	resident int64         // bytes
}

// storms let endpoints change for a while, in three parts, so that what grows is seen.
func (m *measurement) storms(ctx context.Context) error {
	progress("%d endpoint changes per second for %v", m.rate, m.storm)
	if m.profile != "" {
		if _, err := m.plane.do(order{Do: "profile", File: filepath.Join(m.profile, "storm.pprof"), For: m.storm}); err != nil {
			return err
		}
	}
	for range 3 {
		before, err := m.plane.do(order{Do: "usage"})
		if err != nil {
			return err
		}
		began := time.Now()
		r, err := m.plane.do(order{Do: "storm", Rate: m.rate, For: m.storm / 3})
		if err != nil {
			return err
		}
		took := time.Since(began)
		if _, err := m.quiet(ctx); err != nil {
			return err
		}
		settled, err := m.plane.do(order{Do: "settle"})
		if err != nil {
			return err
		}
		m.results.storms = append(m.results.storms, storm{changes: r.Changes, lag: r.Lag, cpu: float64(r.CPU-before.CPU) / float64(took),
			live: settled.Live, resident: settled.Resident})
	}
	end, err := m.plane.do(order{Do: "usage"})
	m.results.end = end
	if err != nil {
		return err
	}
	return m.heap("end.pprof")
}

func (m *measurement) heap(name string) error {
	if m.profile == "" {
		return nil
	}
	_, err := m.plane.do(order{Do: "profile", File: filepath.Join(m.profile, name)})
	return err
}
