package bind

import (
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

// Config is where the listeners of a gateway are read.
type Config interface {
	Snapshot() *conf.Snapshot
	Changed() <-chan struct{}
}

// Gateways binds the listeners of the snapshot and keeps them in step with it: the ports of a gateway, or what a sidecar opens beside the
// listeners of its bootstrap file. Its methods may be called from any goroutine.
type Gateways struct {
	// Set once, before Run.

	Sockets *Sockets
	Config  Config
	Log     *slog.Logger
	// Sidecar says that the proxy is one: its listeners are of the workload's own network, and TCP's alone.
	Sidecar bool
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
	open   map[string]*gatewayPort // by listener name
	failed map[string]failure      // why others are not
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

type gatewayPort struct {
	net.Listener
	address string
	server  *listen.Server
}

func (g *Gateways) address(name string) (address string, open bool) {
	if p := g.open[name]; p != nil {
		return p.address, true
	}
	if p := g.packets[name]; p != nil {
		return p.address, true
	}
	return "", false
}

// gatewayRetry is how soon a port that could not be bound is tried again.
const gatewayRetry = time.Second

// Run follows the configuration until ctx ends.
func (g *Gateways) Run(ctx context.Context) {
	tick := time.NewTicker(gatewayRetry)
	defer tick.Stop()
	for {
		changed := g.Config.Changed()
		g.reconcile(ctx)
		again := tick.C
		if g.Sidecar && !g.has() {
			again = nil // most sidecars open nothing, and there are many
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

func (g *Gateways) wanted() []*conf.Listener {
	if g.Sidecar {
		return g.Config.Snapshot().Opened
	}
	return g.Config.Snapshot().Gateways
}

// has reports whether there is anything to look after.
func (g *Gateways) has() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.failed)+len(g.server) > 0
}

// Follow has the ports be as the configuration says now, as far as that can be. Run does the same, a moment later.
func (g *Gateways) Follow(ctx context.Context) {
	g.mu.Lock()
	same := slices.Equal(g.followed, g.wanted())
	g.mu.Unlock()
	if !same {
		g.reconcile(ctx)
	}
}

func (g *Gateways) reconcile(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.frozen {
		return
	}
	want := g.wanted()
	g.followed = want
	wanted := map[string]*conf.Listener{}
	for _, l := range want {
		wanted[l.Name] = l
	}
	for name, port := range g.open {
		if l := wanted[name]; l == nil || l.Address.String() != port.address {
			g.shut(name, port, true)
		}
	}
	for name, port := range g.packets {
		if !port.fits(wanted[name]) {
			g.shutPackets(name, port, withdrawn)
		}
	}
	failed := map[string]failure{}
	why := map[string]string{}
	for name, l := range wanted {
		if _, open := g.address(name); open {
			continue
		}
		if err := g.bind(ctx, l); err != nil {
			failed[name] = g.fails(l, err)
			why[name] = failed[name].why
		}
	}
	g.failed = failed
	g.forget()
	g.Bound(len(g.open)+len(g.packets), why)
}

// yieldTime is how long a port of HTTP/3 may be another process's before that is a fault. The process of which this one takes the place
// gives it up when its requests have ended.
const yieldTime = 15 * time.Second

// fails logs what is new of a port that cannot be bound; mu is held.
func (g *Gateways) fails(l *conf.Listener, err error) failure {
	f, again := g.failed[l.Name]
	if why := plainListen(err); !again || f.why != why {
		f = failure{why: why, since: time.Now(), told: slog.LevelDebug}
	}
	level, text := slog.LevelError, "a gateway's port cannot be bound; it is tried again"
	if g.Sidecar {
		text = "an address of the workload's Sidecar object cannot be listened at; it is tried again"
	}
	if l.QUIC && errors.Is(err, syscall.EADDRINUSE) && (time.Since(f.since) < yieldTime || g.Preceded != nil && g.Preceded()) {
		level, text = slog.LevelInfo, "HTTP/3 waits for its port, which a process that leaves may still have"
	}
	if f.told < level {
		f.told = level
		g.Log.Log(context.Background(), level, text, "listener", l.Name, "address", l.Address, "error", err)
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
func (g *Gateways) forget() {
	used := map[*listen.Server]bool{}
	for _, port := range g.open {
		used[port.server] = true
	}
	g.server = slices.DeleteFunc(g.server, func(s *listen.Server) bool { return !used[s] && s.Open() == 0 })
}

// shut is called with mu held. Connections go on. release gives the port up; else another process has it now.
func (g *Gateways) shut(name string, port *gatewayPort, release bool) {
	port.Close()
	g.Sockets.Forget(port.Listener)
	delete(g.open, name)
	if release && !g.Sidecar {
		if err := g.Sockets.Release(port.address); err != nil {
			g.Log.Warn("a gateway's port was not released", "address", port.address, "error", err)
		}
	}
	g.Log.Info("port closed", "listener", name, "address", port.address)
}

// bind is called with mu held.
func (g *Gateways) bind(ctx context.Context, l *conf.Listener) error {
	if l.QUIC || l.Datagrams != nil {
		return g.bindPackets(ctx, l)
	}
	address := l.Address.String()
	nl, err := g.listen(ctx, address)
	if err != nil {
		return err
	}
	name := l.Name
	s := &listen.Server{Log: g.Log, Handle: func(a listen.Accepted) { g.Handle(name, a) }}
	if g.Gate != nil {
		s.Gate = g.Gate()
	}
	if g.open == nil {
		g.open = map[string]*gatewayPort{}
	}
	g.open[name] = &gatewayPort{nl, address, s}
	g.server = append(g.server, s)
	g.accepting.Go(func() { // ends when the port is closed
		if err := s.Serve(nl); err != nil {
			g.Log.Error("a port fails", "listener", name, "error", err)
		}
	})
	g.Log.Info("port bound", "listener", name, "address", address)
	return nil
}

func (g *Gateways) listen(ctx context.Context, address string) (net.Listener, error) {
	if g.Sidecar {
		return g.Sockets.Listen(ctx, "tcp", address)
	}
	return g.Sockets.ListenGateway(ctx, address)
}

// Freeze stops following the configuration, or goes on with it: ports that are being handed over stay as they are.
func (g *Gateways) Freeze(frozen bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = frozen
}

// Stop stops accepting for good. release gives the ports up; else another process has them now.
func (g *Gateways) Stop(release bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for name, port := range g.open {
		g.shut(name, port, release)
	}
	for name, port := range g.packets {
		if release {
			g.shutPackets(name, port, ends)
		} else {
			g.shutPackets(name, port, handedOver)
		}
	}
}

// Settle waits after Stop until what was accepted is counted among the Connections.
func (g *Gateways) Settle() { g.accepting.Wait() }

// Connections is the number of open ones.
func (g *Gateways) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, s := range g.server {
		n += s.Open()
	}
	for _, q := range g.packets {
		n += q.server.Open()
	}
	for _, q := range g.leaving {
		n += q.server.Open()
	}
	return n
}

// Ports lists the open ports: address by listener name.
func (g *Gateways) Ports() map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := make(map[string]string, len(g.open))
	for name, p := range g.open {
		m[name] = p.Addr().String()
	}
	for name, p := range g.packets {
		m[name] = p.LocalAddr().String()
	}
	return m
}

// Cut closes all connections and waits for their ends. Stop comes first.
func (g *Gateways) Cut() {
	g.mu.Lock()
	servers := g.server
	leaving := slices.Clone(g.leaving)
	g.mu.Unlock()
	for _, q := range leaving {
		q.server.Close()
	}
	for _, s := range servers {
		s.Close()
	}
	g.accepting.Wait()
	g.draining.Wait()
	for _, s := range servers {
		s.Wait()
	}
}
