// Package control is the control plane: it joins the sources of objects, the compiler, the generator's server and the certificate
// authority's signing service, and nothing else joins them.
//
//	source -> (debounce) -> compile -> serve -> proxies
//
// A Control has one life: New opens, Run serves until its context ends and closes. Another New on the same state directory carries
// on where it left off. Its end is abrupt for clients; they keep what they have and connect again.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/compile/idle"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/unixsocket"
)

// Options of New. StateDir is required; zero fields take their defaults.
type Options struct {
	// StateDir (mode 0700) keeps the applied objects, and the authority unless one is given.
	StateDir string
	// Paths are files and folders with objects, which are followed.
	Paths []string
	// Sources are further sources of objects, between files and what is applied.
	Sources []source.Source
	// Applied keeps what is applied, for several control planes that share it; it belongs to the caller. When nil, a database in
	// StateDir does.
	Applied source.Keeper
	// Settings of the mesh; what is zero becomes compile's default.
	Settings model.Settings
	// LocalRuntime says that SetRuntimeObjects will be called: nothing is served before it was.
	LocalRuntime bool

	// Address is the TCP address for proxies; DefaultAddress when empty, "-" for none.
	Address string
	// Socket is the path of a unix socket for proxies, mode 0600; empty for none.
	Socket string
	// Listeners take proxies too, besides Address and Socket; they are closed with the Control.
	Listeners []net.Listener
	// HTTPAddress is where metrics and debug pages are; DefaultHTTPAddress when empty, "-" for none. They are served in plaintext
	// to whoever can connect, so it is a loopback address.
	HTTPAddress string

	// StepTime is how long a proxy that does not answer may hold up each step of a change of PeerAuthentications, and Apply and Delete; 1 s.
	StepTime time.Duration
	// Replicated: other control planes may serve the same mesh, so that each step lasts StepTime even if all proxies have answered.
	Replicated bool

	// Gatherers are served with the control plane's own metrics: those of all proxies of a local mesh.
	Gatherers []prometheus.Gatherer

	// Authority and Tokens belong to the caller; when nil, those of StateDir/ca are opened, and closed by Run.
	Authority *ca.Authority
	Tokens    *ca.Tokens

	Log *slog.Logger // slog.Default
}

// The default addresses.
const (
	DefaultAddress     = "127.0.0.1:15012"
	DefaultHTTPAddress = "127.0.0.1:15014"
)

// Control is a control plane. Its methods are safe for concurrent use. Those that read work from New on; those that change need
// Run to be running.
type Control struct {
	options Options // these are set once
	log     *slog.Logger

	authority     *ca.Authority
	tokens        *ca.Tokens
	ownsAuthority bool
	serving       *ca.Serving
	store         *source.Store
	runtime       *source.Runtime // nil unless Options.LocalRuntime
	sources       *source.Set
	server        *serve.Server
	registry      *prometheus.Registry
	metrics       *metrics
	listeners     []net.Listener // for proxies
	http          net.Listener   // nil for none
	closing       sync.Once
	ended         chan struct{} // closed by Close

	compiled atomic.Pointer[compiled] // nil before the first

	compiling sync.Mutex // guards what follows
	compiler  *compile.Compiler
	follower  *source.Follower // what the compiler has not taken yet; set by Run
	snapshot  *source.Snapshot // what it has
	mesh      *model.Mesh      // what it made of that
	delta     model.Delta      // what it made differ from the mesh that is being served

	latest    *compiled  // what was published last, some of it perhaps not in force yet; of the goroutine of follow, as the next
	switching *switching // what keeps it from being in force; nil for nothing

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each compiled
	served  uint64        // the generation up to which proxies are served
}

// ErrEnded says that the control plane ended before what was accepted was in force. The next one on the same state has it.
var ErrEnded = errors.New("the control plane has ended")

// compiled is one published generation.
type compiled struct {
	generation uint64
	mesh       *model.Mesh
	findings   func() []model.Finding // of sources and compiler
}

// New opens the state directory and the listeners. Run must follow, or Close.
func New(o Options) (_ *Control, err error) {
	if o.StateDir == "" {
		return nil, errors.New("control: StateDir is required")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Settings.TrustDomain == "" {
		o.Settings.TrustDomain = "cluster.local"
	}
	if o.StepTime <= 0 {
		o.StepTime = time.Second
	}
	c := &Control{options: o, log: o.Log, changed: make(chan struct{}), ended: make(chan struct{}), registry: prometheus.NewRegistry()}
	c.metrics = newMetrics(c.registry)
	defer func() {
		if err != nil {
			err = fmt.Errorf("control: %w", errors.Join(err, c.Close()))
		}
	}()
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, err
	}
	if err := c.openAuthority(); err != nil {
		return nil, err
	}
	if err := c.openSources(); err != nil {
		return nil, err
	}
	c.server = serve.New(serve.Options{TrustDomain: o.Settings.TrustDomain, Log: o.Log, Registry: c.registry})
	c.registry.MustRegister(told{c})
	return c, c.listen()
}

