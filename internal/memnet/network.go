// Package memnet is a TCP/IP network in memory, so that a whole mesh (clients, sidecars, control plane, services) runs in
// one process and one test. It has hosts with addresses, listeners, connections with half-close, deadlines, back-pressure and
// resets, refused connections, and the capture of a host's traffic by its sidecar that nftables does elsewhere.
//
// It opens no sockets and takes its time from package time alone: it works inside a testing/synctest bubble, in which all of
// a network's users must then live.
package memnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Network is a set of hosts that can all reach each other. The zero value is not usable: New.
type Network struct {
	mu    sync.Mutex
	hosts map[netip.Addr]*Host
}

// New makes an empty network.
func New() *Network { return &Network{hosts: map[netip.Addr]*Host{}} }

// Host gives the host of that address, made at first use. An IPv4 address mapped to IPv6 is the IPv4 one.
func (n *Network) Host(ip netip.Addr) *Host {
	ip = ip.Unmap()
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[ip]
	if h == nil {
		h = &Host{net: n, ip: ip, listeners: map[netip.AddrPort]*Listener{}, nextPort: firstEphemeral}
		n.hosts[ip] = h
	}
	return h
}

// lookup gives nil for a host nobody has named.
func (n *Network) lookup(ip netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[ip.Unmap()]
}

// Listen listens at addr on the host of that address. Port zero takes a free one.
func (n *Network) Listen(addr netip.AddrPort) (*Listener, error) {
	return n.Host(addr.Addr()).Listen(addr)
}

// Dial connects the host from to the address to, through what captures the traffic of either.
func (n *Network) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	return n.Host(from).Dial(ctx, to)
}

// Redirect says where a connection meant for dst is delivered instead, on the same host.
type Redirect func(dst netip.AddrPort) (to netip.AddrPort, captured bool)

// Host is one address of the network with its own loopback.
type Host struct {
	// Set once.
	net *Network
	ip  netip.Addr

	mu                sync.Mutex
	listeners         map[netip.AddrPort]*Listener
	nextPort          uint16
	outbound, inbound Redirect
}

const firstEphemeral = 32768

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.ip }

// CaptureOutbound makes Dial deliver connections that r takes to a listener of this host. nil ends the capture.
func (h *Host) CaptureOutbound(r Redirect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outbound = r
}

// CaptureInbound makes connections from other hosts that r takes arrive at another listener of this host. nil ends it.
func (h *Host) CaptureInbound(r Redirect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inbound = r
}

// Listen listens at the host's own address, at a loopback address that only the host itself reaches, or at the unspecified
// address for both. Port zero takes a free one. It fails with EADDRINUSE, or EADDRNOTAVAIL for another host's address.
func (h *Host) Listen(addr netip.AddrPort) (*Listener, error) {
	ip := addr.Addr().Unmap()
	h.mu.Lock()
	defer h.mu.Unlock()
	if ip != h.ip && !ip.IsLoopback() && !ip.IsUnspecified() {
		return nil, listenError(addr, syscall.EADDRNOTAVAIL)
	}
	port := addr.Port()
	if port == 0 {
		port = h.freePort()
	}
	addr = netip.AddrPortFrom(ip, port)
	if h.listeners[addr] != nil {
		return nil, listenError(addr, syscall.EADDRINUSE)
	}
	l := newListener(h, addr)
	h.listeners[addr] = l
	return l, nil
}

func listenError(addr netip.AddrPort, errno syscall.Errno) error {
	return &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: os.NewSyscallError("bind", errno)}
}

// freePort is called with mu held. Ports of connections may repeat after a lap, as nothing looks a connection up by them.
func (h *Host) freePort() uint16 {
	for {
		p := h.nextPort
		if h.nextPort++; h.nextPort == 0 {
			h.nextPort = firstEphemeral
		}
		used := false
		for a := range h.listeners {
			used = used || a.Port() == p
		}
		if !used {
			return p
		}
	}
}

