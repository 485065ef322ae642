package bind

import (
	"context"
	"net"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// QUICServer serves HTTP/3 on one socket.
type QUICServer interface {
	// Serve serves until Drain or Close is called, or the socket fails.
	Serve(net.PacketConn) error
	// Drain takes no new requests and waits for those under way, until the context ends.
	Drain(context.Context) error
	Close() error
	// Open is the number of connections.
	Open() int
}

type quicPort struct {
	net.PacketConn
	address string
	server  QUICServer
}

// bindQUIC is called with mu held.
func (g *Gateways) bindQUIC(ctx context.Context, l *conf.Listener) error {
	address, name := l.Address.String(), l.Name
	pc, err := g.Sockets.ListenGatewayPacket(ctx, address)
	if err != nil {
		return err
	}
	port := &quicPort{pc, address, g.QUIC(name)}
	if g.quic == nil {
		g.quic = map[string]*quicPort{}
	}
	g.quic[name] = port
	g.accepting.Go(func() { // ends by shutQUIC
		if err := port.server.Serve(pc); err != nil {
			g.Log.Error("a gateway's UDP port fails", "listener", name, "error", err)
		}
	})
	g.Log.Info("gateway port bound for HTTP/3", "listener", name, "address", address)
	return nil
}

// shutQUIC is called with mu held. Requests under way go on.
func (g *Gateways) shutQUIC(name string, port *quicPort) {
	delete(g.quic, name)
	g.leaving = append(g.leaving, port)
	g.accepting.Go(func() { // ends with the last request, or by Cut
		if err := port.server.Drain(context.Background()); err != nil {
			g.Log.Debug("HTTP/3 port", "listener", name, "error", err)
		}
		port.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.leaving = slices.DeleteFunc(g.leaving, func(p *quicPort) bool { return p == port })
	})
	g.Log.Info("gateway port closed for HTTP/3", "listener", name, "address", port.address)
}
