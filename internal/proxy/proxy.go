// Package proxy is the data plane: it serves connections, and joins what that takes with the configuration and the life of the
// process around it.
//
// Package exchange is an HTTP request's way through the steps (http, route, filters, balance, upstream, relay), stream that of a
// relayed connection. Everything that a proxy touches of the
// world comes in by Options, so that a whole mesh runs in one process in tests.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/dial"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/exchange"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/internal/proxy/plane"
	"github.com/weftmesh/weft/internal/proxy/ready"
	"github.com/weftmesh/weft/internal/proxy/record"
	"github.com/weftmesh/weft/internal/proxy/resolve"
	"github.com/weftmesh/weft/internal/proxy/takeover"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Config is where the configuration comes from: package live, or a test.
type Config interface {
	// Snapshot is the current configuration; never nil.
	Snapshot() *conf.Snapshot
	// Changed gives a channel that is closed when the current snapshot has been replaced.
	Changed() <-chan struct{}
	// Resolve gives the target of a listener name; nil when the mesh does not know it.
	Resolve(ctx context.Context, name string) (*conf.Target, error)
	// Ready waits for the configuration without which the proxy cannot serve.
	Ready(ctx context.Context) error
}

// Options of a proxy. Bootstrap is required; the rest have defaults for a process of its own.
type Options struct {
	Bootstrap *wire.Bootstrap
	Log       *slog.Logger // nil discards

	// Engine is the I/O back end of connections; nil is Go's netpoller. It is closed, by whoever opened it, after Run.
	Engine *conn.Engine
	// Network opens listeners. A nil UDP socket leaves the DNS server with TCP alone.
	Network bind.Network
	// Dial connects past the workload's capture, for everything but the control plane; DialControl connects to that. nil takes
	// a dialer that sets Bootstrap.Mark.
	Dial, DialControl func(ctx context.Context, network, address string) (net.Conn, error)
	// DialSelf connects to the workload's own address as others do; nil takes a dialer that sets Bootstrap.SelfMark, if there is one.
	DialSelf func(ctx context.Context, network, address string) (net.Conn, error)
	// DialOutside connects where Dial finds no route, and resolves names; nil for none. The broker's, by default.
	DialOutside func(ctx context.Context, network, address string) (net.Conn, error)

	// Config and Source replace the control plane's: with both set none is contacted.
	Config Config
	Source *identity.Source

	// AccessLog takes the access log; nil opens what Bootstrap.AccessLog says. AccessLogJSON chooses the format.
	AccessLog     io.Writer
	AccessLogJSON bool
	// RegistryOnly refuses destinations that the mesh does not know (Istio's REGISTRY_ONLY) instead of passing them through.
	RegistryOnly bool
	// MemoryLimit is what the process may use, in bytes: load is shed before that is reached. 0 for no limit.
	MemoryLimit int64
	// DrainTime bounds the draining at the end; 0 takes Bootstrap.DrainSeconds.
	DrainTime time.Duration
	// UpgradeTime bounds how long connections live on after a successor has taken over; 0 takes Bootstrap.UpgradeDrainSeconds.
	UpgradeTime time.Duration
	// Taken is what the process got that runs before this one; nil for none. Run ends the conversation.
	Taken *takeover.Taken
	// Tidy gives the process's memory back when the proxy has nothing to do. It is for a process of its own.
	Tidy bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Level is that of Log, for whoever asks the admin interface to change it; nil where it is fixed.
	Level *slog.LevelVar
	// Version is shown by the admin interface.
	Version string
}

// Proxy is one running proxy. Run is called once.
type Proxy struct {
	// Set by New.
	opt     Options
	started time.Time
	log     *slog.Logger
	config  Config
	source  *identity.Source
	plane   *plane.Plane // nil when Options brought Config and Source
	metrics *telemetry.Metrics
	dialer  *dial.Dialer
	state   *ready.State

	// Set by Run before anything is served.
	ctx context.Context // ends when what is left of draining connections is cut off

	clusters *cluster.Set
	book     *record.Book
	carrier  *exchange.Carrier
	traffic  listeners
	tracker  track.Tracker
	memory   memory
	tls      serverTLS
	gates    gates
	relays   relays // of datagrams
	guard    *overload.Guard
	evicted  atomic.Uint64 // idle connections of clients, for want of descriptors

	running   atomic.Pointer[running] // from when the listeners are open
	quit      chan struct{}
	quitOnce  sync.Once
	drainFrom atomic.Int64 // Unix nanoseconds; 0 while not draining
	drainNow  chan struct{}
	drainOnce sync.Once
	ending    atomic.Bool  // outbound connections drain too
	replaced  atomic.Bool  // by a successor, which accepts what comes from now on
	entered   atomic.Int64 // open connections to the workload or the gateway
	arrivedAt atomic.Int64 // Unix nanoseconds of the last of them; 0 for none
}

