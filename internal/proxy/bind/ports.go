package bind

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
)

// Config is where the listeners are read that ports are made of.
type Config interface {
	Snapshot() *conf.Snapshot
	Changed() <-chan struct{}
}

// Owner is the kind of proxy that has ports which follow its configuration.
type Owner struct {
	// wanted are the listeners that ports are made of.
	wanted func(*conf.Snapshot) []*conf.Listener
	// listen opens a port of TCP; release gives it up for good after its listener was closed, nil for nothing to do.
	listen  func(s *Sockets, ctx context.Context, address string) (net.Listener, error)
	release func(s *Sockets, address string) error
	// inside says that ports of TCP are opened in the proxy's own network as well, where its Network tells the two apart.
	inside bool
	// unbound is how the log says that a port cannot be bound.
	unbound string
	// seldom: most have no ports, and there are many of them.
	seldom bool
}

// The owners, which are never changed.
var (
	// OfGateway has the ports that Gateway objects name, in the network where its clients are and in that of the mesh.
	OfGateway = Owner{
		wanted:  func(s *conf.Snapshot) []*conf.Listener { return s.Gateways },
		listen:  (*Sockets).ListenGateway,
		release: (*Sockets).Release,
		inside:  true,
		unbound: "a gateway's port cannot be bound; it is tried again",
	}
	// OfSidecar has what its workload's Sidecar object opens beside the listeners of the bootstrap file: in the workload's own network, and
	// of TCP alone.
	OfSidecar = Owner{
		wanted: func(s *conf.Snapshot) []*conf.Listener { return s.Opened },
		listen: func(s *Sockets, ctx context.Context, address string) (net.Listener, error) {
			return s.Listen(ctx, "tcp", address)
		},
		unbound: "an address of the workload's Sidecar object cannot be listened at; it is tried again",
		seldom:  true,
	}
)

// Ports binds the listeners of the snapshot that are its owner's, and keeps them in step with it. Its methods may be called from any
// goroutine.
type Ports struct {
	// Set once, before Run.

	Owner   Owner
	Sockets *Sockets
	Config  Config
	Log     *slog.Logger
	// Handle serves a connection to the listener of that name.
	Handle func(name string, a listen.Accepted)
	// Gate makes the gate of a port; nil lets all connections in.
	Gate func() listen.Gate
	// QUIC makes the server of HTTP/3 of the listener of that name; nil refuses such listeners.
	QUIC func(name string) PacketServer
	// Datagrams makes the relay of a listener for datagrams; nil refuses such listeners.
	Datagrams func(name string) PacketServer
	// Bound hears after each look how many ports are open, and why others are not, by listener.
	Bound func(open int, failed map[string]string)
	// Preceded reports whether a process before this one still ends what it has; nil where there is none.
	Preceded func() bool

	accepting sync.WaitGroup // ends when the ports are closed
	draining  sync.WaitGroup // ends with the connections of HTTP/3, and the sessions of ports for datagrams that were closed

	mu     sync.Mutex
	open   map[string]*tcpPort // by listener name
	failed map[string]failure  // why others are not
	// followed are the listeners that the ports were made of last.
	followed []*conf.Listener
	frozen   bool
	closed   bool
	server   []*listen.Server // also of ports that were closed: their connections go on
	packets  map[string]*packetPort
	// leaving are the ports of UDP that were closed and drain.
	leaving []*packetPort
}

// failure is a port that cannot be bound.
type failure struct {
	why   string
	since time.Time
	told  slog.Level // at which it was last logged
}

// tcpPort is an open port of TCP, or one of which a part is.
type tcpPort struct {
	address string
	server  *listen.Server
	// The listeners, nil while they cannot be opened; inside also where there is no other network.
	outside, inside net.Listener
}

// listeners gives those that are open.
func (t *tcpPort) listeners() []net.Listener {
	return slices.DeleteFunc([]net.Listener{t.outside, t.inside}, func(l net.Listener) bool { return l == nil })
}

// whole reports whether all of a port is open.
func (p *Ports) whole(name string) bool {
	port := p.open[name]
	if port == nil {
		return p.packets[name] != nil
	}
	return port.outside != nil && (port.inside != nil || !p.hasInside())
}

func (p *Ports) hasInside() bool { return p.Owner.inside && p.Sockets.net.ListenInside != nil }

// bindRetry is how soon a port that could not be bound is tried again.
const bindRetry = time.Second