func (h *Host) remove(l *Listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[l.addr] == l {
		delete(h.listeners, l.addr)
	}
}

// find gives who listens at dst, an exact address before the unspecified ones.
func (h *Host) find(dst netip.AddrPort) *Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ip := range [...]netip.Addr{dst.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if l := h.listeners[netip.AddrPortFrom(ip, dst.Port())]; l != nil {
			return l
		}
	}
	return nil
}

// Dial connects as a program on the host does: its outbound capture applies, then the inbound capture of the other host.
// Nobody listening is ECONNREFUSED, an address that no host has is EHOSTUNREACH; a full backlog blocks until ctx ends.
func (h *Host) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return h.dial(ctx, to, true)
}

// DialDirect connects as the sidecar does, exempt from its own host's capture.
func (h *Host) DialDirect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return h.dial(ctx, to, false)
}

func (h *Host) dial(ctx context.Context, to netip.AddrPort, captured bool) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	from := h.source(to)
	at, dst := h.deliver(to, captured)
	if at == nil {
		return nil, dialError(from, to, os.NewSyscallError("connect", syscall.EHOSTUNREACH))
	}
	l := at.find(dst)
	if l == nil {
		return nil, dialError(from, to, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	client, server := pair(from, to, dst)
	if err := l.offer(ctx, server); err != nil {
		client.Close()
		server.Close()
		return nil, dialError(from, to, err)
	}
	return client, nil
}

// source gives the address that a connection to that destination comes from.
func (h *Host) source(to netip.AddrPort) netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	ip := h.ip
	if to.Addr().IsLoopback() {
		ip = to.Addr()
	}
	return netip.AddrPortFrom(ip, h.freePort())
}

// deliver gives the host and the address at which a connection meant for to arrives.
func (h *Host) deliver(to netip.AddrPort, captured bool) (*Host, netip.AddrPort) {
	h.mu.Lock()
	outbound := h.outbound
	h.mu.Unlock()
	if captured && outbound != nil {
		if dst, ok := outbound(to); ok {
			return h, dst
		}
	}
	if to.Addr().IsLoopback() || to.Addr() == h.ip {
		return h, to
	}
	peer := h.net.lookup(to.Addr())
	if peer == nil {
		return nil, to
	}
	peer.mu.Lock()
	inbound := peer.inbound
	peer.mu.Unlock()
	if inbound != nil {
		if dst, ok := inbound(to); ok {
			return peer, dst
		}
	}
	return peer, to
}

func dialError(from, to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(from), Addr: net.TCPAddrFromAddrPort(to), Err: err}
}

// backlog is how many connections wait for Accept.
const backlog = 128

// Listener accepts the connections of one address. It is a net.Listener.
type Listener struct {
	// Set once.
	host  *Host
	addr  netip.AddrPort
	queue chan *Conn
	done  chan struct{}

	close sync.Once
}

func newListener(h *Host, addr netip.AddrPort) *Listener {
	return &Listener{host: h, addr: addr, queue: make(chan *Conn, backlog), done: make(chan struct{})}
}

func (l *Listener) offer(ctx context.Context, c *Conn) error {
	select {
	case <-l.done:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	default:
	}
	select {
	case l.queue <- c:
		return nil
	case <-l.done:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case <-ctx.Done():
		return fmt.Errorf("waiting in the backlog: %w", ctx.Err())
	}
}

// Accept gives the next connection, a *Conn. After Close it fails with net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	case c := <-l.queue:
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Addr is the address listened at, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// AddrPort is the address listened at.
func (l *Listener) AddrPort() netip.AddrPort { return l.addr }

// Close stops listening and resets the connections that nobody accepted.
func (l *Listener) Close() error {
	l.close.Do(func() {
		l.host.remove(l)
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.Reset()
			default:
				return
			}
		}
	})
	return nil
}
