package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"

	"github.com/weftmesh/weft/bench/machine"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// order is what the driver asks of the control plane's process; each is answered by one reply.
type order struct {
	Do      string        `json:"do"` // "endpoint", "route", "storm", "usage", "settle", "profile"
	Service int           `json:"service,omitempty"`
	Version int           `json:"version,omitempty"`
	Rate    int           `json:"rate,omitempty"`
	For     time.Duration `json:"for,omitempty"`
	File    string        `json:"file,omitempty"`
}

// reply tells what the process has used so far, and what came of the order.
type reply struct {
	Error    string        `json:"error,omitempty"`
	Address  string        `json:"address,omitempty"`  // of discovery, in the first reply
	Resident int64         `json:"resident,omitempty"` // bytes
	Peak     int64         `json:"peak,omitempty"`     // bytes, since the start
	Live     int64         `json:"live,omitempty"`     // bytes of heap in use and stacks; after "settle" there is no garbage in it
	CPU      time.Duration `json:"cpu,omitempty"`      // since the start
	Took     time.Duration `json:"took,omitempty"`     // until the change was published
	Changes  int           `json:"changes,omitempty"`  // that a storm made
	Lag      time.Duration `json:"lag,omitempty"`      // from the end of a storm until its last change was published
}

// planeProcess is the control plane as the driver sees it.
type planeProcess struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	replies *json.Decoder
	address string
	start   time.Duration // from exec until it served
	first   reply
}

