package bind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/steer"
	"github.com/weftmesh/weft/internal/wire"
)

// PacketServer serves HTTP/3, or relays datagrams, on one socket.
type PacketServer interface {
	// Serve serves until Drain or Close is called, or the socket fails; HTTP/3's, until Drain has ended.
	Serve(net.PacketConn) error
	// Drain takes nothing new and waits for what is under way, until the context ends.
	Drain(context.Context) error
	Close() error
	// Open is the number of connections or sessions.
	Open() int
}

// packetPort is an open port of UDP.
type packetPort struct {
	net.PacketConn
	address   string
	server    PacketServer
	datagrams bool // rather than HTTP/3
}

// fits reports whether a port is as the configuration wants it; nil wants none.
func (p *packetPort) fits(l *conf.Listener) bool {
	return l != nil && l.Address.String() == p.address && (l.Datagrams != nil) == p.datagrams
}

// bindPackets is called with mu held.
func (p *Ports) bindPackets(ctx context.Context, l *conf.Listener) error {
	address, name := l.Address.String(), l.Name
	port := &packetPort{address: address, datagrams: l.Datagrams != nil}
	open, serve, what := p.Sockets.ListenGatewayPacket, p.QUIC, "HTTP/3"
	if port.datagrams {
		open, serve, what = p.Sockets.ListenGatewayDatagrams, p.Datagrams, "datagrams"
	}
	if serve == nil {
		return errors.New("nothing here serves UDP")
	}
	pc, err := open(ctx, address)
	if err != nil {
		return err
	}
	port.PacketConn, port.server = pc, serve(name)
	if p.packets == nil {
		p.packets = map[string]*packetPort{}
	}
	p.packets[name] = port
	ends := &p.draining
	if port.datagrams {
		ends = &p.accepting
	}
	ends.Go(func() { // ends by shutPackets, and for HTTP/3 when connections have
		if err := port.server.Serve(pc); err != nil {
			p.Log.Error("a gateway's UDP port fails", "listener", name, "error", err)
		}
	})
	p.Log.Info("gateway port bound for "+what, "listener", name, "address", address)
	return nil
}

// whyShut is why a port is closed.
type whyShut int

const (
	withdrawn  whyShut = iota // by the configuration
	ends                      // the process does
	handedOver                // another process has the port now
)

// shutPackets is called with mu held. Requests under way go on, in a port of HTTP/3 that was handed over by what the other process passes on. So do sessions of datagrams, unless the port was withdrawn: they are
// nothing then but what would keep it from being opened anew.
func (p *Ports) shutPackets(name string, port *packetPort, why whyShut) {
	delete(p.packets, name)
	p.leaving = append(p.leaving, port)
	drain := func() { // ends with the last request or session, or by Cut
		if err := port.server.Drain(context.Background()); err != nil {
			p.Log.Debug("a UDP port drains", "listener", name, "error", err)
		}
		port.Close()
		p.Sockets.Forget(port.PacketConn)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leaving = slices.DeleteFunc(p.leaving, func(other *packetPort) bool { return other == port })
	}
	if q, ok := port.PacketConn.(*steer.Conn); ok && why == handedOver {
		q.Yield()
		p.Sockets.Forget(q)
	}
	switch {
	case port.datagrams && why == withdrawn:
		port.server.Close() // waits for nothing but the sessions' goroutines
		p.draining.Go(drain)
	default:
		p.draining.Go(drain)
	}
	if port.datagrams && why != handedOver {
		if err := p.Sockets.ReleaseDatagrams(port.address); err != nil {
			p.Log.Warn("a gateway's port was not released", "address", port.address, "network", "udp", "error", err)
		}
	}
	p.Log.Info("gateway port closed", "listener", name, "network", "udp", "address", port.address)
}

// Datagrams is the Network of a Socket that is a gateway's port for datagrams.
const Datagrams = "gateway-udp"

// ListenGatewayDatagrams opens a gateway's port for datagrams.
func (s *Sockets) ListenGatewayDatagrams(ctx context.Context, address string) (net.PacketConn, error) {
	if f := s.take(Datagrams, address); f != nil {
		defer f.Close()
		c, err := net.FilePacketConn(f)
		if err == nil {
			s.add(Datagrams, address, c)
		}
		return c, err
	}
	c, err := s.net.ListenGatewayDatagrams(ctx, address)
	if err == nil && c == nil {
		err = errors.New("there is no UDP here")
	}
	if err != nil {
		return nil, err
	}
	s.add(Datagrams, address, c)
	return c, nil
}

// DatagramDialer opens sockets that are connected to an endpoint, with SO_MARK as Dialer does; where outside says so, it gets them of the
// broker that the bootstrap names.
func DatagramDialer(b *wire.Bootstrap, outside func(netip.Addr) bool) func(ctx context.Context, to netip.AddrPort) (*net.UDPConn, error) {
	var d net.Dialer
	if mark := b.Mark; mark != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var set error
			err := c.Control(func(fd uintptr) { set = setMark(fd, mark) })
			return errors.Join(err, set)
		}
	}
	client := broker.Client{Path: b.Broker}
	return func(ctx context.Context, to netip.AddrPort) (*net.UDPConn, error) {
		if b.Broker != "" && outside(to.Addr()) {
			return client.DialDatagrams(ctx, to)
		}
		return d.DialUDP(ctx, "udp", netip.AddrPort{}, to)
	}
}

func setMark(fd uintptr, mark int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark))
}
