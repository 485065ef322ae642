package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/broker"
	weftdns "github.com/weftmesh/weft/internal/dns"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/telemetry"
)

// systemDefaults fills in the network of a process of its own.
func (o *Options) systemDefaults() {
	b := o.Bootstrap
	if o.Listen == nil {
		o.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(ctx, network, address)
		}
	}
	if o.ListenPacket == nil {
		o.ListenPacket = func(ctx context.Context, network, address string) (net.PacketConn, error) {
			var lc net.ListenConfig
			return lc.ListenPacket(ctx, network, address)
		}
	}
	if o.Dial == nil {
		d := net.Dialer{Control: marked(b.Mark), KeepAlive: 30 * time.Second}
		o.Dial = d.DialContext
	}
	if o.DialControl == nil {
		o.DialControl = o.Dial
	}
	if b.Broker == "" {
		return
	}
	client := broker.Client{Path: b.Broker}
	if o.DialOutside == nil {
		o.DialOutside = client.Dial
	}
	if o.ListenGateway == nil {
		o.ListenGateway = func(_ context.Context, address string) (net.Listener, error) {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return client.Listen(a.Port())
		}
		o.ReleaseGateway = func(address string) {
			if a, err := netip.ParseAddrPort(address); err == nil {
				if err := client.Release(a.Port()); err != nil {
					o.Log.Warn("a gateway's port was not released", "address", address, "error", err)
				}
			}
		}
	}
}

// marked sets SO_MARK, by which the redirect rules know our own connections.
func marked(mark int) func(network, address string, c syscall.RawConn) error {
	if mark == 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		return errors.Join(err, failed)
	}
}

// bind opens every listener of the bootstrap, so that a port in use is known at once. Connections wait in the queue until the
// proxy accepts.
func (r *running) bind() error {
	p, b := r.p, r.p.opt.Bootstrap
	if err := r.serveAdmin(); err != nil {
		return err
	}
	if err := r.serveDNS(); err != nil {
		return err
	}
	open := func(address string, handle func(listen.Accepted)) error {
		if address == "" {
			return nil
		}
		l, err := p.opt.Listen(r.hard, "tcp", address)
		if err != nil {
			return fmt.Errorf("proxy: listen on %s: %w", address, err)
		}
		r.listeners = append(r.listeners, bound{l, handle})
		return nil
	}
	err := errors.Join(open(b.Outbound, p.captured), open(b.Inbound, p.arrived), open(b.ForwardProxy, p.forwarder))
	for _, m := range b.OutboundPorts {
		err = errors.Join(err, open(m.Listen, p.explicit(m.Destination)))
	}
	for _, m := range b.InboundPorts {
		app, parseErr := netip.ParseAddrPort(m.Destination)
		if parseErr != nil {
			return fmt.Errorf("proxy: inbound port %s: destination: %w", m.Listen, parseErr)
		}
		err = errors.Join(err, open(m.Listen, p.mapped(m, app)))
	}
	return err
}

// serveAdmin serves the admin interface from the start: readiness is asked for before there is any.
func (r *running) serveAdmin() error {
	b := r.p.opt.Bootstrap
	for network, address := range map[string]string{"tcp": b.Admin, "unix": b.AdminSocket} {
		if address == "" {
			continue
		}
		if network == "unix" {
			// What an earlier process left behind; a live one would have been told to end before.
			if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("proxy: admin socket: %w", err)
			}
		}
		l, err := r.p.opt.Listen(r.hard, network, address)
		if err != nil {
			return fmt.Errorf("proxy: admin: %w", err)
		}
		s := &http.Server{Handler: r.p.admin(), ReadHeaderTimeout: 10 * time.Second}
		r.work.Go(func() { // ends by the closing below
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				r.fails("admin", err)
			}
		})
		r.work.Go(func() {
			<-r.hard.Done()
			s.Close()
		})
	}
	return nil
}