// controlNames are the names by which Istio's agents know a control plane.
var controlNames = []string{"istiod.istio-system.svc", "istiod.istio-system.svc.cluster.local", "localhost"}

func (c *Control) openAuthority() (err error) {
	dir, domain := filepath.Join(c.options.StateDir, "ca"), c.options.Settings.TrustDomain
	if c.authority = c.options.Authority; c.authority == nil {
		if c.authority, err = ca.Open(dir, ca.Options{TrustDomain: domain, Log: c.log}); err != nil {
			return err
		}
		c.ownsAuthority = true
	}
	if c.authority.TrustDomain() != domain {
		return fmt.Errorf("the authority is of trust domain %q, the mesh's is %q", c.authority.TrustDomain(), domain)
	}
	if c.tokens = c.options.Tokens; c.tokens == nil {
		if c.tokens, err = ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: domain}); err != nil {
			return err
		}
	}
	c.serving, err = c.authority.ServingCertificate(identity.ControlID(domain), controlNames)
	return err
}

func (c *Control) openSources() (err error) {
	if c.store, err = source.OpenStore(filepath.Join(c.options.StateDir, "objects.db")); err != nil {
		return err
	}
	layers := source.Layers{Applied: c.store, Others: c.options.Sources, Memory: c.store}
	if c.options.Applied != nil {
		layers.Applied = c.options.Applied
	}
	if len(c.options.Paths) > 0 {
		layers.Files = &source.Files{Paths: c.options.Paths, Check: compile.CheckFor(c.options.Settings), Births: c.store.Births}
	}
	if c.options.LocalRuntime {
		c.runtime = source.NewRuntime()
		layers.Runtime = c.runtime
	}
	c.compiler = compile.New(c.options.Settings)
	c.sources = source.NewSet(layers, c.judge)
	return nil
}

func (c *Control) listen() error {
	c.listeners = append(c.listeners, c.options.Listeners...)
	if address := orDefault(c.options.Address, DefaultAddress); address != "-" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("address for proxies: %w", err)
		}
		c.listeners = append(c.listeners, l)
	}
	if c.options.Socket != "" {
		l, err := unixsocket.Listen(c.options.Socket)
		if err != nil {
			return err
		}
		c.listeners = append(c.listeners, l)
	}
	if address := orDefault(c.options.HTTPAddress, DefaultHTTPAddress); address != "-" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("address of metrics: %w", err)
		}
		c.http = l
	}
	return nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Close releases what New opened. Run does it at its end; it is for a Control that is never run.
func (c *Control) Close() error {
	var errs []error
	c.closing.Do(func() {
		close(c.ended)
		for _, l := range c.listeners {
			errs = append(errs, closed(l.Close()))
		}
		if c.http != nil {
			errs = append(errs, closed(c.http.Close()))
		}
		if c.store != nil {
			errs = append(errs, c.store.Close())
		}
		if c.ownsAuthority {
			errs = append(errs, c.authority.Close())
		}
	})
	return errors.Join(errs...)
}

// closed takes the error of closing a listener that a server may have closed already.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addr is the TCP address for proxies, nil when there is none.
func (c *Control) Addr() net.Addr {
	for _, l := range c.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return a
		}
	}
	return nil
}

// HTTPAddr is the address of metrics and debug pages, nil when there is none.
func (c *Control) HTTPAddr() net.Addr {
	if c.http == nil {
		return nil
	}
	return c.http.Addr()
}

// Authority signs the mesh's certificates.
func (c *Control) Authority() *ca.Authority { return c.authority }

// Tokens mints the proofs of identity that the signing service takes.
func (c *Control) Tokens() *ca.Tokens { return c.tokens }

// Apply keeps objects (of source.Decode with source.LayerApplied), all or none, and waits until the mesh that has them is being
// served, and until the connected proxies that it concerns have answered, for Options.StepTime at most. See source.Set.Apply for what
// comes back.
func (c *Control) Apply(ctx context.Context, objects []*source.Object) ([]source.Result, []model.Finding, error) {
	defer c.expect(objects)()
	mark := c.server.Mark()
	results, findings, err := c.sources.Apply(objects)
	if err == nil && results != nil {
		err = c.settle(ctx, mark)
	} else {
		c.metrics.refused(findings)
	}
	return results, findings, c.orEnded(err)
}

