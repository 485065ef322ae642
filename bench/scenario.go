package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/bench/load"
	"github.com/weftmesh/weft/bench/machine"
)

// scenario is one thing that is measured, of several contestants.
type scenario struct {
	key, title  string
	topology    topology
	contestants []string
	columns     []column
	// ratios are the contestants whose first column the others are compared with.
	ratios []string
	// once says that there is nothing to repeat.
	once bool
	// door says that only the second proxy of a pair is loaded.
	door bool
	// run measures a deployment for d.
	run func(ctx context.Context, s *site, d *deployment, duration time.Duration) (measured, error)
}

// column is a value in the table; the first is the one that is compared.
type column struct {
	value  string // key in measured.values
	title  string
	digits int
}

// measured is what a run of a scenario gives.
type measured struct {
	values map[string]float64
	// foreign is the share of the proxies' core that others used, of the time measured.
	foreign float64
}

// Values of measured.
const (
	cpuEach     = "cpu_us" // CPU of all proxies per request, microseconds
	perSecond   = "rps"    // requests per second
	p50, p99    = "p50_us", "p99_us"
	addedP99    = "added_p99_us" // over the median p99 without proxy
	perCore     = "mib_per_core" // bodies in MiB per second of the proxies' CPU
	mibSecond   = "mib"          // bodies in MiB per second
	idleMiB     = "idle_mib"     // resident memory of one proxy
	plainKiB    = "plain_kib"    // memory per idle plaintext connection
	tlsKiB      = "tls_kib"      // memory per idle TLS connection
	smallMeshes = "small_mib"    // resident memory with five services in the mesh, all used
	bigMeshes   = "big_mib"      // the same in a mesh of 1,000 services
	growth      = "mesh_mib"     // the difference
)

var (
	costColumns = []column{{cpuEach, "CPU µs/request", 1}, {perSecond, "requests/s", 0}}
	rateColumns = append(costColumns[:2:2], column{p50, "p50 µs", 0}, column{p99, "p99 µs", 0})
)

// The loads.
const (
	connections     = 64
	bulkConnections = 16
	rate            = 4000.0
	gentleRate      = 1000.0
	gentleLanes     = 16
	handshakers     = 8
	idleConnections = 1000
	idleServices    = 995 // besides the five of the benchmark
)

