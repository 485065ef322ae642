package side

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// Client2 is a stream of HTTP/2 as its exchange sees it. It is kept for later streams of the connection.
type Client2 struct {
	*http2.ServerStream
	up  Call   // whose answer is awaited
	cut func() // cuts up; made once
}

// NewClient2 makes what one stream after the other can use.
func NewClient2() *Client2 {
	c := &Client2{}
	c.cut = func() { c.up.Cut() }
	return c
}

// End takes the stream away, which is over.
func (c *Client2) End() { c.ServerStream, c.up = nil, nil }

// CloseAfter implements Client.
func (c *Client2) CloseAfter() { c.ServerConn().Drain() }

// Interruptible implements Client.
func (c *Client2) Interruptible() bool { return true }

// Resume implements Client.
func (c *Client2) Resume() {}

// Shared implements Client.
func (c *Client2) Shared() bool { return true }

// Break implements Client.
func (c *Client2) Break(code uint32) { c.Reset(http2.ErrCode(code)) }

// Await implements Client.
func (c *Client2) Await(up Call, _ time.Time, _ bool) bool {
	if c.up != up { // else the client's leaving may be reading it
		c.up = up
	}
	c.OnGone(c.cut)
	return false
}

// Awaited implements Client.
func (c *Client2) Awaited(time.Time) bool { return c.Left() }

// Left implements Client.
func (c *Client2) Left() bool { return c.Err() != nil }

// Forget implements Client.
func (c *Client2) Forget() { c.OnGone(nil) }

// Pause implements Client.
func (c *Client2) Pause(ctx context.Context, d time.Duration, _ bool) bool {
	return pause(ctx, d, c.Gone()) && !c.Left()
}

// Call2 is a request on a connection that carries many at a time.
type Call2 struct {
	*http2.ClientStream
	up   *upstream.Conn
	pool *upstream.Pool
	used bool // up has carried requests before
	cut  atomic.Bool
}

// SetReadDeadline implements Call. After Cut it changes nothing.
func (c *Call2) SetReadDeadline(t time.Time) error {
	err := c.ClientStream.SetReadDeadline(t)
	if c.cut.Load() {
		return c.ClientStream.SetReadDeadline(conn.LongAgo)
	}
	return err
}

// SetWriteDeadline implements Call. After Cut it changes nothing.
func (c *Call2) SetWriteDeadline(t time.Time) error {
	err := c.ClientStream.SetWriteDeadline(t)
	if c.cut.Load() {
		return c.ClientStream.SetWriteDeadline(conn.LongAgo)
	}
	return err
}

// Stale implements Call.
func (c *Call2) Stale() bool { return c.used }

// Shared implements Call.
func (c *Call2) Shared() bool { return true }

// Address implements Call.
func (c *Call2) Address() string { return c.up.Address() }

// LocalAddr implements Call.
func (c *Call2) LocalAddr() netip.AddrPort { return c.up.LocalAddr() }

// Cut implements Call. It does not touch the connection, which may wait for its peer: whoever uses the stream is woken, and resets it
// by End.
func (c *Call2) Cut() {
	c.cut.Store(true)
	c.ClientStream.SetReadDeadline(conn.LongAgo)
	c.ClientStream.SetWriteDeadline(conn.LongAgo)
}

// End implements Call. What is not at its end is reset.
func (c *Call2) End(_ bool, now time.Time) {
	fit := c.EndExchange()
	c.pool.Return(c.up, now, !fit)
	c.ClientStream, c.up, c.pool = nil, nil, nil
	c.cut.Store(false)
}

// openTries bounds the connections that are found to take no further request.
const openTries = 4

// Lease begins a request on a connection to the endpoint that others may share. body says that bytes follow its head.
func (c *Call2) Lease(ctx context.Context, p *upstream.Pool, deadline time.Time, body bool, now func() time.Time) error {
	for tries := 1; ; tries++ {
		up, used, err := p.Lease(ctx, deadline, body)
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

// CodeOf is the code with which the other side of an exchange is told of a broken one.
func CodeOf(err error) uint32 {
	var s *http2.StreamError
	if errors.As(err, &s) && s.Remote && s.Code != http2.NoError {
		return uint32(s.Code)
	}
	return uint32(http2.InternalError)
}