// expect converts objects before others wait for it, and has the compiler know them until the function that it gives is called.
func (c *Control) expect(objects []*source.Object) (done func()) {
	mesh := c.Mesh()
	if mesh == nil {
		return func() {}
	}
	ahead := compile.ConvertAhead(objects, mesh.Settings)
	c.compiling.Lock()
	defer c.compiling.Unlock()
	forget := c.compiler.Expect(ahead)
	return func() {
		c.compiling.Lock()
		defer c.compiling.Unlock()
		forget()
	}
}

// orEnded makes it plain that what failed, failed with the control plane: its store closes under it.
func (c *Control) orEnded(err error) error {
	select {
	case <-c.ended:
		if err != nil && !errors.Is(err, ErrEnded) {
			return fmt.Errorf("%w: %w", ErrEnded, err)
		}
	default:
	}
	return err
}

// DryRun says what Apply would do, and does nothing.
func (c *Control) DryRun(objects []*source.Object) ([]source.Result, []model.Finding, error) {
	defer c.expect(objects)()
	return c.sources.DryRun(objects)
}

// Judge gives what there is to say of objects that are not going to be applied: with all that is in force if they are complete,
// else of each by itself, since it is not known what would be there beside them.
func (c *Control) Judge(objects []*source.Object, complete bool) (findings []model.Finding) {
	if complete {
		if _, findings, err := c.DryRun(objects); err == nil {
			return findings
		}
	}
	check := compile.CheckFor(c.options.Settings)
	for _, o := range objects {
		findings = append(findings, check(o)...)
	}
	return findings
}

// Started are the settings that the control plane was started with, which a ConfigMap of the mesh's adds to.
func (c *Control) Started() model.Settings { return c.options.Settings }

// Delete removes applied objects, all or none, and waits as Apply does.
func (c *Control) Delete(ctx context.Context, keys []source.Key) ([]source.Result, error) {
	mark := c.server.Mark()
	results, err := c.sources.Delete(keys)
	if err == nil {
		err = c.settle(ctx, mark)
	}
	return results, c.orEnded(err)
}

// Get finds an object; nil when there is none, or the sources have not been read yet.
func (c *Control) Get(key source.Key) *source.Object {
	if s := c.sources.Snapshot(); s != nil {
		return s.Get(key)
	}
	return nil
}

// Objects gives all objects in force, oldest first.
func (c *Control) Objects() []*source.Object {
	if s := c.sources.Snapshot(); s != nil {
		return s.Objects()
	}
	return nil
}

// Beneath gives the object that comes into force when the applied one of its key is deleted, as source.Set.Beneath does.
func (c *Control) Beneath(k source.Key) *source.Object { return c.sources.Beneath(k) }

// Refused gives what the sources refused, as source.Snapshot.Refused does.
func (c *Control) Refused() map[model.Ref]source.Origin {
	if s := c.sources.Snapshot(); s != nil {
		return s.Refused()
	}
	return nil
}

// Applied names what was applied, as source.Set.Applied does.
func (c *Control) Applied() []source.Key { return c.sources.Applied() }

// SetRuntimeObjects replaces what the local runtime observes: Pods, EndpointSlices, Services with their addresses. It needs
// Options.LocalRuntime. They must not change afterwards.
func (c *Control) SetRuntimeObjects(objects []source.Kube) error {
	if c.runtime == nil {
		return errors.New("control: SetRuntimeObjects without Options.LocalRuntime")
	}
	return c.runtime.Set(objects)
}

// Mesh gives the mesh that is being served; nil before the first.
func (c *Control) Mesh() *model.Mesh {
	if m := c.compiled.Load(); m != nil {
		return m.mesh
	}
	return nil
}

// Served is the mesh that proxies are served by, which Mesh may be ahead of; nil before the first.
func (c *Control) Served() *model.Mesh { return c.server.Mesh() }

// Waiting names the sources that have not been read yet; Findings says why. Empty when all have been.
func (c *Control) Waiting() string {
	names, _ := c.sources.Waiting()
	return names
}

// Findings gives all there is to tell the user now: about objects, and about proxies that refused something.
func (c *Control) Findings() []model.Finding {
	var all []model.Finding
	if m := c.compiled.Load(); m != nil {
		all = append(all, m.findings()...)
	} else {
		_, all = c.sources.Waiting()
	}
	return append(all, c.server.Findings()...)
}

// Clients gives the connected proxies.
func (c *Control) Clients() []serve.Client { return c.server.Clients() }