// Run follows the configuration until ctx ends.
func (p *Ports) Run(ctx context.Context) {
	tick := time.NewTicker(bindRetry)
	defer tick.Stop()
	for {
		changed := p.Config.Changed()
		p.reconcile(ctx)
		again := tick.C
		if p.Owner.seldom && !p.has() {
			again = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

func (p *Ports) wanted() []*conf.Listener { return p.Owner.wanted(p.Config.Snapshot()) }

// has reports whether there is anything to look after.
func (p *Ports) has() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.failed)+len(p.server) > 0
}

// Follow has the ports be as the configuration says now, as far as that can be. Run does the same, a moment later.
func (p *Ports) Follow(ctx context.Context) {
	p.mu.Lock()
	same := slices.Equal(p.followed, p.wanted())
	p.mu.Unlock()
	if !same {
		p.reconcile(ctx)
	}
}

func (p *Ports) reconcile(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.frozen {
		return
	}
	want := p.wanted()
	p.followed = want
	wanted := map[string]*conf.Listener{}
	for _, l := range want {
		wanted[l.Name] = l
	}
	for name, port := range p.open {
		if l := wanted[name]; l == nil || l.Address.String() != port.address {
			p.shut(name, port, true)
		}
	}
	for name, port := range p.packets {
		if !port.fits(wanted[name]) {
			p.shutPackets(name, port, withdrawn)
		}
	}
	failed := map[string]failure{}
	why := map[string]string{}
	for name, l := range wanted {
		if p.whole(name) {
			continue
		}
		if err := p.bind(ctx, l); err != nil {
			failed[name] = p.fails(l, err)
			why[name] = failed[name].why
		}
	}
	p.failed = failed
	p.forget()
	p.Bound(len(p.open)+len(p.packets), why)
}

// yieldTime is how long a port of HTTP/3 may be another process's before that is a fault. The process of which this one takes the place
// gives it up when its requests have ended.
const yieldTime = 15 * time.Second

// fails logs what is new of a port that cannot be bound; mu is held.
func (p *Ports) fails(l *conf.Listener, err error) failure {
	f, again := p.failed[l.Name]
	if why := plainListen(err); !again || f.why != why {
		f = failure{why: why, since: time.Now(), told: slog.LevelDebug}
	}
	level, text := slog.LevelError, p.Owner.unbound
	if l.QUIC && errors.Is(err, syscall.EADDRINUSE) && (time.Since(f.since) < yieldTime || p.Preceded != nil && p.Preceded()) {
		level, text = slog.LevelInfo, "HTTP/3 waits for its port, which a process that leaves may still have"
	}
	if f.told < level {
		f.told = level
		p.Log.Log(context.Background(), level, text, "listener", l.Name, "address", l.Address, "error", err)
	}
	return f
}

// plainListen leaves out what package net and the system call's wrapper put before the cause: the port is named beside it.
func plainListen(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// forget drops the servers of closed ports whose connections have all ended. mu is held.
func (p *Ports) forget() {
	used := map[*listen.Server]bool{}
	for _, port := range p.open {
		used[port.server] = true
	}
	p.server = slices.DeleteFunc(p.server, func(s *listen.Server) bool { return !used[s] && s.Open() == 0 })
}

// shut is called with mu held. Connections go on. release gives the port up; else another process has it now.
func (p *Ports) shut(name string, port *tcpPort, release bool) {
	for _, l := range port.listeners() {
		l.Close()
		p.Sockets.Forget(l)
	}
	delete(p.open, name)
	if release && p.Owner.release != nil {
		if err := p.Owner.release(p.Sockets, port.address); err != nil {
			p.Log.Warn("a gateway's port was not released", "address", port.address, "error", err)
		}
	}
	p.Log.Info("port closed", "listener", name, "address", port.address)
}

// bind opens what is not open of a port. It is called with mu held.
func (p *Ports) bind(ctx context.Context, l *conf.Listener) error {
	if l.QUIC || l.Datagrams != nil {
		return p.bindPackets(ctx, l)
	}
	port := p.open[l.Name]
	if port == nil {
		port = &tcpPort{address: l.Address.String()}
	}
	var outside, inside error
	if port.outside == nil {
		port.outside, outside = p.Owner.listen(p.Sockets, ctx, port.address)
		p.serve(l.Name, port, port.outside)
	}
	if port.inside == nil && p.hasInside() {
		port.inside, inside = p.Sockets.ListenInside(ctx, port.address)
		p.serve(l.Name, port, port.inside)
	}
	return cmp.Or(outside, inside)
}

// serve accepts at a port's listener; nil is one that could not be opened. It is called with mu held.
func (p *Ports) serve(name string, port *tcpPort, l net.Listener) {
	if l == nil {
		return
	}
	if port.server == nil {
		port.server = &listen.Server{Log: p.Log, Handle: func(a listen.Accepted) { p.Handle(name, a) }}
		if p.Gate != nil {
			port.server.Gate = p.Gate()
		}
		if p.open == nil {
			p.open = map[string]*tcpPort{}
		}
		p.open[name] = port
		p.server = append(p.server, port.server)
	}
	p.accepting.Go(func() { // ends when the port is closed
		if err := port.server.Serve(l); err != nil {
			p.Log.Error("a port fails", "listener", name, "error", err)
		}
	})
	p.Log.Info("port bound", "listener", name, "address", l.Addr())
}

// Freeze stops following the configuration, or goes on with it: ports that are being handed over stay as they are.
func (p *Ports) Freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
}

// Stop stops accepting for good. release gives the ports up; else another process has them now.
func (p *Ports) Stop(release bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for name, port := range p.open {
		p.shut(name, port, release)
	}
	for name, port := range p.packets {
		if release {
			p.shutPackets(name, port, ends)
		} else {
			p.shutPackets(name, port, handedOver)
		}
	}
}

// Settle waits after Stop until what was accepted is counted among the Connections.
func (p *Ports) Settle() { p.accepting.Wait() }

// Connections is the number of open ones.
func (p *Ports) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.server {
		n += s.Open()
	}
	for _, q := range p.packets {
		n += q.server.Open()
	}
	for _, q := range p.leaving {
		n += q.server.Open()
	}
	return n
}

// Open lists the open ports: address by listener name.
func (p *Ports) Open() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := make(map[string]string, len(p.open))
	for name, port := range p.open {
		m[name] = port.listeners()[0].Addr().String()
	}
	for name, port := range p.packets {
		m[name] = port.LocalAddr().String()
	}
	return m
}

// Cut closes all connections and waits for their ends. Stop comes first.
func (p *Ports) Cut() {
	p.mu.Lock()
	servers := p.server
	leaving := slices.Clone(p.leaving)
	p.mu.Unlock()
	for _, q := range leaving {
		q.server.Close()
	}
	for _, s := range servers {
		s.Close()
	}
	p.accepting.Wait()
	p.draining.Wait()
	for _, s := range servers {
		s.Wait()
	}
}
