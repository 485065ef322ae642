// Package bind opens the sockets that a proxy accepts on: its listeners, the name server's, and the ports that the configuration names,
// with which it keeps in step. Sockets that an earlier process of this proxy has handed over are used before new ones are made.
package bind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/steer"
	"github.com/weftmesh/weft/internal/wire"
)

// Network is how sockets are made. Its fields are set once.
type Network struct {
	// Listen opens a listener: network is "tcp", "unix" or Packets.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	// ListenPacket opens a UDP socket; nil, and a nil socket, stand for none.
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// ListenGateway opens a gateway's port and ReleaseGateway gives it up; the latter may be nil.
	ListenGateway  func(ctx context.Context, address string) (net.Listener, error)
	ReleaseGateway func(address string) error
	// ListenInside opens a gateway's port in the network of its own pod too, where its clients are elsewhere; nil where they are not.
	ListenInside func(ctx context.Context, address string) (net.Listener, error)
	// Engine is the back end on which connections are accepted, whoever opened the listener.
	Engine *conn.Engine
	// ListenGatewayPacket opens a gateway's UDP port, which is for HTTP/3.
	ListenGatewayPacket func(ctx context.Context, address string) (net.PacketConn, error)
	// ListenGatewayDatagrams opens one for datagrams, which has no port of TCP beside it.
	ListenGatewayDatagrams func(ctx context.Context, address string) (net.PacketConn, error)
	// ReleaseGatewayDatagrams gives up what that opened; it may be nil.
	ReleaseGatewayDatagrams func(address string) error
}

// Complete sets what is nil to the network of this process, and gateways' ports to the broker's where the bootstrap names one.
func (n *Network) Complete(b *wire.Bootstrap) {
	var lc net.ListenConfig
	if n.Listen == nil {
		n.Listen = lc.Listen
	}
	if n.ListenPacket == nil {
		n.ListenPacket = lc.ListenPacket
	}
	if n.ListenGatewayPacket == nil {
		n.ListenGatewayPacket = n.gatewayPackets(b, broker.Client.ListenPacket)
	}
	if n.ListenGatewayDatagrams == nil {
		n.ListenGatewayDatagrams = n.gatewayPackets(b, broker.Client.ListenDatagrams)
	}
	if b.Broker != "" && n.ReleaseGatewayDatagrams == nil {
		n.ReleaseGatewayDatagrams = releasing(broker.Client{Path: b.Broker}.ReleaseDatagrams)
	}
	if n.ListenGateway != nil {
		return
	}
	if b.Broker == "" {
		n.ListenGateway = func(ctx context.Context, address string) (net.Listener, error) { return n.Listen(ctx, "tcp", address) }
		return
	}
	if b.PodNetwork != "" && n.ListenInside == nil {
		n.ListenInside = func(ctx context.Context, address string) (net.Listener, error) { return n.Listen(ctx, "tcp", address) }
	}
	client := broker.Client{Path: b.Broker}
	n.ListenGateway = func(_ context.Context, address string) (net.Listener, error) {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return client.Listen(a.Port())
	}
	n.ReleaseGateway = releasing(client.Release)
}

// releasing tells the broker the port of an address.
func releasing(release func(uint16) error) func(address string) error {
	return func(address string) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return release(a.Port())
	}
}

// gatewayPackets opens UDP ports of gateways: by asking the broker, if the bootstrap names one.
func (n *Network) gatewayPackets(b *wire.Bootstrap, ask func(broker.Client, uint16) (net.PacketConn, error)) func(context.Context, string) (net.PacketConn, error) {
	if b.Broker == "" {
		return func(ctx context.Context, address string) (net.PacketConn, error) {
			return n.ListenPacket(ctx, "udp", address)
		}
	}
	client := broker.Client{Path: b.Broker}
	return func(_ context.Context, address string) (net.PacketConn, error) {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return ask(client, a.Port())
	}
}

// Dialer connects on a back end with SO_MARK, by which the redirect rules know our own connections; 0 is no mark.
func Dialer(e *conn.Engine, mark int) func(ctx context.Context, network, address string) (net.Conn, error) {
	if mark == 0 {
		return e.Dialer(nil)
	}
	return e.Dialer(func(fd uintptr) error { return setMark(fd, mark) })
}

// Packets is the Network of a Socket of unix packets, Gateway of one that is a gateway's port, and Inside of one that is so in the gateway's
// own network.
const (
	Packets = "unixpacket"
	Gateway = "gateway"
	Inside  = "gateway-inside"
)

// Socket is one that is open and may be handed over. Network is "tcp", "udp", "unix", Gateway, Inside, Datagrams, QUIC or Steer; Address is the
// configured one.
type Socket struct {
	Network, Address string
	Conn             syscall.Conn
}

// Inherited is a socket that was handed over.
type Inherited struct {
	Network, Address string
	File             *os.File
}

// Sockets knows the open sockets of a proxy. Its methods may be called from any goroutine.
type Sockets struct {
	// Set once, before use.

	net Network
	// Number tells this process from those whose places it and its predecessors took, as long as these end what they have.
	Number byte

	mu        sync.Mutex
	open      []opened
	inherited []Inherited
}

