package runtime

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/loopback"
	"github.com/weftmesh/weft/internal/runtime/addresses"
	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/logs"
	"github.com/weftmesh/weft/internal/runtime/podhost"
	"github.com/weftmesh/weft/internal/wire"
)

// ringSize is what one file of a process's log may take; it has two.
const ringSize = 512 << 10

// endTime bounds the orderly stop of everything at Run's end, whatever the pods' own grace periods say: somebody waits at a
// terminal.
const endTime = 5 * time.Second

// Runtime runs pods. Its methods may be called from any goroutine.
type Runtime struct {
	// set by New
	opt    Options
	log    *slog.Logger
	mode   Isolation
	reason string
	lock   *os.File // on the state directory
	host   *podhost.Client
	broker *broker.Server
	logs   *logs.Store
	kick   chan struct{} // wakes the reconciler in Run
	copies sync.WaitGroup

	mu          sync.Mutex
	desired     Desired
	programs    map[demand.Key]ProgramSpec
	restarts    map[demand.Key]int // by Restart
	workloads   map[demand.Key]*demand.Workload
	services    []*corev1.Service
	ofGateway   map[demand.Key]bool // the services that Desired.Gateways asked for
	findings    []Finding
	virtual     *addresses.Services
	ips         *addresses.Pods
	pods        map[demand.Key]*pod
	folders     int            // numbers the pods' folders in RunDir
	ports       loopback.Ports // of pods in ports mode
	subscribers map[chan struct{}]bool
	ending      bool
	closed      bool
}

