package conn

import (
	"context"
	"math"
	"net"
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conn/poll"
)

const canPoll = true

type pollers struct{ set *poll.Set }

func openPollers() (*pollers, error) {
	s, err := poll.Open(0)
	return &pollers{s}, err
}

func (p *pollers) close() error { return p.set.Close() }

func (p *pollers) listen(l net.Listener) (net.Listener, error) {
	t, ok := l.(*net.TCPListener)
	if !ok {
		return l, nil
	}
	pl, err := p.set.Listen(t)
	if err != nil {
		return nil, err
	}
	return listener{pl}, nil
}

// listener gives connections the shape that net.Listener asks for.
type listener struct{ *poll.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return ToNet(c), nil
}

func (p *pollers) adopt(nc net.Conn) (net.Conn, error) {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nc, nil
	}
	c, err := p.set.Adopt(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return ToNet(c), nil
}

func (p *pollers) dial(ctx context.Context, to netip.AddrPort, control func(fd uintptr) error) (net.Conn, error) {
	c, err := p.set.Dial(ctx, to, control)
	if err != nil {
		return nil, err
	}
	return ToNet(c), nil
}

// polledPair gives the sockets of the pollers that both ends are; nil for those that are none.
func polledPair(dst, src Conn) (d, s *poll.Conn) {
	for p, ok := dst.(*prefixed); ok; p, ok = dst.(*prefixed) {
		dst = p.Conn // what was sniffed does not concern writing
	}
	d, _ = dst.(*poll.Conn)
	s, _ = bare(src).(*poll.Conn)
	return d, s
}

func splicePolled(dst, src *poll.Conn, moved func(int64)) (readErr, writeErr error) {
	return dst.Splice(src, math.MaxInt64, moved)
}

// controlPolled calls f with the descriptor of a connection of the pollers.
func controlPolled(c Conn, f func(fd uintptr)) (done bool, err error) {
	p, ok := c.(*poll.Conn)
	if !ok {
		return false, nil
	}
	return true, p.Control(f)
}

// sentPolled gives what a connection of the pollers has sent.
func sentPolled(c Conn) int64 {
	if p, ok := c.(*poll.Conn); ok {
		return p.Sent()
	}
	return 0
}