// scenarios are all there are.
func scenarios() []scenario {
	web := []string{weftOut, weftIn, haproxyWeb, nginxWeb, haproxyTCP, goProxy, envoyProxy}
	pairs := []string{weftOut, haproxyWeb, nginxWeb, goProxy, envoyProxy}
	peers := []string{haproxyWeb, nginxWeb}
	return []scenario{
		{key: "http1", title: fmt.Sprintf("HTTP/1.1 in plaintext, saturated (%d connections, 1 KiB bodies)", connections), topology: plain,
			contestants: web, columns: costColumns, ratios: peers, run: saturate(smallPath, connections)},
		{key: "rate", title: fmt.Sprintf("HTTP/1.1 in plaintext at %.0f requests/s (open loop, %d connections)", rate, connections), topology: plain,
			contestants: web, columns: rateColumns, ratios: peers, run: steady(rate, connections)},
		{key: "pair", title: fmt.Sprintf("mutual-TLS pair, saturated (client, A, TLS 1.3, B, backend; %d connections, 1 KiB bodies)", connections), topology: pair,
			contestants: pairs, columns: costColumns, ratios: peers, run: saturate(smallPath, connections)},
		{key: "bulk", title: fmt.Sprintf("mutual-TLS pair, 1 MiB bodies (%d connections)", bulkConnections), topology: pair,
			contestants: pairs, columns: []column{{perCore, "MiB/s per core", 0}, {mibSecond, "MiB/s", 0}}, ratios: peers, run: saturate(bulkPath, bulkConnections)},
		{key: "added", title: fmt.Sprintf("mutual-TLS pair at %.0f requests/s (open loop, %d connections)", gentleRate, gentleLanes), topology: pair,
			contestants: append(pairs[:len(pairs):len(pairs)], haproxyTCP, direct), ratios: peers, run: steady(gentleRate, gentleLanes),
			columns: []column{{addedP99, "p99 added µs", 0}, {p50, "p50 µs", 0}, {p99, "p99 µs", 0}, {cpuEach, "CPU µs/request", 1}}},
		{key: "http2", title: fmt.Sprintf("HTTP/2 without TLS, saturated (%d connections, %d streams each, 1 KiB bodies)", twoConnections, twoStreams), topology: two,
			contestants: []string{weftOut, haproxyWeb, nginxWeb}, columns: costColumns, ratios: peers, run: saturateTwo(smallPath)},
		{key: "grpc", title: fmt.Sprintf("unary gRPC calls without TLS, saturated (%d connections, %d streams each, 1 KiB messages)", twoConnections, twoStreams), topology: calls,
			contestants: []string{weftOut, haproxyWeb}, columns: costColumns, ratios: []string{haproxyWeb}, run: saturateTwo(callPath)},
		{key: "relay", title: fmt.Sprintf("TCP relay, saturated (%d connections, 1 KiB bodies)", connections), topology: tcp,
			contestants: []string{weftOut, haproxyTCP, nginxWeb, envoyProxy}, columns: costColumns, ratios: []string{haproxyTCP}, run: saturate(smallPath, connections)},
		{key: "handshake", title: "full mutual handshakes, with one request each (the second proxy of the pair)", topology: pair, door: true,
			contestants: pairs, columns: []column{{cpuEach, "CPU µs/handshake", 0}, {perSecond, "handshakes/s", 0}}, ratios: peers, run: handshakes},
		{key: "memory", title: fmt.Sprintf("memory of one proxy (idle; per connection of %d idle ones)", idleConnections), topology: pair, once: true,
			contestants: pairs, run: memory,
			columns: []column{{idleMiB, "idle MiB", 1}, {plainKiB, "KiB/plaintext connection", 1}, {tlsKiB, "KiB/TLS connection", 1}}},
		{key: "mesh", title: "memory of a sidecar that uses 5 services, by the size of the mesh", topology: plain, once: true,
			contestants: []string{weftOut}, run: meshes,
			columns: []column{{growth, "added MiB", 2}, {smallMeshes, "mesh of 5 services, MiB", 1}, {bigMeshes, "mesh of 1,000 services, MiB", 1}}},
	}
}

// saturate loads a deployment with as much as it takes.
func saturate(path string, connections int) func(context.Context, *site, *deployment, time.Duration) (measured, error) {
	return func(ctx context.Context, s *site, d *deployment, duration time.Duration) (measured, error) {
		return s.under(d, func() (load.Result, error) { return s.wrk(ctx, target(d.entry, path), connections, duration) })
	}
}

// steady loads a deployment at a fixed rate.
func steady(rate float64, connections int) func(context.Context, *site, *deployment, time.Duration) (measured, error) {
	return func(ctx context.Context, s *site, d *deployment, duration time.Duration) (measured, error) {
		return s.under(d, func() (load.Result, error) {
			return load.OpenLoop(ctx, target(d.entry, smallPath), connections, rate, duration)
		})
	}
}

func handshakes(ctx context.Context, s *site, d *deployment, duration time.Duration) (measured, error) {
	behind := *d
	behind.proxies = d.proxies[1:]
	to := target(d.door, smallPath)
	to.TLS = d.doorTLS
	return s.under(&behind, func() (load.Result, error) { return load.Handshakes(ctx, to, handshakers, duration) })
}