type opened struct {
	Socket
	closer any // what was given out
}

// NewSockets opens sockets in n, which is complete, but takes what was inherited first. Files that nobody asks for stay open until
// Own or Close.
func NewSockets(n Network, inherited []Inherited) *Sockets {
	return &Sockets{net: n, inherited: inherited}
}

// Listen opens a listener; network is "tcp", "unix" or Packets. A unix socket that an earlier process left behind is replaced.
func (s *Sockets) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if l, err := s.inheritedListener(network, address); l != nil || err != nil {
		return l, err
	}
	if network == "unix" || network == Packets {
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	l, err := s.net.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return s.onto(network, address, l)
}

// ListenPacket opens a UDP socket; nil where the network has none.
func (s *Sockets) ListenPacket(ctx context.Context, address string) (net.PacketConn, error) {
	if f := s.take("udp", address); f != nil {
		defer f.Close()
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, fmt.Errorf("inherited socket: %w", err)
		}
		s.add("udp", address, c)
		return c, nil
	}
	c, err := s.net.ListenPacket(ctx, "udp", address)
	if err != nil || c == nil {
		return nil, err
	}
	s.add("udp", address, c)
	return c, nil
}

// ListenGateway opens a gateway's port.
func (s *Sockets) ListenGateway(ctx context.Context, address string) (net.Listener, error) {
	if l, err := s.inheritedListener(Gateway, address); l != nil || err != nil {
		return l, err
	}
	l, err := s.net.ListenGateway(ctx, address)
	if err != nil {
		return nil, err
	}
	return s.onto(Gateway, address, l)
}

// ListenInside opens a gateway's port in the gateway's own network, where its Network does.
func (s *Sockets) ListenInside(ctx context.Context, address string) (net.Listener, error) {
	if l, err := s.inheritedListener(Inside, address); l != nil || err != nil {
		return l, err
	}
	l, err := s.net.ListenInside(ctx, address)
	if err != nil {
		return nil, err
	}
	return s.onto(Inside, address, l)
}

// Release gives a gateway's port up for good, after its listener was closed.
func (s *Sockets) Release(address string) error {
	if s.net.ReleaseGateway == nil {
		return nil
	}
	return s.net.ReleaseGateway(address)
}

// ReleaseDatagrams is Release for a port for datagrams.
func (s *Sockets) ReleaseDatagrams(address string) error {
	if s.net.ReleaseGatewayDatagrams == nil {
		return nil
	}
	return s.net.ReleaseGatewayDatagrams(address)
}

// Forget notes that what it gave out was closed.
func (s *Sockets) Forget(l io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(o opened) bool { return o.closer == any(l) })
}

// Open lists the sockets that can be handed over, in the order in which they were opened. It fails where one cannot be.
func (s *Sockets) Open() ([]Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Socket
	for _, o := range s.open {
		if o.Conn == nil {
			return nil, fmt.Errorf("listener %s is no socket of the system", o.Address)
		}
		list = append(list, o.Socket)
	}
	return list, nil
}

// Keep makes unix sockets stay in the file system when their listeners close: another process listens there now.
func (s *Sockets) Keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		if l, ok := o.closer.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false)
		}
	}
}

// Own notes that the process from which sockets were inherited has left them to us. What was inherited and is not used is closed;
// gateways' ports are given up.
func (s *Sockets) Own() error {
	s.mu.Lock()
	left := s.inherited
	s.inherited = nil
	for _, o := range s.open {
		if l, ok := o.closer.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(true)
		}
		if q, ok := o.closer.(*steer.Conn); ok {
			q.Take()
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, i := range left {
		errs = append(errs, i.File.Close())
		switch i.Network {
		case Gateway:
			errs = append(errs, s.Release(i.Address))
		case Datagrams:
			errs = append(errs, s.ReleaseDatagrams(i.Address))
		}
	}
	return errors.Join(errs...)
}

// Close closes what was inherited and is not used, leaving it to the other process.
func (s *Sockets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.inherited {
		_ = i.File.Close() // a socket that we only held
	}
	s.inherited = nil
}

// onto puts a listener on the engine and notes it.
func (s *Sockets) onto(network, address string, l net.Listener) (net.Listener, error) {
	on, err := s.net.Engine.Listen(l)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listener %s: %w", address, err)
	}
	s.add(network, address, on)
	return on, nil
}

func (s *Sockets) add(network, address string, c any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sys, _ := c.(syscall.Conn)
	s.open = append(s.open, opened{Socket{network, address, sys}, c})
}

func (s *Sockets) take(network, address string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.inherited, func(i Inherited) bool { return i.Network == network && i.Address == address })
	if i < 0 {
		return nil
	}
	f := s.inherited[i].File
	s.inherited = slices.Delete(s.inherited, i, i+1)
	return f
}

// inheritedListener gives nil when none was handed over.
func (s *Sockets) inheritedListener(network, address string) (net.Listener, error) {
	f := s.take(network, address)
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // until Own
	}
	return s.onto(network, address, l)
}