// New checks the options and joins the parts. It does not touch the network; Run does.
func New(o Options) (*Proxy, error) {
	if o.Bootstrap == nil {
		return nil, errors.New("proxy: a bootstrap is required")
	}
	o = o.withDefaults()
	p := &Proxy{opt: o, started: time.Now(), log: o.Log, config: o.Config, source: o.Source, metrics: telemetry.New(0), drainNow: make(chan struct{}), quit: make(chan struct{}),
		state: ready.New(o.Bootstrap.Node.Role == wire.Gateway)}
	var err error
	if p.dialer, err = dial.New(o.Bootstrap, o.Dial, o.DialOutside); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	resolver, err := newResolver(&p.opt)
	if err != nil {
		return nil, err
	}
	p.guard = overload.New(overload.Limits{Connections: o.Bootstrap.MaxConnections, ListenerConnections: o.Bootstrap.MaxListenerConnections,
		Requests: o.Bootstrap.MaxRequests, Memory: o.MemoryLimit, Bearable: overload.Bearable()}, overload.Used, overload.Relieve)
	p.guard.MakeRoom = p.makeRoom
	p.guard.Shed = func(cut bool) int { return p.tracker.Shed(o.Now(), cut) }
	if p.config == nil || p.source == nil {
		if p.plane, err = plane.New(o.Bootstrap, o.DialControl, o.Log, o.Taken != nil, p.follow); err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		p.config, p.source = p.plane.Live, p.plane.Authority.Source()
	}
	p.clusters = cluster.New(p.clusterOptions(resolver))
	p.book = record.New(record.Options{Bootstrap: o.Bootstrap, Source: p.source, Metrics: p.metrics, Log: o.Log, AccessLog: o.AccessLog, JSON: o.AccessLogJSON})
	p.carrier = exchange.New(exchange.Options{Bootstrap: o.Bootstrap, Guard: p.guard, Log: o.Log, Closing: p.closing, Now: o.Now,
		Mesh: &downstream.Mesh{Config: p.config, Clusters: p.clusters, Book: p.book, RegistryOnly: o.RegistryOnly}})
	p.metrics.Add(p.gauges)
	return p, nil
}

// follow opens and closes ports as the newest configuration says.
func (p *Proxy) follow() {
	if r := p.running.Load(); r != nil {
		r.ports.Follow(r.hard)
	}
}

// defaultUpgradeSeconds is Envoy's default for its parent's draining: whoever waits is no longer in the way.
const defaultUpgradeSeconds = 600

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.RegistryOnly = o.RegistryOnly || o.Bootstrap.RegistryOnly
	if o.DrainTime == 0 {
		o.DrainTime = time.Duration(o.Bootstrap.DrainSeconds) * time.Second
	}
	if o.UpgradeTime == 0 {
		o.UpgradeTime = time.Duration(cmp.Or(o.Bootstrap.UpgradeDrainSeconds, defaultUpgradeSeconds)) * time.Second
	}
	o.Network.Complete(o.Bootstrap)
	o.Network.Engine = o.Engine
	if o.DialControl == nil {
		if o.DialControl = o.Dial; o.Dial == nil {
			o.DialControl = bind.Dialer(nil, o.Bootstrap.Mark)
		}
	}
	if o.Dial == nil {
		o.Dial = bind.Dialer(o.Engine, o.Bootstrap.Mark)
	}
	if o.DialSelf == nil && o.Bootstrap.SelfMark != 0 {
		o.DialSelf = bind.Dialer(o.Engine, o.Bootstrap.SelfMark)
	}
	if o.DialOutside == nil && o.Bootstrap.Broker != "" {
		o.DialOutside = o.Engine.Adopting(broker.Client{Path: o.Bootstrap.Broker}.Dial)
	}
	return o
}

func (p *Proxy) clusterOptions(r *resolve.Resolver) cluster.Options {
	return cluster.Options{Config: p.config, Source: p.source, Dialer: p.dialer, Resolver: r, Outside: p.opt.DialOutside != nil,
		DialSelf: p.opt.DialSelf, Self: p.opt.Bootstrap.Node.IP, Now: p.opt.Now}
}

// newResolver makes what asks for names outside the mesh.
func newResolver(o *Options) (*resolve.Resolver, error) {
	exchange, err := bind.Forwarder(o.Bootstrap, o.Dial)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return &resolve.Resolver{Exchange: exchange}, nil
}
