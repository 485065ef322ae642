package proxy

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// client2 is a stream of HTTP/2 as its exchange sees it. It is kept for later streams of the connection.
type client2 struct {
	*http2.ServerStream
	x   *exchange
	cut func() // cuts x's call; made once
}

func newClient2() *client2 {
	c := &client2{}
	c.cut = func() { c.x.call.Cut() }
	return c
}

// CloseAfter implements clientSide.
func (c *client2) CloseAfter() { c.ServerConn().Drain() }

// Shared implements clientSide.
func (c *client2) Shared() bool { return true }

// Break implements clientSide.
func (c *client2) Break(code uint32) { c.Reset(http2.ErrCode(code)) }

func (c *client2) await(x *exchange, _ bool) bool {
	c.x = x
	c.OnGone(c.cut)
	return false
}

func (c *client2) awaited(time.Time) bool { return c.left() }

func (c *client2) left() bool { return c.Err() != nil }

func (c *client2) forget() { c.OnGone(nil) }

func (c *client2) pause(ctx context.Context, d time.Duration, _ bool) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-c.Gone():
	case <-ctx.Done():
	}
	return !c.left() && ctx.Err() == nil
}

// call2 is a request on a connection that carries many at a time.
type call2 struct {
	*http2.ClientStream
	up   *upstream.Conn
	pool *upstream.Pool
	used bool // up has carried requests before
	cut  atomic.Bool
}

// SetReadDeadline implements call. After Cut it changes nothing.
func (c *call2) SetReadDeadline(t time.Time) error {
	err := c.ClientStream.SetReadDeadline(t)
	if c.cut.Load() {
		return c.ClientStream.SetReadDeadline(longAgo)
	}
	return err
}

// SetWriteDeadline implements call. After Cut it changes nothing.
func (c *call2) SetWriteDeadline(t time.Time) error {
	err := c.ClientStream.SetWriteDeadline(t)
	if c.cut.Load() {
		return c.ClientStream.SetWriteDeadline(longAgo)
	}
	return err
}

// Stale implements call.
func (c *call2) Stale() bool { return c.used }

// Shared implements call.
func (c *call2) Shared() bool { return true }

// Address implements call.
func (c *call2) Address() string { return c.up.Address() }

// LocalAddr implements call.
func (c *call2) LocalAddr() netip.AddrPort { return c.up.LocalAddr() }

// Cut implements call. It does not touch the connection, which may wait for its peer: whoever uses the stream is woken, and resets it
// by End.
func (c *call2) Cut() {
	c.cut.Store(true)
	c.ClientStream.SetReadDeadline(longAgo)
	c.ClientStream.SetWriteDeadline(longAgo)
}

// End implements call. What is not at its end is reset.
func (c *call2) End(_ bool, now time.Time) {
	fit := c.EndExchange()
	c.pool.Return(c.up, now, !fit)
	c.ClientStream, c.up, c.pool = nil, nil, nil
	c.cut.Store(false)
}

// openTries bounds the connections that are found to take no further request.
const openTries = 4

// lease begins a request on a connection to the endpoint that others may share.
func (c *call2) lease(ctx context.Context, p *upstream.Pool, deadline time.Time, now func() time.Time) error {
	for tries := 1; ; tries++ {
		up, used, err := p.Lease(ctx, deadline)
		if err != nil {
			return err
		}
		s, err := up.Codec.(*http2.ClientConn).Open()
		if err == nil {
			c.ClientStream, c.up, c.pool, c.used = s, up, p, used
			return nil
		}
		p.Return(up, now(), true)
		if tries == openTries {
			return &upstream.Error{Op: upstream.Connect, Address: p.Way().Address, Err: err}
		}
	}
}