// startPlane starts the control plane on its core and waits until it serves the mesh.
func startPlane(ctx context.Context, dir string, o *options) (*planeProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &planeProcess{cmd: exec.CommandContext(ctx, self, "-plane", dir,
		"-services", strconv.Itoa(o.size.services), "-endpoints", strconv.Itoa(o.size.endpoints), "-profile", o.profile)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.replies = json.NewDecoder(out)
	began := time.Now()
	if err := machine.OnCore(o.planeCPU, p.cmd.Start); err != nil {
		return nil, err
	}
	progress("control plane starts with %d services of %d endpoints", o.size.services, o.size.endpoints)
	if p.first, err = p.reply(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.start, p.address = time.Since(began), p.first.Address
	return p, nil
}

func (p *planeProcess) reply() (r reply, err error) {
	if err := p.replies.Decode(&r); err != nil {
		return r, fmt.Errorf("the control plane's process: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// do gives an order and waits for the reply.
func (p *planeProcess) do(o order) (reply, error) {
	if err := json.NewEncoder(p.orders).Encode(o); err != nil {
		return reply{}, fmt.Errorf("the control plane's process: %w", err)
	}
	return p.reply()
}

// stop ends the process by the end of its orders.
func (p *planeProcess) stop() error {
	if err := p.orders.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return p.cmd.Wait()
}

// servant is the control plane in its own process.
type servant struct {
	options  *options
	plane    *control.Control
	feed     *feed
	versions []int // of services' first endpoints
}

// servePlane is the child's whole life: it serves the mesh and obeys orders from standard input until that ends.
func (o *options) servePlane(ctx context.Context) (err error) {
	s := &servant{options: o, feed: &feed{}, versions: make([]int, o.size.services)}
	s.plane, err = control.New(control.Options{StateDir: o.plane, Address: "127.0.0.1:0", HTTPAddress: "-",
		Settings: model.Settings{TrustDomain: trustDomain}, Sources: []source.Source{s.feed}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.plane.Run(ctx) }() // ends with the context
	defer func() { cancel(); err = errors.Join(err, <-ended) }()
	if err := s.feed.reset(o.size.objects()); err != nil {
		return err
	}
	if _, err := s.await(ctx, func(m *model.Mesh) bool { return m.Services.Len() == o.size.services }); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	first := usage()
	first.Address = s.plane.Addr().String()
	if err := out.Encode(first); err != nil {
		return err
	}
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var what order
		if err := json.Unmarshal(orders.Bytes(), &what); err != nil {
			return err
		}
		r, err := s.obey(ctx, what)
		if err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return orders.Err()
}

func (s *servant) obey(ctx context.Context, o order) (reply, error) {
	switch o.Do {
	case "endpoint":
		return s.changed(ctx, func() error { return s.replaceEndpoint(o.Service) })
	case "route":
		return s.changed(ctx, func() error { return s.feed.set(route(o.Service, o.Version)) })
	case "storm":
		return s.storm(ctx, o.Rate, o.For)
	case "settle":
		debug.FreeOSMemory()
		debug.FreeOSMemory() // a sync.Pool gives its buffers up at the second collection
		return usage(), nil
	case "usage":
		return usage(), nil
	case "profile":
		return reply{}, profile(ctx, o.File, o.For)
	}
	return reply{}, fmt.Errorf("no such order: %q", o.Do)
}

// replaceEndpoint replaces the first pod of a service, as a rollout does: another address in its EndpointSlice.
func (s *servant) replaceEndpoint(i int) error {
	s.versions[i]++
	v := s.versions[i]
	return s.feed.set(pod(i, 0, podAddress(i, 0, v)), s.options.size.slice(i, v))
}

// changed makes a change and waits until it is published.
func (s *servant) changed(ctx context.Context, change func() error) (reply, error) {
	next := s.plane.Changes(ctx)
	began := time.Now()
	if err := change(); err != nil {
		return reply{}, err
	}
	select {
	case <-next:
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
	took := time.Since(began)
	r := usage()
	r.Took = took
	return r, nil
}

// await waits for a mesh.
func (s *servant) await(ctx context.Context, is func(*model.Mesh) bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	began := time.Now()
	next := s.plane.Changes(ctx)
	for s.plane.Mesh() == nil || !is(s.plane.Mesh()) {
		select {
		case <-next:
		case <-ctx.Done():
			return 0, fmt.Errorf("the mesh is not served in time: %w", ctx.Err())
		}
	}
	return time.Since(began), nil
}

// storm replaces endpoints of one service after the other, evenly in time, and waits until the last one is published.
func (s *servant) storm(ctx context.Context, rate int, length time.Duration) (reply, error) {
	const beat = 10 * time.Millisecond
	t := time.NewTicker(beat)
	defer t.Stop()
	began, made, last := time.Now(), 0, 0
	for elapsed := time.Duration(0); elapsed < length; elapsed = time.Since(began) {
		for due := int(float64(rate) * elapsed.Seconds()); made < due; made++ {
			last = (made * 7919) % s.options.size.services
			if err := s.replaceEndpoint(last); err != nil {
				return reply{}, err
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
	}
	want := podAddress(last, 0, s.versions[last])
	lag, err := s.await(ctx, func(m *model.Mesh) bool {
		for _, e := range m.Services.Get(host(last)).Endpoints {
			if e.Address == want {
				return true
			}
		}
		return false
	})
	r := usage()
	r.Changes, r.Lag = made, lag
	return r, err
}

// usage is what this process has used so far.
func usage() reply {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	r := reply{Live: int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())}
	r.Resident, _ = machine.Resident(os.Getpid()) // shown as 0, which nobody takes for a measurement
	r.CPU, _ = machine.CPUTime(os.Getpid())
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		r.Peak = ru.Maxrss << 10
	}
	return r
}

// profile writes a heap profile, or a CPU profile of the time to come, which it does not wait for.
func profile(ctx context.Context, file string, length time.Duration) error {
	out, err := os.Create(filepath.Clean(file))
	if err != nil {
		return err
	}
	if length == 0 {
		runtime.GC()
		return errors.Join(pprof.WriteHeapProfile(out), out.Close())
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	go func() { // ends with the profile
		select {
		case <-time.After(length):
		case <-ctx.Done():
		}
		pprof.StopCPUProfile()
		out.Close()
	}()
	return nil
}