// New checks the options, locks the state directory, and starts the pod host, which settles the isolation. A Runtime that New
// returned must be ended by Run or Close.
func New(opt Options) (*Runtime, error) {
	if err := opt.complete(); err != nil {
		return nil, fmt.Errorf("runtime: %w", err)
	}
	r := &Runtime{
		opt: opt, log: opt.Log, kick: make(chan struct{}, 1), programs: map[demand.Key]ProgramSpec{}, restarts: map[demand.Key]int{},
		pods: map[demand.Key]*pod{}, subscribers: map[chan struct{}]bool{},
		ips: addresses.NewPods(opt.PodCIDR),
	}
	if err := r.open(); err != nil {
		r.Close()
		return nil, fmt.Errorf("runtime: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compile()
	return r, nil
}

func (o *Options) complete() error {
	if o.StateDir == "" || o.ProxyBinary == "" || o.Control == "" || o.TrustDomain == "" || o.Roots == nil || o.Token == nil {
		return errors.New("StateDir, ProxyBinary, Control, TrustDomain, Roots and Token are required")
	}
	if len(o.PodHost) == 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.PodHost = []string{self, PodHostCommand}
	}
	for _, path := range []*string{&o.StateDir, &o.ProxyBinary} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	for _, d := range []struct {
		cidr  *netip.Prefix
		value string
	}{{&o.PodCIDR, "10.77.0.0/16"}, {&o.ServiceCIDR, "10.78.0.0/16"}} {
		if !d.cidr.IsValid() {
			*d.cidr = netip.MustParsePrefix(d.value)
		}
		if !d.cidr.Addr().Is4() || d.cidr.Bits() > 29 {
			return fmt.Errorf("network %s: want IPv4 with room for addresses", *d.cidr)
		}
		*d.cidr = d.cidr.Masked()
	}
	if o.PodCIDR.Overlaps(o.ServiceCIDR) {
		return fmt.Errorf("networks of pods %s and services %s overlap", o.PodCIDR, o.ServiceCIDR)
	}
	switch o.Isolation {
	case "":
		o.Isolation = Auto
	case Auto, Netns, Ports:
	default:
		return fmt.Errorf("isolation %q is none of auto, netns, ports", o.Isolation)
	}
	if o.Cluster == "" {
		o.Cluster = "weft"
	}
	if o.DrainTime == 0 {
		o.DrainTime = wire.DefaultDrainSeconds * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RunDir == "" {
		o.RunDir = runDir(o.StateDir)
	}
	return o.completeHidden()
}

// completeHidden adds our own folders to those that workloads do not see. The longest come first: a cover hides the folders
// below it from the next mount.
func (o *Options) completeHidden() error {
	hidden := append([]string{o.StateDir, o.RunDir}, o.Hidden...)
	for i, h := range hidden {
		abs, err := filepath.Abs(h)
		if err != nil {
			return err
		}
		hidden[i] = abs
	}
	slices.SortFunc(hidden, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	o.Hidden = slices.Compact(hidden)
	return nil
}

// runDir picks a short path that is this state directory's own.
func runDir(stateDir string) string {
	sum := sha256.Sum256([]byte(stateDir))
	name := hex.EncodeToString(sum[:4])
	if os.Getuid() == 0 {
		return filepath.Join("/run/weft", name)
	}
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); xdg != "" && len(xdg) < 50 {
		return filepath.Join(xdg, "weft", name)
	}
	return filepath.Join("/tmp", fmt.Sprintf("weft-%d-%s", os.Getuid(), name))
}

func (r *Runtime) open() error {
	if err := os.MkdirAll(r.opt.StateDir, 0o700); err != nil {
		return err
	}
	if err := r.acquire(); err != nil {
		return err
	}
	if err := r.makeRunDir(); err != nil {
		return err
	}
	var err error
	if r.logs, err = logs.Open(filepath.Join(r.opt.StateDir, "logs"), ringSize); err != nil {
		return err
	}
	if r.virtual, err = addresses.LoadServices(r.opt.ServiceCIDR, filepath.Join(r.opt.StateDir, "service-ips.json")); err != nil {
		return err
	}
	if err := r.loadPrograms(); err != nil {
		return err
	}
	if err := r.startHost(); err != nil {
		return err
	}
	r.broker = broker.NewServer(broker.Options{
		Address: r.opt.PublishAddress, Publish: r.opt.Publish, HostAlias: r.ips.Host(), HostName: hostName, Changed: r.republished, Log: r.log,
	})
	return nil
}

// acquire locks the state directory for as long as this process lives.
func (r *Runtime) acquire() error {
	f, err := os.OpenFile(filepath.Join(r.opt.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("state directory %s is used by another weft up", r.opt.StateDir)
	}
	r.lock = f
	return nil
}

// makeRunDir makes the folder for sockets private and empty of what a killed run left.
func (r *Runtime) makeRunDir() error {
	if err := os.MkdirAll(r.opt.RunDir, 0o700); err != nil {
		return err
	}
	fi, err := os.Lstat(r.opt.RunDir)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !fi.IsDir() || !ok || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%s does not belong to us", r.opt.RunDir)
	}
	if err := os.Chmod(r.opt.RunDir, 0o700); err != nil {
		return err
	}
	if len(r.podsDir()) > 80 {
		return fmt.Errorf("path %s is too long for unix sockets", r.opt.RunDir)
	}
	if err := os.RemoveAll(r.podsDir()); err != nil {
		return err
	}
	return os.Mkdir(r.podsDir(), 0o700)
}

func (r *Runtime) podsDir() string { return filepath.Join(r.opt.RunDir, "p") }

// startHost settles the isolation by trying.
func (r *Runtime) startHost() error {
	if r.opt.Isolation == Ports {
		r.mode, r.reason = Ports, "ports isolation was asked for"
		return r.tryHost(false, false)
	}
	var refused error
	if os.Getuid() == 0 {
		if refused = r.tryHost(true, false); refused == nil {
			r.mode, r.reason = Netns, "each pod has its own network namespace"
			return nil
		}
	}
	err := r.tryHost(true, true)
	if err == nil {
		r.mode, r.reason = Netns, "each pod has its own network namespace, within a user namespace, as weft is not root"
		if refused != nil {
			r.reason = "each pod has its own network namespace, within a user namespace, as root may not make one directly here"
		}
		return nil
	}
	if refused == nil {
		refused = err
	}
	refused = fmt.Errorf("network namespaces are not allowed here (%w%s)", refused, hint())
	if r.opt.Isolation == Netns {
		return refused
	}
	r.mode, r.reason = Ports, refused.Error()+"; workloads share the host's network and are told their ports by environment"
	return r.tryHost(false, false)
}

// hint names the settings of known systems that refuse namespaces to ordinary users.
func hint() string {
	for _, s := range []struct{ file, value, name string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=1"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=0"},
	} {
		if raw, err := os.ReadFile(s.file); err == nil && strings.TrimSpace(string(raw)) == s.value {
			return "; the system sets " + s.name
		}
	}
	return ""
}

func (r *Runtime) tryHost(netns, user bool) error {
	var err error
	r.host, err = podhost.Start(context.Background(), podhost.Options{
		Command: r.opt.PodHost, UserNS: user, Stderr: os.Stderr,
		Setup: podhost.Setup{
			Netns: netns, Gateway: r.ips.Gateway(), Host: r.ips.Host(), Mark: wire.SidecarMark, SelfMark: wire.SelfMark, Outbound: wire.OutboundPort, Inbound: wire.InboundPort,
			DNS: wire.DNSPort, Open: []uint16{wire.InboundPort, wire.MetricsPort, wire.ReadyPort},
			Hidden: r.opt.Hidden,
		},
	})
	if err != nil {
		return err
	}
	for _, note := range r.host.Notes() {
		r.log.Debug("workloads are less confined here", "reason", note)
	}
	return nil
}

// Run keeps what runs equal to what is desired until the context ends; then it stops all pods in order, for at most a few
// seconds, and returns nil. It fails when the pod host dies. It is called once.
func (r *Runtime) Run(ctx context.Context) error {
	defer r.Close()
	for {
		r.mu.Lock()
		r.reconcile()
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			r.stopAll()
			return nil
		case <-r.host.Done():
			return errors.New("runtime: the pod host died, and all pods with it")
		case <-r.kick:
		}
	}
}