// serveDNS serves the names of the mesh to the workload.
func (r *running) serveDNS() error {
	p, b := r.p, r.p.opt.Bootstrap
	names, ok := p.config.(interface {
		LookupDNS(ctx context.Context, name string) ([]netip.Addr, bool, error)
	})
	if b.DNS == "" || !ok {
		return nil
	}
	forward, err := p.forwardDNS()
	if err != nil {
		return err
	}
	s, err := weftdns.New(weftdns.Options{Forward: forward, Lookup: func(ctx context.Context, name string) (weftdns.Answer, bool, error) {
		addresses, found, err := names.LookupDNS(ctx, name)
		if err != nil {
			p.log.Warn("a name was not resolved by the mesh", "name", name, "error", err)
		}
		return weftdns.Answer{Addrs: addresses}, found, err
	}})
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	udp, err := p.opt.ListenPacket(r.hard, "udp", b.DNS)
	if err != nil {
		return fmt.Errorf("proxy: dns: %w", err)
	}
	tcp, err := p.opt.Listen(r.hard, "tcp", b.DNS)
	if err != nil {
		if udp != nil {
			udp.Close()
		}
		return fmt.Errorf("proxy: dns: %w", err)
	}
	r.work.Go(func() { r.fails("dns", s.Serve(r.hard, udp, tcp)) })
	p.metrics.Add(func(page *telemetry.Page) {
		st := s.Stats()
		page.Family("weft_dns_queries_total", "counter", "DNS queries by how they were answered.")
		for _, c := range []struct {
			how string
			n   uint64
		}{{"mesh", st.Answered}, {"forwarded", st.Forwarded}, {"failed", st.Failed}, {"refused", st.Refused}} {
			page.Sample("weft_dns_queries_total", float64(c.n), telemetry.Label{Name: "answer", Value: c.how})
		}
	})
	return nil
}

