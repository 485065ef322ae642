package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/admin"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/internal/proxy/plane"
	"github.com/weftmesh/weft/internal/wire"
)

// Run serves until ctx ends and the live requests have drained, or something fails without which a proxy is none. It returns
// when nothing of it runs any more.
func (p *Proxy) Run(ctx context.Context) error {
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	p.ctx = hard
	ctx, end := context.WithCancel(ctx)
	defer end()
	var err error
	if err := p.book.Open(); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	defer p.book.Close()
	r := newRunning(p, hard)
	defer r.end(kill)
	r.background()
	r.work.Go(func() {
		select {
		case <-p.quit:
			end()
		case <-hard.Done():
		}
	})
	if err := r.bind(); err != nil {
		return err
	}
	if err := r.Await(ctx, p.state.Configured()); err != nil || ctx.Err() != nil {
		return err
	}
	r.accept()
	p.running.Store(r)
	if err := r.takeOver(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	err = r.Await(ctx, nil)
	if p.replaced.Load() {
		r.fade(ctx)
	} else {
		r.drain()
	}
	return err
}

// Quit makes Run drain and end, as the end of its context does.
func (p *Proxy) Quit() { p.quitOnce.Do(func() { close(p.quit) }) }

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

// closing reports whether a connection, of our own workload or another, shall carry no further request.
func (p *Proxy) closing(outbound bool) bool {
	return p.ending.Load() || !outbound && p.draining() || p.guard.Stage() >= overload.Shrink
}

// running is a Run under way.
type running struct {
	p      *Proxy
	hard   context.Context
	failed chan error // the first failure that ends the proxy

	sockets *bind.Sockets
	// owner says that what has a name (ports of a gateway, paths of unix sockets) is this process's to remove at its end: not yet
	// before it has taken over, and no longer once a successor was given the sockets.
	owner    atomic.Bool
	replaced chan struct{} // closed when a successor has taken over

	own     []func() // starts what the predecessor served until the takeover
	yielded []func() // stops it
	// unserved closes at the end what own did not come to.
	unserved []func()
	upgrade  net.Listener

	work      sync.WaitGroup // ends when hard does
	listeners []bound
	servers   []*listen.Server
	accepting sync.WaitGroup // ends when the listeners are closed
	ports     *bind.Ports    // those that follow the configuration
}

// bound is a listener of ours and who serves it.
type bound struct {
	net.Listener
	name   string // Envoy's, or the configured address
	at     string // the configured address
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
	p.clusters.Open(r.hard)
	p.carrier.Open(r.hard)
	r.work.Go(p.clusters.Run)
	r.work.Go(func() { p.sweep(r.hard) })
	r.work.Go(func() { p.guard.Run(r.hard, p.log) })
	if p.plane != nil {
		r.work.Go(func() { r.fails("certificates", p.plane.Authority.Run(r.hard)) })
		r.work.Go(func() { r.fails("configuration", p.plane.Run(r.hard)) })
		r.work.Go(func() { plane.FollowConcurrency(r.hard, p.plane.Live) })
	}
	r.work.Go(func() { p.becomeReady(r.hard) })
	if p.opt.Tidy {
		r.work.Go(func() { p.tidy(r.hard) })
	}
}

// Await returns when the proxy may accept (ready), or when ctx ended, a successor has taken over or something failed.
func (r *running) Await(ctx context.Context, ready <-chan struct{}) error {
	for drained := r.p.drainNow; ; drained = nil {
		select {
		case err := <-r.failed:
			return err
		case <-ready:
			return nil
		case <-r.replaced:
			return nil
		case <-ctx.Done():
			return nil
		case <-drained:
			ready = nil // draining was asked for by hand: go on until we are told to end
		}
	}
}

// sweepEvery is how often the connections of clients are looked at.
const sweepEvery = 100 * time.Millisecond

// sweep looks after connections until ctx ends.
func (p *Proxy) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := p.opt.Now()
			if most := overload.Bearable(); p.guard.Bears(most) {
				p.log.Warn("the table of file descriptors (ulimit -n) has another size", "connections", most)
			}
			from := p.drainFrom.Load()
			graced := from != 0 && now.UnixNano()-from > int64(p.idleGrace())
			short := p.guard.Stage() >= overload.Shrink
			var grace time.Duration
			if graced || short {
				grace = p.drainGrace()
			}
			p.tracker.Sweep(now, graced || short, grace, func(outbound bool) bool { return short || p.closing(outbound) })
		}
	}
}

// makeRoom closes idle connections to endpoints and of clients, as there is no descriptor left for one that is needed.
func (p *Proxy) makeRoom() int {
	now := p.opt.Now()
	p.clusters.Trim(now)
	n := p.tracker.Evict(now)
	p.evicted.Add(uint64(n))
	return n
}

// drainGrace is how long connections without a request may stay when draining begins: the client may be about to send one,
// and is told by the answer that the connection ends.
func (p *Proxy) drainGrace() time.Duration { return min(time.Second, p.opt.DrainTime/4) }

// accept starts serving the listeners.
func (r *running) accept() {
	for _, b := range r.listeners {
		r.serve(b)
	}
	r.p.state.Accepts()
	r.work.Go(func() { r.ports.Run(r.hard) })
}

func (r *running) serve(b bound) *listen.Server {
	t := r.p.traffic.get(b.at)
	s := &listen.Server{Handle: func(a listen.Accepted) { t.serve(a, b.handle) }, Log: r.p.log, Gate: r.p.guard.Gate()}
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
			if n := r.open(); n > 0 {
				p.log.Warn("draining takes too long; connections are cut off", "open", n)
			}
			return
		case <-tick.C:
		}
		if listening && !p.expected(begin) {
			r.stopAccepting()
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
	return n + r.ports.Connections()
}

