package runtime

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/podhost"
)

// sidecarName is the sidecar's process name, as in a cluster.
const sidecarName = "istio-proxy"

// propagation is how long a leaving pod keeps serving after it is no endpoint any more, for the other proxies to hear of it.
const propagation = 200 * time.Millisecond

// pod is one instance of a workload. Its goroutine, run, owns its life.
type pod struct {
	demand.Key
	rt        *Runtime
	w         *demand.Workload
	uid       types.UID
	ip        netip.Addr
	slot      int
	dir       string // in RunDir: sockets, bootstrap, files of /etc
	created   time.Time
	stopping  chan struct{} // closed by Runtime.stop
	done      chan struct{} // closed when nothing is left
	sidecarUp chan struct{} // closed when the sidecar was ready for the first time, or when there is none

	// guarded by Runtime.mu
	plan         *portPlan // ports mode; nil before it is made
	terminating  bool
	wasReady     bool
	deleted      time.Time
	made         bool     // its namespaces, ports and environment are there
	problem      string   // why its namespaces could not be made
	notes        []string // what they lack
	initsDone    bool
	sidecar      *process // nil without one
	sidecarWasUp bool
	inits, apps  []*process
	serviceEnv   []string // fixed before the first process
}

// ready reports whether the pod may get traffic; mu is held.
func (p *pod) ready() bool {
	return !p.terminating && p.serving()
}

// serving is readiness without regard to termination; mu is held.
func (p *pod) serving() bool {
	if p.sidecar != nil && !p.sidecar.ready {
		return false
	}
	for _, c := range p.apps {
		if !c.ready {
			return false
		}
	}
	return len(p.apps) > 0 || p.sidecar != nil
}

// run is the pod's life: namespaces, sidecar, init containers, applications; and back in the opposite order.
func (p *pod) run() {
	defer close(p.done)
	defer p.rt.gone(p)
	defer os.RemoveAll(p.dir)
	if !p.retry(p.create) {
		return
	}
	defer p.remove()
	stopBroker, err := p.serveBroker()
	if err != nil {
		p.fail(err)
		<-p.stopping
		return
	}
	defer stopBroker()

	sidecarCtx, stopSidecar := context.WithCancel(context.Background())
	appCtx, stopApps := context.WithCancel(context.Background())
	var sidecar, apps sync.WaitGroup
	if p.sidecar == nil {
		close(p.sidecarUp)
	} else {
		sidecar.Go(func() { p.sidecar.supervise(sidecarCtx) }) // until stopSidecar
	}
	apps.Go(func() { p.runApps(appCtx, &apps) }) // until stopApps

	<-p.stopping
	p.leave()
	stopApps()
	apps.Wait()
	stopSidecar()
	sidecar.Wait()
}

// retry calls f until it succeeds, and reports false when the pod was stopped before.
func (p *pod) retry(f func() error) bool {
	for delay := appBackoff; ; delay = min(2*delay, maxBackoff) {
		err := f()
		if err == nil {
			return true
		}
		p.fail(err)
		select {
		case <-p.stopping:
			return false
		case <-time.After(delay):
		}
	}
}

func (p *pod) fail(err error) {
	p.rt.mu.Lock()
	defer p.rt.mu.Unlock()
	p.problem = err.Error()
	p.rt.log.Warn("pod does not start", "pod", p.Key.String(), "error", err)
	p.rt.changed()
}

// create makes the folder, the namespaces and, in ports mode, the choice of ports.
func (p *pod) create() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	files, err := p.files()
	if err != nil {
		return err
	}
	notes, err := p.rt.host.CreatePod(context.Background(), podhost.Pod{
		Name: p.Key.String(), Hostname: p.Name[:min(len(p.Name), 63)], Address: p.ip,
		Capture: p.sidecar != nil && !p.w.Gateway, Files: files,
	})
	if err != nil {
		return err
	}
	p.rt.mu.Lock()
	defer p.rt.mu.Unlock()
	p.notes, p.problem = notes, ""
	if p.rt.mode == Ports {
		p.plan, err = p.rt.planPorts(p)
	}
	if err != nil {
		return err
	}
	p.serviceEnv, p.made = p.rt.serviceEnv(p), true
	p.rt.changed()
	return nil
}

func (p *pod) remove() {
	if err := p.rt.host.RemovePod(context.Background(), p.Key.String()); err != nil && !p.rt.isClosed() {
		p.rt.log.Warn("pod is not removed cleanly", "pod", p.Key.String(), "error", err)
	}
}

func (r *Runtime) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (p *pod) serveBroker() (stop func(), err error) {
	if p.sidecar == nil {
		return func() {}, nil
	}
	return p.rt.broker.Serve(p.brokerSocket(), broker.Policy{Listen: p.w.Gateway})
}

