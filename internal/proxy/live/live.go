// Package live keeps the proxy's configuration current. It resolves destinations by name on first use, follows each from its
// listener to routes, clusters and endpoints, publishes what is complete behind one atomic pointer, keeps the old where the new is
// refused or incomplete, forgets what is no longer used, and keeps what is used on disk, so that a proxy starts and serves with the
// control plane down.
package live

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weftmesh/weft/internal/proxy/ads"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// Options of a Live. Node is required; zero durations and counts take the defaults named here.
type Options struct {
	Node wire.Node
	Log  *slog.Logger // nil discards
	// StateDir keeps the used configuration; empty keeps nothing.
	StateDir string
	// Store runs write, which changes StateDir: now, or later, once no other process uses it. nil runs it at once.
	Store func(write func())
	// UnreachableWait is for how long after the loss of the stream names that were never seen still wait for its return, so that a
	// restart of the control plane is not noticed: 1.5 s. Later ones fail at once. At the start it ends when the first attempt to
	// connect fails. AnswerWait bounds the wait while the control plane is connected: 5 s.
	UnreachableWait, AnswerWait time.Duration
	// KeepUnused is how long a name stays subscribed after its last use: 30 min. KeepUnknown is the same for names that the mesh
	// does not know: 2 min.
	KeepUnused, KeepUnknown time.Duration
	// MaxNames bounds the distinct names held, destinations and DNS each: 4096. Beyond it the least recently used one goes.
	MaxNames int
	// RemovalGrace is how long a cluster that was withdrawn while routes still lead to it is kept: 1 s.
	RemovalGrace time.Duration
	// SaveDelay collects changes before they are written to StateDir: 100 ms, longer where writing takes long. What changed within it is
	// not there for a proxy that is killed and starts again without a control plane.
	SaveDelay time.Duration
	// Follow, when set, is called when the snapshot was replaced because of an update, before that is acknowledged: it is for what has to
	// be as the configuration says by then.
	Follow func()
	// OnWait, when set, hears of every wait for a name that was not there; it may not block.
	OnWait func(Wait)
}

// Wait is one wait for a name, for metrics.
type Wait struct {
	Kind     string // "listener" or "dns"
	Duration time.Duration
	// Outcome is "found", "unknown", "unreachable", "refused", "timeout" or "cancelled".
	Outcome string
}

// The reasons why a name cannot be resolved. Errors of Resolve and LookupDNS wrap one of them, or the context's error.
var (
	// ErrUnreachable: the control plane is out of reach and the name was never seen.
	ErrUnreachable = errors.New("control plane unreachable")
	// ErrRefused: the control plane's configuration for the name is invalid and there is no older one.
	ErrRefused = errors.New("configuration refused")
	// ErrTimeout: the control plane is connected and does not answer.
	ErrTimeout = errors.New("no answer from the control plane")
)

// transport is the part of ads.Client that is used here.
type transport interface {
	Subscribe(typeURL string, names ...string)
	Unsubscribe(typeURL string, names ...string)
	Hold(typeURL, name, version string)
	Run(ctx context.Context) error
}

// Live is the running configuration of one proxy. Its methods are safe for concurrent use; Run is called once.
type Live struct {
	// Set at creation.
	opts   Options
	ads    transport
	clock  func() time.Time
	dirty  chan struct{} // has room for one: there is something to save
	client *ads.Client   // for its statistics; nil in tests without a server

	current atomic.Pointer[published]
	// second is the clock by which uses are dated, advanced by Run: seconds since start.
	second atomic.Int64

	mu        sync.Mutex
	resources map[key]*resource
	clusters  map[string]joined
	names     map[string]*root // outbound destinations
	dns       map[string]*root
	listeners map[string]*root // virtualInbound and virtualOutbound, or a gateway's
	listed    bool             // a gateway's wildcard subscription was answered at least once
	changes   changes
	link      link
	waits     WaitStats
	timers    map[*time.Timer]struct{} // running graces
	stopped   bool
}

// link is the state of the stream.
type link struct {
	up    bool
	since time.Time // of the last change of up
	err   error     // why it is down
	// lost is closed when the stream is down for longer than UnreachableWait: there is nothing to wait for. Connected makes a new one.
	lost   chan struct{}
	cancel func() // ends the time until then
	// connected is set once there was a stream.
	connected bool
}

// published is what readers see. Everything reachable from it is immutable, except the dates of use.
type published struct {
	snapshot *conf.Snapshot
	names    map[string]*answer
	dns      map[string]*answer
	ready    bool
	replaced chan struct{} // closed when a successor is published
}

// answer is a published name with the date of its last use.
type answer struct {
	target *conf.Target
	dns    *conf.Names
	used   *atomic.Int64 // in Live.second
}