// under measures what the proxies of a deployment use while f loads them.
func (s *site) under(d *deployment, f func() (load.Result, error)) (measured, error) {
	began := time.Now()
	core, own, err := s.used(d)
	if err != nil {
		return measured{}, err
	}
	res, err := f()
	if err != nil {
		return measured{}, err
	}
	coreAfter, ownAfter, err := s.used(d)
	if err != nil {
		return measured{}, err
	}
	if res.Requests == 0 {
		return measured{}, errors.New("no request was answered")
	}
	if res.Errors > 0 {
		return measured{}, fmt.Errorf("%d of %d requests failed", res.Errors, res.Requests+res.Errors)
	}
	own, core = ownAfter-own, coreAfter-core
	const mib = 1 << 20
	m := measured{values: map[string]float64{
		perSecond: float64(res.Requests) / res.Duration.Seconds(),
		mibSecond: float64(res.Bytes) / mib / res.Duration.Seconds(),
		p50:       float64(res.P50.Nanoseconds()) / 1e3,
		p99:       float64(res.P99.Nanoseconds()) / 1e3,
	}}
	if len(d.proxies) > 0 {
		m.values[cpuEach] = float64(own.Nanoseconds()) / 1e3 / float64(res.Requests)
		m.values[perCore] = float64(res.Bytes) / mib / own.Seconds()
	}
	m.foreign = max(0, (core-own).Seconds()/time.Since(began).Seconds())
	return m, nil
}

// used gives what the proxies' core and the proxies themselves have used so far.
func (s *site) used(d *deployment) (core, own time.Duration, err error) {
	for _, p := range d.proxies {
		t, err := p.cpu()
		if err != nil {
			return 0, 0, err
		}
		own += t
	}
	core, err = machine.CoreTime(s.proxyCPU)
	return core, own, err
}

// memory measures the two proxies of a pair: the first with plaintext connections, the second with TLS.
func memory(ctx context.Context, s *site, d *deployment, _ time.Duration) (measured, error) {
	first, second := d.proxies[0], d.proxies[1]
	idle, err := first.settled(ctx)
	if err != nil {
		return measured{}, err
	}
	plainEach, err := each(ctx, first, target(d.entry, smallPath))
	if err != nil {
		return measured{}, fmt.Errorf("plaintext: %w", err)
	}
	behind := target(d.door, smallPath)
	behind.TLS = d.doorTLS
	tlsEach, err := each(ctx, second, behind)
	if err != nil {
		return measured{}, fmt.Errorf("TLS: %w", err)
	}
	return measured{values: map[string]float64{idleMiB: float64(idle) / (1 << 20), plainKiB: plainEach / 1024, tlsKiB: tlsEach / 1024}}, nil
}

// each is how much a proxy's memory grows per idle connection, in bytes.
func each(ctx context.Context, p *process, to load.Target) (float64, error) {
	before, err := p.settled(ctx)
	if err != nil {
		return 0, err
	}
	held, err := load.Hold(ctx, to, idleConnections)
	if err != nil {
		return 0, err
	}
	after, err := p.settled(ctx)
	return float64(after-before) / idleConnections, errors.Join(err, held.Close())
}

// meshes compares a sidecar in the benchmark's mesh of five services with one in a mesh of 1,000, both of which call all five.
func meshes(ctx context.Context, s *site, _ *deployment, _ time.Duration) (_ measured, err error) {
	small, err := usingFive(ctx, s)
	if err != nil {
		return measured{}, err
	}
	if err := s.mesh.report(idleServices); err != nil {
		return measured{}, err
	}
	defer func() { err = errors.Join(err, s.mesh.report(0)) }()
	if err := s.mesh.awaitServices(ctx, idleServices); err != nil {
		return measured{}, err
	}
	big, err := usingFive(ctx, s)
	return measured{values: map[string]float64{smallMeshes: small, bigMeshes: big, growth: big - small}}, err
}

// usingFive is the resident memory in MiB of a new sidecar that has called every service of the benchmark. The two that need
// another sidecar answer with an error of the proxy, which loads as much configuration.
func usingFive(ctx context.Context, s *site) (_ float64, err error) {
	ports := five()
	d, err := s.calling(ctx, ports...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	for _, p := range ports {
		if _, err := target(p.Listen, smallPath).Get(ctx); err != nil && !errors.Is(err, load.ErrStatus) {
			return 0, err
		}
	}
	n, err := d.proxies[0].memory()
	return float64(n) / (1 << 20), err
}