func (p *pod) brokerSocket() string { return filepath.Join(p.dir, "broker.sock") }
func (p *pod) adminSocket() string  { return filepath.Join(p.dir, "admin.sock") }

// upgradeSocket is where a successor of the sidecar meets it.
func (p *pod) upgradeSocket() string { return filepath.Join(p.dir, "upgrade.sock") }

// runApps runs the init containers one after the other, once the sidecar is ready, so that they have the network that the
// application will have; then the applications.
func (p *pod) runApps(ctx context.Context, group *sync.WaitGroup) {
	select {
	case <-p.sidecarUp:
	case <-ctx.Done():
		return
	}
	for _, c := range p.inits {
		if !c.complete(ctx) {
			return
		}
	}
	p.rt.mu.Lock()
	p.initsDone = true
	p.rt.changed()
	p.rt.mu.Unlock()
	for _, c := range p.apps {
		group.Go(func() { c.supervise(ctx) }) // until the context ends
	}
}

// leave waits until the others know that the pod is no endpoint any more, and until the requests under way and the preStop hooks
// are done.
func (p *pod) leave() {
	p.rt.mu.Lock()
	ending, was := p.rt.ending, p.wasReady
	p.rt.mu.Unlock()
	if ending || !was {
		return
	}
	time.Sleep(propagation)
	ctx, cancel := context.WithTimeout(context.Background(), p.w.Grace)
	defer cancel()
	var hooks sync.WaitGroup
	if p.sidecar != nil && !p.w.Gateway {
		hooks.Go(func() { p.drain(ctx) }) // bounded by the drain time
	}
	for _, c := range p.apps {
		if c.c.PreStop != nil {
			hooks.Go(func() { c.runPreStop(ctx) }) // bounded by the grace period
		}
	}
	hooks.Wait()
}

// drain lets the sidecar end the requests that the application still works on, which it may not do itself when it is told to
// end. A sidecar that cannot is left alone.
func (p *pod) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.rt.opt.DrainTime)
	defer cancel()
	if _, err := p.askSidecar(ctx, http.MethodPost, "/drain"); err != nil {
		p.rt.log.Debug("sidecar did not drain", "pod", p.Key.String(), "error", err)
	}
}

func (c *process) runPreStop(ctx context.Context) {
	if s := c.c.PreStop.Sleep; s != nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(s.Seconds) * time.Second):
		}
		return
	}
	if err := c.check(ctx, corev1.ProbeHandler{Exec: c.c.PreStop.Exec}); err != nil {
		c.p.rt.log.Warn("preStop hook failed", "pod", c.p.Key.String(), "container", c.name, "error", err)
	}
}

// grace is how long a process of the pod may take to end.
func (p *pod) grace() time.Duration {
	p.rt.mu.Lock()
	defer p.rt.mu.Unlock()
	if p.rt.ending {
		return min(p.w.Grace, endTime)
	}
	return p.w.Grace
}

func (p *pod) drainTime() time.Duration {
	p.rt.mu.Lock()
	defer p.rt.mu.Unlock()
	if p.rt.ending {
		return min(p.rt.opt.DrainTime, time.Second)
	}
	return p.rt.opt.DrainTime + time.Second // it bounds itself before
}

// hostName is what instances call the machine; with a ServiceEntry, so do their sidecars.
const hostName = "host.weft.internal"

// files writes the pod's own view of /etc. Name service switches other than files and DNS would ask a daemon of the host, past
// the sidecar.
func (p *pod) files() ([]podhost.File, error) {
	if p.rt.mode != Netns {
		return nil, nil
	}
	host := p.rt.ips.Host() // served by the broker
	var aliases strings.Builder
	for _, a := range p.w.Template.Spec.HostAliases {
		fmt.Fprintf(&aliases, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, " "))
	}
	content := map[string]string{
		"/etc/hosts": fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n%s\t%s\n%s\t%s\n", p.ip, p.Name, host, hostName) + aliases.String(),
	}
	if p.sidecar != nil && !p.w.Gateway {
		content["/etc/resolv.conf"] = fmt.Sprintf("nameserver 127.0.0.1\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", p.Namespace)
	}
	if raw, err := os.ReadFile("/etc/nsswitch.conf"); err == nil {
		content["/etc/nsswitch.conf"] = filesAndDNS(string(raw))
	}
	var out []podhost.File
	for target, text := range content {
		source := filepath.Join(p.dir, filepath.Base(target))
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			return nil, err
		}
		out = append(out, podhost.File{Source: source, Target: target})
	}
	return out, nil
}

func filesAndDNS(nsswitch string) string {
	var out strings.Builder
	for line := range strings.Lines(nsswitch) {
		if strings.HasPrefix(strings.TrimSpace(line), "hosts:") {
			line = "hosts: files dns\n"
		}
		out.WriteString(line)
	}
	return out.String()
}