// list describes the listeners.
func (r *running) list() []admin.Listener {
	var out []admin.Listener
	for _, l := range r.listeners {
		out = append(out, admin.Listener{Name: l.name, Address: l.Addr().String()})
	}
	ports := r.ports.Open()
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		out = append(out, admin.Listener{Name: name, Address: ports[name]})
	}
	return out
}

func (r *running) closeListeners() {
	r.p.guard.Release()
	for _, b := range r.listeners {
		b.Close()
	}
	r.ports.Stop(r.owner.Load())
}

// stopAccepting closes the listeners and waits until what they have taken from the kernel is counted among the open connections:
// nobody else can serve it.
func (r *running) stopAccepting() {
	r.closeListeners()
	r.accepting.Wait()
	r.ports.Settle()
}

// end stops everything and waits for it.
func (r *running) end(kill func()) {
	if !r.owner.Load() {
		r.sockets.Keep()
	}
	r.sockets.Close()
	r.closeListeners()
	if r.upgrade != nil {
		r.upgrade.Close()
	}
	kill()
	for _, s := range r.servers {
		s.Close()
	}
	left := make(chan struct{})
	go r.rouse(left) // ends when no connection is served any more
	r.ports.Cut()
	r.accepting.Wait()
	for _, s := range r.servers {
		s.Wait()
	}
	close(left)
	for _, closeIt := range r.unserved {
		closeIt()
	}
	r.work.Wait()
	r.p.carrier.Close()
	if r.p.opt.Taken != nil {
		r.p.opt.Taken.Close()
	}
	if r.p.plane != nil {
		r.p.plane.Close()
	}
}

// rouse wakes whoever waits for an endpoint's answer and does not notice by itself that its client's connection was closed.
func (r *running) rouse(left <-chan struct{}) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		r.p.tracker.Rouse()
		select {
		case <-left:
			return
		case <-tick.C:
		}
	}
}

// becomeReady waits for what the proxy cannot serve without.
func (p *Proxy) becomeReady(ctx context.Context) {
	if p.plane != nil {
		select {
		case <-p.plane.Authority.Ready():
		case <-ctx.Done():
			return
		}
	}
	p.state.HasIdentity()
	if p.config.Ready(ctx) == nil { // else ctx has ended
		p.state.HasConfiguration()
	}
}

// bind opens every listener of the bootstrap, so that a port in use is known at once. Connections wait in the queue until the
// proxy accepts. The admin interface and the names are served at once, unless a predecessor still does.
func (r *running) bind() error {
	p, b := r.p, r.p.opt.Bootstrap
	if err := r.openAdmin(); err != nil {
		return err
	}
	if err := r.openNames(); err != nil {
		return err
	}
	if err := r.openUpgrade(); err != nil {
		return err
	}
	if r.owner.Load() {
		r.serveOwn()
	}
	open := func(name, address string, handle func(listen.Accepted)) error {
		if address == "" {
			return nil
		}
		l, err := r.sockets.Listen(r.hard, "tcp", address)
		if err != nil {
			return fmt.Errorf("proxy: listen on %s: %w", address, err)
		}
		r.listeners = append(r.listeners, bound{l, name, address, handle})
		return nil
	}
	err := errors.Join(open(wire.OutboundListener, b.Outbound, p.captured), open(wire.InboundListener, b.Inbound, p.arrived), open("forwardProxy", b.ForwardProxy, p.forwarder))
	for _, m := range b.OutboundPorts {
		err = errors.Join(err, open(m.Listen, m.Listen, p.explicit(m.Destination)))
	}
	for _, m := range b.InboundPorts {
		app, parseErr := netip.ParseAddrPort(m.Destination)
		if parseErr != nil {
			return fmt.Errorf("proxy: inbound port %s: destination: %w", m.Listen, parseErr)
		}
		err = errors.Join(err, open(m.Listen, m.Listen, p.mapped(m, app)))
	}
	return err
}

// openAdmin opens the admin interface. It is served before there is anything else: readiness is asked for before there is any.
func (r *running) openAdmin() error {
	b := r.p.opt.Bootstrap
	for _, at := range [][2]string{{"tcp", b.Admin}, {"unix", b.AdminSocket}} {
		if at[1] == "" {
			continue
		}
		l, err := r.sockets.Listen(r.hard, at[0], at[1])
		if err != nil {
			return fmt.Errorf("proxy: admin: %w", err)
		}
		s := &http.Server{Handler: r.p.Handler(), ReadHeaderTimeout: 10 * time.Second}
		r.work.Go(func() {
			<-r.hard.Done()
			s.Close()
			l.Close() // where it was never served
		})
		r.own = append(r.own, func() {
			r.work.Go(func() { // ends by the closing above
				if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
					r.fails("admin", err)
				}
			})
		})
		r.yielded = append(r.yielded, func() {
			l.Close()
			s.SetKeepAlivesEnabled(false)
		})
	}
	return nil
}

// openNames opens the name server for the workload.
func (r *running) openNames() error {
	p := r.p
	names, ok := p.config.(interface {
		LookupDNS(ctx context.Context, name string) (*conf.Names, error)
	})
	if p.opt.Bootstrap.DNS == "" || !ok {
		return nil
	}
	n, err := r.sockets.ListenNames(r.hard, p.opt.Bootstrap, names.LookupDNS, p.opt.Dial, p.log)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.metrics.Add(n.Gauges)
	ctx, stop := context.WithCancel(r.hard)
	r.yielded = append(r.yielded, stop)
	served := false
	r.own = append(r.own, func() {
		served = true
		r.work.Go(func() { r.fails("dns", n.Serve(ctx)) })
	})
	r.unserved = append(r.unserved, func() {
		if !served {
			n.Close()
		}
	})
	return nil
}
