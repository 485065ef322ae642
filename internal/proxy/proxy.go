// Package proxy is the data plane: it joins the steps of a request's way (listen, http, route, filters, balance, upstream,
// relay), the configuration that they read, and the life of the process around them.
//
// exchange.run is the map of an HTTP request's way, stream of a relayed connection's. Everything that a proxy touches of the
// world comes in by Options, so that a whole mesh runs in one process in tests.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
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

	// Listen opens a listener: network is "tcp" or "unix".
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	// ListenPacket opens the DNS server's UDP socket; a nil one leaves the server with TCP alone.
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Dial connects past the workload's capture, for everything but the control plane; DialControl connects to that. nil takes
	// a dialer that sets Bootstrap.Mark.
	Dial, DialControl func(ctx context.Context, network, address string) (net.Conn, error)
	// DialOutside connects where Dial finds no route, and resolves names; nil for none. The broker's, by default.
	DialOutside func(ctx context.Context, network, address string) (net.Conn, error)
	// ListenGateway opens a gateway's port and ReleaseGateway gives it up. nil takes Listen, or the broker's.
	ListenGateway  func(ctx context.Context, address string) (net.Listener, error)
	ReleaseGateway func(address string)

	// Config and Source replace the control plane's: with both set none is contacted.
	Config Config
	Source *identity.Source

	// AccessLog takes the access log; nil opens what Bootstrap.AccessLog says. AccessLogJSON chooses the format.
	AccessLog     io.Writer
	AccessLogJSON bool
	// RegistryOnly refuses destinations that the mesh does not know (Istio's REGISTRY_ONLY) instead of passing them through.
	RegistryOnly bool
	// DrainTime bounds the draining at the end; 0 takes Bootstrap.DrainSeconds.
	DrainTime time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Version is shown by the admin interface.
	Version string
}

// Proxy is one running proxy. Run is called once.
type Proxy struct {
	// Set by New.
	opt     Options
	log     *slog.Logger
	config  Config
	source  *identity.Source
	control *control // nil when Options brought Config and Source
	metrics *telemetry.Metrics
	nets    networks

	// Set by Run before anything is served.
	ctx    context.Context // ends when what is left of draining connections is cut off
	access *telemetry.Log

	clusters   *clusters
	tracker    tracker
	memory     memory
	ways       ways
	tls        serverTLS
	exchanges  sync.Pool
	clock      atomic.Pointer[dateText]
	mirrors    atomic.Int64
	unmirrored atomic.Uint64
	shadows    sync.WaitGroup // mirrored requests

	drainFrom atomic.Int64 // Unix nanoseconds; 0 while not draining
	drainNow  chan struct{}
	drainOnce sync.Once
	ending    atomic.Bool  // outbound connections drain too
	entered   atomic.Int64 // open connections to the workload or the gateway
	arrivedAt atomic.Int64 // Unix nanoseconds of the last of them; 0 for none

	state status
}

// New checks the options and joins the parts. It does not touch the network; Run does.
func New(o Options) (*Proxy, error) {
	if o.Bootstrap == nil {
		return nil, errors.New("proxy: a bootstrap is required")
	}
	o = o.withDefaults()
	p := &Proxy{opt: o, log: o.Log, config: o.Config, source: o.Source, metrics: telemetry.New(0), drainNow: make(chan struct{})}
	var err error
	if p.nets, err = networksOf(o.Bootstrap); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p.exchanges.New = func() any { return &exchange{} }
	if p.config == nil || p.source == nil {
		c, err := newControl(&p.opt)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		p.control, p.config, p.source = c, c.live, c.authority.Source()
	}
	p.clusters = newClusters(p)
	p.metrics.Add(p.gauges)
	return p, nil
}

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
	o.systemDefaults()
	return o
}

