package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/logs"
	"github.com/weftmesh/weft/internal/runtime/podhost"
	"github.com/weftmesh/weft/internal/runtime/probe"
)

// Back-off between a process's end and its next start: it doubles from its first value, and starts anew after healthyTime of
// running. A sidecar comes back sooner, as its pod has no network without it.
const (
	appBackoff     = time.Second
	sidecarBackoff = 100 * time.Millisecond
	maxBackoff     = 30 * time.Second
	healthyTime    = 60 * time.Second
)

// listenTime bounds how long a container without readiness and startup probes is waited for to listen on the ports it declares.
const listenTime = 3 * time.Second

// process is a container or the sidecar of a pod, over all its restarts.
type process struct {
	p       *pod
	name    string
	c       *demand.Container // nil for the sidecar
	backoff time.Duration
	// upgrades asks the sidecar's goroutine for a successor, and fading are the processes that have one; they are that goroutine's.
	upgrades chan upgrade
	fading   []*podhost.Running

	// guarded by Runtime.mu
	version  string // of the sidecar's program
	pid      int
	running  bool
	started  time.Time
	ready    bool
	finished bool // an init container that succeeded
	restarts int
	lastExit string
	waiting  string // why it does not run now
	unready  string // why it runs and is not ready
	lacking  string // what a sidecar says that it cannot open, though it is ready
}

// update changes what others see of the process.
func (s *process) update(f func()) {
	s.p.rt.mu.Lock()
	defer s.p.rt.mu.Unlock()
	f()
	s.p.rt.changed()
}

// supervise keeps the process running until the context ends; then it ends it.
func (s *process) supervise(ctx context.Context) {
	s.repeat(ctx, func(error) bool { return false })
	for _, r := range s.fading {
		s.end(r)
	}
}

// complete runs an init container until it succeeds once.
func (s *process) complete(ctx context.Context) bool {
	done := false
	s.repeat(ctx, func(err error) bool { done = err == nil; return done })
	if done {
		s.update(func() { s.finished = true })
	}
	return done
}

func (s *process) repeat(ctx context.Context, enough func(err error) bool) {
	delay := s.backoff
	for {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil || enough(err) {
			return
		}
		if time.Since(began) > healthyTime {
			delay = s.backoff
		}
		what := "it ended"
		if err != nil {
			what = err.Error()
		}
		s.update(func() { s.waiting = fmt.Sprintf("%s; next start in %v", what, delay) })
		s.p.rt.log.Warn("process ended", "pod", s.p.Key.String(), "process", s.name, "error", what, "nextStart", delay)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, maxBackoff)
		s.update(func() { s.restarts++ })
	}
}

// once runs the process until it ends by itself (nil for success), its liveness probe ends it, or the context does.
func (s *process) once(ctx context.Context) error {
	spec, err := s.spec()
	if err != nil {
		return err
	}
	r, err := s.start(ctx, spec)
	if err != nil {
		return err
	}
	s.update(func() {
		s.pid, s.running, s.started, s.waiting, s.unready = r.PID(), true, time.Now(), "", ""
		s.ready = false
	})
	run, kill := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() { // ends with run
		defer close(watched)
		s.watch(run, kill)
	}()
	r = s.await(run, r)
	cause := context.Cause(run)
	kill(nil)
	<-watched
	exit := r.Exit()
	s.update(func() { s.pid, s.running, s.ready, s.lastExit = 0, false, false, exit.String() })
	if cause != nil && ctx.Err() == nil {
		return fmt.Errorf("restarted: %w", cause)
	}
	if exit != (podhost.Exit{}) {
		return errors.New(exit.String())
	}
	return nil
}

// await returns when the process has ended, or its successor, or, because ctx has, was made to end; and which it was.
func (s *process) await(ctx context.Context, r *podhost.Running) *podhost.Running {
	for {
		select {
		case <-r.Done():
			return r
		case <-ctx.Done():
			for _, f := range s.fading {
				_ = f.Signal(syscall.SIGTERM) // supervise waits for them, and makes them end
			}
			s.end(r)
			return r
		case u := <-s.upgrades:
			next, err := s.succeed(ctx, r)
			if next != nil {
				s.fading = append(slices.DeleteFunc(s.fading, ended), r)
				r = next
			}
			u.done <- err
		}
	}
}

// end asks the process to end, and makes it.
func (s *process) end(r *podhost.Running) {
	grace := s.p.grace()
	if s.c == nil {
		grace = s.p.drainTime()
	}
	if err := r.Signal(syscall.SIGTERM); err != nil {
		s.p.rt.log.Warn("process is not signalled", "pod", s.p.Key.String(), "process", s.name, "error", err)
	}
	select {
	case <-r.Done():
		return
	case <-time.After(grace):
	}
	if err := r.Signal(syscall.SIGKILL); err != nil {
		s.p.rt.log.Warn("process is not killed", "pod", s.p.Key.String(), "process", s.name, "error", err)
	}
	<-r.Done()
}