// New makes a Live that talks to the control plane over conn, and takes from StateDir what an earlier run left. It does not touch
// the network; Run does.
func New(conn *grpc.ClientConn, o Options) (*Live, error) {
	l := newLive(o)
	client, err := ads.New(conn, o.Node, l, ads.Options{Log: l.opts.Log})
	if err != nil {
		return nil, err
	}
	l.client = client
	l.begin(client)
	return l, nil
}

func newLive(o Options) *Live {
	o = o.withDefaults()
	l := &Live{
		opts: o, clock: time.Now, dirty: make(chan struct{}, 1),
		resources: map[key]*resource{}, clusters: map[string]joined{}, names: map[string]*root{}, dns: map[string]*root{}, listeners: map[string]*root{},
		timers: map[*time.Timer]struct{}{},
	}
	l.link = link{since: l.clock(), err: errors.New("not connected yet"), lost: make(chan struct{}), cancel: func() {}}
	l.current.Store(&published{
		snapshot: &conf.Snapshot{Outbound: map[string]*conf.Target{}, RouteTables: map[string]*conf.RouteTable{},
			Clusters: map[string]*conf.Cluster{}},
		replaced: make(chan struct{}),
	})
	return l
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.UnreachableWait, 1500*time.Millisecond)
	def(&o.AnswerWait, 5*time.Second)
	def(&o.KeepUnused, 30*time.Minute)
	def(&o.KeepUnknown, 2*time.Minute)
	def(&o.RemovalGrace, time.Second)
	def(&o.SaveDelay, 100*time.Millisecond)
	if o.MaxNames <= 0 {
		o.MaxNames = 4096
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// begin subscribes to what the node always needs and restores what was saved.
func (l *Live) begin(t transport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ads = t
	if l.opts.Node.Role == wire.Gateway {
		t.Subscribe(listenerType, ads.Wildcard)
	} else {
		for _, name := range []string{wire.InboundListener, wire.OutboundListener} {
			l.listeners[name] = l.addRoot(inboundRoot, key{listenerType, name})
		}
	}
	if err := l.restore(); err != nil {
		l.opts.Log.Warn("live: saved configuration not used", "error", err)
	}
	l.awaitReturn()
	l.publish()
}

// Run keeps the configuration current until ctx ends; it returns nil then, after a last save.
func (l *Live) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { l.keepTime(ctx) })
	wg.Go(func() { l.keepSaved(ctx) })
	err := l.ads.Run(ctx)
	cancel()
	wg.Wait()
	l.stopTimers()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Snapshot is the current configuration; never nil. It and all in it stay as they are.
func (l *Live) Snapshot() *conf.Snapshot { return l.current.Load().snapshot }

// Changed gives a channel that is closed when the snapshot that is current now has been replaced. Call it before Snapshot, so that
// no change is missed.
func (l *Live) Changed() <-chan struct{} { return l.current.Load().replaced }

// Ready waits for the configuration without which the proxy cannot serve: the inbound listener of a sidecar, the listeners of a
// gateway, from the control plane or from an earlier run.
func (l *Live) Ready(ctx context.Context) error {
	for {
		p := l.current.Load()
		if p.ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.replaced:
		}
	}
}

// Stale reports whether the stream to the control plane is down, and since when: what is served is then what it was.
func (l *Live) Stale() (since time.Time, stale bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.link.since, !l.link.up
}

// Resolve gives the target of a destination by its listener name (wire.ListenerName). A name that is known costs one map lookup;
// another is asked for, and waited for within the bounds of Options. The mesh not knowing the name is a nil Target, not an error.
func (l *Live) Resolve(ctx context.Context, name string) (*conf.Target, error) {
	if a := l.current.Load().names[name]; a != nil {
		l.touch(a)
		return a.target, nil
	}
	a, err := l.await(ctx, outboundRoot, name)
	if err != nil {
		return nil, err
	}
	return a.target, nil
}

// LookupDNS gives what the mesh answers for one of its hosts (name in lower case, without final dot); nil for names that are not the
// mesh's. Like Resolve it asks on first use.
func (l *Live) LookupDNS(ctx context.Context, name string) (answer *conf.Names, err error) {
	a := l.current.Load().dns[name]
	if a != nil {
		l.touch(a)
	} else if a, err = l.await(ctx, dnsRoot, name); err != nil {
		return nil, err
	}
	return a.dns, nil
}

// touch dates a use. It writes at most once a second, so that cores do not fight for the line.
func (l *Live) touch(a *answer) {
	if now := l.second.Load(); a.used.Load() != now {
		a.used.Store(now)
	}
}