func (p *Proxy) forwardDNS() (func(context.Context, *dns.Msg) (*dns.Msg, error), error) {
	b := p.opt.Bootstrap
	if len(b.DNSUpstream) > 0 {
		u, err := weftdns.NewUpstreams(b.DNSUpstream, 0, p.opt.Dial)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		return u.Exchange, nil
	}
	if b.Broker == "" {
		return nil, nil
	}
	client := broker.Client{Path: b.Broker}
	return func(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
		raw, err := query.Pack()
		if err != nil {
			return nil, fmt.Errorf("dns query: %w", err)
		}
		if raw, err = client.ExchangeDNS(ctx, raw); err != nil {
			return nil, err
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(raw); err != nil {
			return nil, fmt.Errorf("dns answer: %w", err)
		}
		return answer, nil
	}, nil
}

// openAccessLog starts the access log; the func that it gives ends it.
func (p *Proxy) openAccessLog() (func(), error) {
	w, closeFile := p.opt.AccessLog, func() error { return nil }
	if w == nil {
		switch path := p.opt.Bootstrap.AccessLog; path {
		case "":
			return func() {}, nil
		case "stdout":
			w = os.Stdout
		default:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
			if err != nil {
				return nil, fmt.Errorf("proxy: access log: %w", err)
			}
			w, closeFile = f, f.Close
		}
	}
	if w == io.Discard {
		return func() {}, nil
	}
	p.access = telemetry.NewLog(w)
	p.access.JSON = p.opt.AccessLogJSON
	return func() {
		p.access.Close()
		if err := closeFile(); err != nil {
			p.log.Warn("access log", "error", err)
		}
	}, nil
}

// gateways binds the listeners of the snapshot and keeps them in step with it.
type gateways struct {
	r *running

	mu     sync.Mutex
	open   map[string]*gatewayPort // by listener name
	failed map[string]string       // why others are not
	closed bool
	server []*listen.Server // also of ports that were closed: their connections go on
}

type gatewayPort struct {
	net.Listener
	address string
	server  *listen.Server
}

// gatewayRetry is how soon a port that could not be bound is tried again.
const gatewayRetry = time.Second

func (g *gateways) run(ctx context.Context) {
	tick := time.NewTicker(gatewayRetry)
	defer tick.Stop()
	for {
		changed := g.r.p.config.Changed()
		g.reconcile(ctx, g.r.p.config.Snapshot().Gateways)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (g *gateways) reconcile(ctx context.Context, want []*conf.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	wanted := map[string]*conf.Listener{}
	for _, l := range want {
		wanted[l.Name] = l
	}
	for name, port := range g.open {
		if l := wanted[name]; l == nil || l.Address.String() != port.address {
			g.shut(name, port)
		}
	}
	failed := map[string]string{}
	for name, l := range wanted {
		if g.open[name] == nil {
			if err := g.bind(ctx, l); err != nil {
				failed[name] = plainListen(err)
				if g.failed[name] != failed[name] {
					g.r.p.log.Error("a gateway's port cannot be bound; it is tried again", "listener", name, "address", l.Address, "error", err)
				}
			}
		}
	}
	g.failed = failed
	g.forget()
	g.r.p.state.gateway(len(g.open), failed)
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
func (g *gateways) forget() {
	used := map[*listen.Server]bool{}
	for _, port := range g.open {
		used[port.server] = true
	}
	g.server = slices.DeleteFunc(g.server, func(s *listen.Server) bool { return !used[s] && s.Open() == 0 })
}

// shut is called with mu held. Connections go on.
func (g *gateways) shut(name string, port *gatewayPort) {
	port.Close()
	if g.r.p.opt.ReleaseGateway != nil {
		g.r.p.opt.ReleaseGateway(port.address)
	}
	delete(g.open, name)
	g.r.p.log.Info("gateway port closed", "listener", name, "address", port.address)
}

// bind is called with mu held.
func (g *gateways) bind(ctx context.Context, l *conf.Listener) error {
	p, address := g.r.p, l.Address.String()
	listenOn := p.opt.ListenGateway
	if listenOn == nil {
		listenOn = func(ctx context.Context, address string) (net.Listener, error) {
			return p.opt.Listen(ctx, "tcp", address)
		}
	}
	nl, err := listenOn(ctx, address)
	if err != nil {
		return err
	}
	name := l.Name
	s := &listen.Server{Log: p.log, Handle: func(a listen.Accepted) { p.enter(name, a) }}
	g.open[name] = &gatewayPort{nl, address, s}
	g.server = append(g.server, s)
	g.r.accepting.Go(func() { // ends when the port is closed
		if err := s.Serve(nl); err != nil {
			p.log.Error("a gateway's port fails", "listener", name, "error", err)
		}
	})
	p.log.Info("gateway port bound", "listener", name, "address", address)
	return nil
}

// closeAll stops accepting for good.
func (g *gateways) closeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for name, port := range g.open {
		g.shut(name, port)
	}
}

func (g *gateways) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, s := range g.server {
		n += s.Open()
	}
	return n
}

// cut closes all connections and waits for their ends.
func (g *gateways) cut() {
	g.mu.Lock()
	servers := g.server
	g.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
	for _, s := range servers {
		s.Wait()
	}
}

// enter serves a connection to a gateway, by the listener's newest configuration.
func (p *Proxy) enter(name string, a listen.Accepted) {
	d := p.newDownstream(a, gateway)
	d.newest = func() *conf.Listener {
		for _, l := range p.config.Snapshot().Gateways {
			if l.Name == name {
				return l
			}
		}
		return nil
	}
	l := d.newest()
	if l == nil {
		d.turnAway(noConfig, "accept", fmt.Errorf("listener %s is gone", name))
		return
	}
	if l.Address.Port() != 0 {
		d.port = l.Address.Port()
		d.destination = netip.AddrPortFrom(a.Destination.Addr(), d.port)
	}
	d.serveListener(l)
}