func (r *Runtime) stopAll() {
	r.mu.Lock()
	r.ending = true
	var all []*pod
	for _, p := range r.pods {
		r.stop(p)
		all = append(all, p)
	}
	r.mu.Unlock()
	timeout := time.After(endTime + time.Second)
	for _, p := range all {
		select {
		case <-p.done:
		case <-timeout:
			return // Close kills the rest
		}
	}
}

// Close kills everything at once. It is needed only where Run is never called; a second call does nothing.
func (r *Runtime) Close() error {
	r.mu.Lock()
	again := r.closed
	r.closed, r.ending = true, true
	var all []*pod
	for _, p := range r.pods {
		r.stop(p)
		all = append(all, p)
	}
	r.mu.Unlock()
	if again {
		return nil
	}
	if r.host != nil {
		r.host.Close()
	}
	for _, p := range all {
		<-p.done
	}
	r.copies.Wait()
	r.ports.Close()
	if r.broker != nil {
		r.broker.Close()
	}
	if r.lock == nil {
		return nil
	}
	err := os.RemoveAll(r.podsDir())
	os.Remove(r.opt.RunDir) // unless somebody else has something in it
	if parent := filepath.Dir(r.opt.RunDir); filepath.Base(parent) == "weft" {
		os.Remove(parent) // ours too, unless another weft up uses it
	}
	r.lock.Close()
	return err
}

// RunDir is the private folder of sockets, for those of others too; it goes away at the end if it is then empty.
func (r *Runtime) RunDir() string { return r.opt.RunDir }

// republished is called when gateways' ports of the host have come or gone, by which others reach them in ports mode.
func (r *Runtime) republished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed()
}

// Mode is the isolation in force: Netns or Ports.
func (r *Runtime) Mode() Isolation { return r.mode }

// Reason says in one sentence why Mode was taken.
func (r *Runtime) Reason() string { return r.reason }

// Changes gives a channel that receives after each change of Observed or Workloads; changes that were not yet received are
// merged. The subscription ends, and the channel closes, with the context.
func (r *Runtime) Changes(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	r.subscribers[c] = true
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subscribers, c)
		close(c)
	})
	return c
}

// changed tells the reconciler and the subscribers; mu is held.
func (r *Runtime) changed() {
	poke(r.kick)
	for c := range r.subscribers {
		poke(c)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