// Run serves until ctx ends and the live requests have drained, or something fails without which a proxy is none. It returns
// when nothing of it runs any more.
func (p *Proxy) Run(ctx context.Context) error {
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	p.ctx = hard
	logs, err := p.openAccessLog()
	if err != nil {
		return err
	}
	defer logs()
	r := &running{p: p, hard: hard, failed: make(chan error, 1)}
	defer r.end(kill)
	r.background()
	if err := r.bind(); err != nil {
		return err
	}
	if err := r.await(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	r.accept()
	err = r.await(ctx)
	r.drain()
	return err
}

// Handler serves the admin interface, for whoever listens for it elsewhere.
func (p *Proxy) Handler() http.Handler { return p.admin() }

// Metrics writes the metrics page.
func (p *Proxy) Metrics(w io.Writer) error {
	_, err := p.metrics.WriteTo(w)
	return err
}

// Drain begins draining of what comes to the workload or the gateway: connections end after their current request.
// It does not wait, and does not end Run. What the workload itself calls goes on: it may have requests
// to finish.
func (p *Proxy) Drain() {
	p.drainOnce.Do(func() {
		p.drainFrom.Store(p.opt.Now().UnixNano())
		close(p.drainNow)
	})
}

// Drained waits, after Drain, until no connection is left and none has come for a while, for the drain time at most: clients that
// have not heard of our leaving find the workload behind us until then.
func (p *Proxy) Drained(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.opt.DrainTime)
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for begin := time.Unix(0, p.drainFrom.Load()); p.entered.Load() > 0 || p.expected(begin); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drainPoll is how often draining looks at what is left.
const drainPoll = 10 * time.Millisecond

func (p *Proxy) draining() bool { return p.drainFrom.Load() != 0 }

// closing reports whether a connection of that direction shall carry no further request.
func (p *Proxy) closing(d direction) bool { return p.ending.Load() || d != outbound && p.draining() }

func (p *Proxy) random32() uint32 { return rand.Uint32() }
func (p *Proxy) random64() uint64 { return rand.Uint64() }

// dateText is the Date of one second.
type dateText struct {
	second int64
	text   string
}

// date gives the time in the form of RFC 9110 section 5.6.7.
func (p *Proxy) date(now time.Time) string {
	if d := p.clock.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
	p.clock.Store(d)
	return d.text
}

// running is a Run under way.
type running struct {
	p      *Proxy
	hard   context.Context
	failed chan error // the first failure that ends the proxy

	work      sync.WaitGroup // ends when hard does
	listeners []bound
	servers   []*listen.Server
	accepting sync.WaitGroup // ends when the listeners are closed
	gateways  *gateways
}

// bound is a listener of ours and who serves it.
type bound struct {
	net.Listener
	handle func(listen.Accepted)
}

// fails ends the proxy because of err; nil is no failure.
func (r *running) fails(what string, err error) {
	if err == nil || r.hard.Err() != nil {
		return
	}
	select {
	case r.failed <- fmt.Errorf("proxy: %s: %w", what, err):
	default:
	}
}

// background starts what runs for as long as the proxy does.
func (r *running) background() {
	p := r.p
	r.work.Go(func() { p.clusters.run(r.hard) })
	r.work.Go(func() { p.sweep(r.hard) })
	if p.control != nil {
		r.work.Go(func() { r.fails("certificates", p.control.authority.Run(r.hard)) })
		r.work.Go(func() { r.fails("configuration", p.control.run(r.hard)) })
	}
	r.work.Go(func() { p.becomeReady(r.hard) })
}

// await returns when the proxy may accept (the first time), or when ctx ended or something failed.
func (r *running) await(ctx context.Context) error {
	ready := r.p.state.configured()
	if len(r.servers) > 0 || r.gateways != nil {
		ready = nil
	}
	select {
	case err := <-r.failed:
		return err
	case <-ready:
	case <-r.p.drainNow:
		// Draining was asked for by hand: go on until we are told to end.
		select {
		case err := <-r.failed:
			return err
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return nil
}

// sweep looks after connections until ctx ends.
func (p *Proxy) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := p.opt.Now()
			from := p.drainFrom.Load()
			graced := from != 0 && now.UnixNano()-from > int64(p.drainGrace())
			p.tracker.sweep(now, func(d direction) bool { return graced && p.closing(d) })
		}
	}
}

// drainGrace is how long connections without a request may stay when draining begins: the client may be about to send one,
// and is told by the answer that the connection ends.
func (p *Proxy) drainGrace() time.Duration { return min(time.Second, p.opt.DrainTime/4) }

// accept starts serving the listeners.
func (r *running) accept() {
	for _, b := range r.listeners {
		r.serve(b)
	}
	r.p.state.bind()
	if r.p.opt.Bootstrap.Node.Role == wire.Gateway {
		r.gateways = &gateways{r: r, open: map[string]*gatewayPort{}}
		r.work.Go(func() { r.gateways.run(r.hard) })
	}
}

func (r *running) serve(b bound) *listen.Server {
	s := &listen.Server{Handle: b.handle, Log: r.p.log}
	r.servers = append(r.servers, s)
	r.accepting.Go(func() { r.fails("listener "+b.Addr().String(), s.Serve(b.Listener)) })
	return s
}

// drain lets live requests finish within the time for it. Listeners stay open until no new connection has come for a while:
// clients learn only by and by that we are leaving, and each that still comes is served and told to close.
func (r *running) drain() {
	p := r.p
	p.Drain()
	begin := p.opt.Now()
	p.drainFrom.Store(begin.UnixNano()) // outbound begins now
	p.ending.Store(true)
	limit := time.NewTimer(p.opt.DrainTime)
	defer limit.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for listening := true; listening || r.open() > 0; {
		select {
		case <-limit.C:
			p.log.Warn("draining takes too long; connections are cut off", "open", r.open())
			return
		case <-tick.C:
		}
		if listening && !p.expected(begin) {
			r.closeListeners()
			listening = false
		}
	}
}

// expected reports whether clients may still come that do not know of our leaving. Where none ever came, none does.
func (p *Proxy) expected(begin time.Time) bool {
	last := p.arrivedAt.Load()
	if last == 0 {
		return false
	}
	return p.opt.Now().UnixNano()-max(last, begin.UnixNano()) < int64(p.drainGrace())
}

func (r *running) open() int {
	n := 0
	for _, s := range r.servers {
		n += s.Open()
	}
	if r.gateways != nil {
		n += r.gateways.connections()
	}
	return n
}

func (r *running) closeListeners() {
	for _, b := range r.listeners {
		b.Close()
	}
	if r.gateways != nil {
		r.gateways.closeAll()
	}
}

// end stops everything and waits for it.
func (r *running) end(kill func()) {
	r.closeListeners()
	kill()
	for _, s := range r.servers {
		s.Close()
	}
	if r.gateways != nil {
		r.gateways.cut()
	}
	r.accepting.Wait()
	for _, s := range r.servers {
		s.Wait()
	}
	r.work.Wait()
	r.p.shadows.Wait()
	if r.p.control != nil {
		r.p.control.close()
	}
}