// start starts the process with its output going to its log.
func (s *process) start(ctx context.Context, spec podhost.Process) (*podhost.Running, error) {
	w, err := s.p.rt.logs.Writer(logs.Source{Namespace: s.p.Namespace, Workload: s.p.w.Name, Pod: s.p.Name, Process: s.name, Slot: s.p.slot})
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, err
	}
	r, err := s.p.rt.host.Start(ctx, spec, [3]*os.File{null, outW, errW})
	outW.Close()
	errW.Close()
	s.p.rt.copies.Go(func() { // ends when no process holds the pipes
		defer w.Close()
		stderr := make(chan struct{})
		go func() { w.Copy(errR, true); close(stderr) }()
		w.Copy(outR, false)
		<-stderr
		outR.Close()
		errR.Close()
	})
	return r, err
}

// watch finds out whether the running process is ready, and kills it when it is not alive.
func (s *process) watch(ctx context.Context, kill context.CancelCauseFunc) {
	if s.c == nil {
		s.watchSidecar(ctx)
		return
	}
	set := probe.Set{Startup: s.probe("startup"), Liveness: s.probe("liveness"), Readiness: s.probe("readiness")}
	if set.Startup == nil && set.Readiness == nil {
		s.awaitListening(ctx)
	}
	probe.Run(ctx, set, probe.Verdict{
		Ready: func(ready bool, why error) {
			s.update(func() {
				if ctx.Err() != nil {
					return // it ended meanwhile
				}
				if s.ready, s.unready = ready, ""; !ready {
					s.unready = fmt.Sprintf("readiness probe: %v", why)
				}
			})
		},
		Dead: func(why error) {
			kill(fmt.Errorf("probe failed: %w", why))
			s.update(func() { s.ready, s.unready = false, fmt.Sprintf("is restarted: %v", why) })
		},
	})
	<-ctx.Done()
}

func (s *process) probe(kind string) *probe.Probe {
	spec := s.c.Probes[kind]
	if spec == nil {
		return nil
	}
	return &probe.Probe{Timing: spec.Timing, Check: func(ctx context.Context) error { return s.check(ctx, spec.Handler) }}
}

// awaitListening holds readiness back, without probes that would say, until the declared ports accept connections.
func (s *process) awaitListening(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	for _, port := range s.c.Ports {
		if port.Protocol != "" && port.Protocol != "TCP" {
			continue
		}
		for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			if c, err := s.p.rt.host.Dial(ctx, s.p.Key.String(), s.p.target(uint16(port.ContainerPort))); err == nil {
				c.Close()
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// spec is what to start.
func (s *process) spec() (podhost.Process, error) {
	if s.c == nil {
		return s.p.proxySpec()
	}
	env := s.p.env(s.c)
	args := make([]string, len(s.c.Command))
	for i, a := range s.c.Command {
		args[i] = expand(a, env.lookup)
	}
	return s.p.appSpec(args, s.c.Dir, env)
}

func (p *pod) appSpec(args []string, dir string, env *environment) (podhost.Process, error) {
	path, at, err := p.rt.locate(args[0], dir, env.lookup)
	if err != nil {
		return podhost.Process{}, err
	}
	return podhost.Process{Pod: p.Key.String(), Path: path, Args: args, Env: env.list(), Dir: at}, nil
}

// proxySpec gives the proxy's command, with nothing left of the one before.
func (p *pod) proxySpec() (podhost.Process, error) {
	for _, path := range []string{p.adminSocket(), p.upgradeSocket()} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return podhost.Process{}, err
		}
	}
	return p.proxyCommand()
}

// proxyCommand writes a fresh bootstrap (a token may have run out since) and gives the command that reads it.
func (p *pod) proxyCommand(args ...string) (podhost.Process, error) {
	b, err := p.bootstrap()
	if err != nil {
		return podhost.Process{}, err
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return podhost.Process{}, err
	}
	file := p.dir + "/bootstrap.json"
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return podhost.Process{}, err
	}
	return podhost.Process{
		Pod: p.Key.String(), Path: p.rt.opt.ProxyBinary, Args: append([]string{"weft-proxy", "--bootstrap", file}, args...),
		Env: p.base().list(), Dir: "/", Sidecar: true,
	}, nil
}

// target is where a container's port is reached inside the pod.
func (p *pod) target(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(p.ip, p.plan.appPort(port))
}
