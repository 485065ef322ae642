package proxy

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// client1 is an HTTP/1 connection as the exchanges see it that use it one after the other.
type client1 struct {
	*http1.ServerConn
	d *downstream
	// length is that of the current request's body if it was declared, else -1.
	length int64
}

// begin notes how the body of the request that was read is framed.
func (c *client1) begin(r *message.Request) {
	if c.length = -1; r.Body.Kind == message.Sized {
		c.length = r.Body.Length
	}
}

// BodyWhole implements clientSide.
func (c *client1) BodyWhole() bool {
	return c.BodyDone() || c.length >= 0 && int64(c.BodyBuffered()) >= c.length
}

// SetReadDeadline implements clientSide.
func (c *client1) SetReadDeadline(t time.Time) error { return c.d.conn.SetReadDeadline(t) }

// SetWriteDeadline implements clientSide.
func (c *client1) SetWriteDeadline(t time.Time) error { return c.d.conn.SetWriteDeadline(t) }

// Shared implements clientSide.
func (c *client1) Shared() bool { return false }

// Break implements clientSide. A response that was not finished ends the connection.
func (c *client1) Break(uint32) {}

func (c *client1) await(x *exchange, streams bool) bool {
	if streams {
		return false // the client's next byte is the body's; reading that notices the end
	}
	c.d.track.await(x, x.start)
	return true
}

func (c *client1) awaited(now time.Time) bool { return c.d.track.awaited(now) }

func (c *client1) left() bool { return false }

func (c *client1) forget() {}

func (c *client1) pause(ctx context.Context, d time.Duration, quiet bool) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	var w *watch
	var gone chan struct{}
	if quiet {
		w = startWatch(c.d.track.client, nil)
		gone = w.gone
	}
	select {
	case <-wait.C:
	case <-gone:
	case <-ctx.Done():
	}
	left := w != nil && w.stop()
	return !left && ctx.Err() == nil
}

// call1 is a connection to an endpoint that carries one request of HTTP/1 at a time. It lives as long as the connection, as its
// Codec.
type call1 struct {
	*http1.ClientConn
	up   *upstream.Conn
	pool *upstream.Pool
	cut  atomic.Bool // it may have come when nothing more was to be said or heard: the codec does not notice
}

// newCall1 gives the codec of a connection that was taken from a pool.
func newCall1(up *upstream.Conn, pool *upstream.Pool) *call1 {
	if c, ok := up.Codec.(*call1); ok {
		return c
	}
	c := &call1{ClientConn: http1.NewClientConn(up.Conn, nil), up: up, pool: pool}
	up.Codec = c
	return c
}

// Stale implements call.
func (c *call1) Stale() bool { return c.up.Carried > 0 }

// Shared implements call.
func (c *call1) Shared() bool { return false }

// SetReadDeadline implements call.
func (c *call1) SetReadDeadline(t time.Time) error { return c.up.SetReadDeadline(t) }

// SetWriteDeadline implements call.
func (c *call1) SetWriteDeadline(t time.Time) error { return c.up.SetWriteDeadline(t) }

// Address implements call.
func (c *call1) Address() string { return c.up.Address() }

// LocalAddr implements call.
func (c *call1) LocalAddr() netip.AddrPort { return c.up.LocalAddr() }

// Cut implements call.
func (c *call1) Cut() {
	c.cut.Store(true)
	c.up.Close()
}

// End implements call.
func (c *call1) End(keep bool, now time.Time) {
	if c.EndExchange() && keep && !c.cut.Load() {
		c.pool.Put(c.up, now)
	} else {
		c.pool.Discard(c.up)
	}
}
