package main

import (
	"context"
	"net"
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// goroutines is one goroutine for each connection on a back end of package conn, and its routine.
type goroutines struct {
	engine *conn.Engine
	dialer func(ctx context.Context, network, address string) (net.Conn, error)
	idle   pool
}

func newGoroutines(mode string) (*goroutines, error) {
	e, err := conn.Open(mode)
	if err != nil {
		return nil, err
	}
	return &goroutines{engine: e, dialer: e.Dialer(nil)}, nil
}

func (g *goroutines) serve(address string, handle func(routine, stream)) error {
	l, err := net.Listen("tcp", address)
	if err == nil {
		l, err = g.engine.Listen(l)
	}
	if err != nil {
		return err
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(g, conn.FromNet(nc)) // ends with its connection
	}
}

func (g *goroutines) dial(to netip.AddrPort) (stream, error) {
	nc, err := g.dialer(context.Background(), "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.FromNet(nc), nil
}

func (g *goroutines) pool() *pool      { return &g.idle }
func (g *goroutines) callOut(f func()) { f() }