// Changes gives a channel that receives after each published mesh; those not yet received are merged. It ends with the context,
// and with Run never: a new Control has changes of its own.
func (c *Control) Changes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	next := c.next()
	go func() { // ends with the context
		defer close(out)
		for {
			select {
			case <-next:
			case <-ctx.Done():
				return
			}
			next = c.next() // before the reader hears of this one, so that none falls in between
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// next is closed with the next published mesh.
func (c *Control) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// settle waits until everything that the sources have said so far is being served, and a while for proxies to answer what was published
// since a mark.
func (c *Control) settle(ctx context.Context, mark uint64) error {
	s := c.sources.Snapshot()
	if s == nil {
		return source.ErrNotReady
	}
	for {
		c.mu.Lock()
		next, served := c.changed, c.served
		c.mu.Unlock()
		if served >= s.Generation {
			bounded, cancel := context.WithTimeout(ctx, c.options.StepTime)
			defer cancel()
			c.server.Answered(bounded, mark, c.options.StepTime)
			return nil
		}
		select {
		case <-next:
		case <-c.ended:
			return fmt.Errorf("accepted, but not yet in force: %w", ErrEnded)
		case <-ctx.Done():
			return fmt.Errorf("accepted, but not yet in force: %w", ctx.Err())
		}
	}
}

// publish compiles what has changed and serves the result. One call is made at a time.
func (c *Control) publish(ctx context.Context) {
	last := c.latest
	delta, any := c.compile()
	if !any {
		return
	}
	settings := c.latest.mesh.PeerAuthentications
	switch s := c.switching; {
	case s != nil:
		if delta = s.take(c.latest.mesh, delta); !delta.Empty() {
			c.server.Publish(s.between(), delta)
		}
		c.partly(c.compiled.Load().generation)
	case last != nil && differ(last.mesh.PeerAuthentications, settings):
		s = &switching{from: last.mesh.PeerAuthentications, to: settings, mesh: last.mesh}
		delta = s.take(c.latest.mesh, delta)
		delta.Add(s.namespaces())
		c.switching = s
		c.partly(last.generation)
		c.step(ctx, delta)
	default:
		c.compiled.Store(c.latest)
		if !delta.Empty() {
			c.server.Publish(c.latest.mesh, delta)
		}
	}
	c.tell()
}

// compile makes the latest what the sources have said so far, and gives what that made differ from the one before; false when there is
// none yet, or the one before has to be through first.
func (c *Control) compile() (model.Delta, bool) {
	c.compiling.Lock()
	defer c.compiling.Unlock()
	c.catchUp()
	if c.snapshot == nil || c.switching != nil && differ(c.switching.to, c.mesh.PeerAuthentications) {
		return model.Delta{}, false
	}
	said, of, mesh := c.compiler.FindingsLater(), c.snapshot, c.mesh
	if c.latest != nil && c.delta.Empty() {
		mesh = c.latest.mesh
	}
	c.latest = &compiled{generation: of.Generation, mesh: mesh, findings: sync.OnceValue(func() []model.Finding {
		return source.SortFindings(slices.Concat(of.Findings(), said(), unserved(of, mesh)))
	})}
	delta := c.delta
	c.delta = model.Delta{}
	return delta, true
}

// tell wakes whoever waits for what is served.
func (c *Control) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.served = c.compiled.Load().generation
	close(c.changed)
	c.changed = make(chan struct{})
}

// catchUp has the compiler take what the sources have said so far; the caller holds compiling.
func (c *Control) catchUp() {
	changes := c.follower.Take()
	if changes.Snapshot == nil {
		return
	}
	c.metrics.took(c.snapshot, changes)
	c.snapshot = changes.Snapshot
	if c.mesh != nil && len(changes.Set)+len(changes.Gone) == 0 {
		return
	}
	start := time.Now()
	mesh, delta := c.compiler.Apply(changes.Set, changes.Gone)
	c.metrics.compile.Observe(time.Since(start).Seconds())
	c.mesh = mesh
	c.delta.Add(delta)
}

// judge gives the findings that setting objects would bring; it is what source.NewSet takes.
func (c *Control) judge(set []*source.Object) []model.Finding {
	c.compiling.Lock()
	defer c.compiling.Unlock()
	c.catchUp()
	found := c.compiler.Try(set)
	if c.mesh == nil || slices.ContainsFunc(set, bringsWorkloads) {
		return found
	}
	return append(found, idle.Unserved(set, c.mesh)...)
}

// unserved warns of Gateways that no workload serves.
func unserved(of *source.Snapshot, mesh *model.Mesh) []model.Finding {
	if !slices.ContainsFunc(mesh.Gateways, func(g *model.Gateway) bool { return g.Ref.Kind == "Gateway.istio" }) {
		return nil // most meshes, and their objects are many
	}
	return idle.Unserved(of.Objects(), mesh)
}

// bringsWorkloads reports whether workloads come with an object: it is not known yet which labels will be missing.
func bringsWorkloads(o *source.Object) bool {
	return slices.Contains([]string{"Deployment", "Pod", "WorkloadEntry"}, o.Ref().Kind)
}
