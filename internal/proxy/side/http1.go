package side

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// Client1 is an HTTP/1 connection as the exchanges see it that use it one after the other.
type Client1 struct {
	*http1.ServerConn
	conn  conn.Conn
	track *track.Conn
	// length is that of the current request's body if it was declared, else -1.
	length int64
}

// NewClient1 makes the client at the end of a connection that is tracked; s reads from it.
func NewClient1(s *http1.ServerConn, c conn.Conn, t *track.Conn) *Client1 {
	return &Client1{ServerConn: s, conn: c, track: t}
}

// Begin notes how the body of the request that was read is framed.
func (c *Client1) Begin(r *message.Request) {
	if c.length = -1; r.Body.Kind == message.Sized {
		c.length = r.Body.Length
	}
}

// BodyWhole implements Client.
func (c *Client1) BodyWhole() bool {
	return c.BodyDone() || c.length >= 0 && int64(c.BodyBuffered()) >= c.length
}

// SetReadDeadline implements Client.
func (c *Client1) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline implements Client.
func (c *Client1) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Interruptible implements Client: between two chunks there is more to be read than a read's own.
func (c *Client1) Interruptible() bool { return c.length >= 0 }

// Resume implements Client.
func (c *Client1) Resume() { c.ResumeBody() }

// Shared implements Client.
func (c *Client1) Shared() bool { return false }

// Break implements Client. A response that was not finished ends the connection.
func (c *Client1) Break(uint32) {}

// Await implements Client.
func (c *Client1) Await(up Call, start time.Time, streams bool) bool {
	if streams {
		return false // the client's next byte is the body's; reading that notices the end
	}
	c.track.Await(up, start)
	return true
}

// Awaited implements Client.
func (c *Client1) Awaited(now time.Time) bool { return c.track.Awaited(now) }

// Left implements Client.
func (c *Client1) Left() bool { return false }

// Forget implements Client.
func (c *Client1) Forget() {}

// Pause implements Client.
func (c *Client1) Pause(ctx context.Context, d time.Duration, quiet bool) bool {
	if !quiet {
		return pause(ctx, d, nil)
	}
	w := track.StartWatch(c.track.Client, nil)
	ok := pause(ctx, d, w.Gone)
	return !w.Stop() && ok
}

// Call1 is a connection to an endpoint that carries one request of HTTP/1 at a time. It lives as long as the connection, as its
// Codec.
type Call1 struct {
	*http1.ClientConn
	up   *upstream.Conn
	pool *upstream.Pool
	cut  atomic.Bool // it may have come when nothing more was to be said or heard: the codec does not notice
}

// NewCall1 gives the codec of a connection that was taken from a pool.
func NewCall1(up *upstream.Conn, pool *upstream.Pool) *Call1 {
	if c, ok := up.Codec.(*Call1); ok {
		return c
	}
	c := &Call1{ClientConn: http1.NewClientConn(up.Conn, nil), up: up, pool: pool}
	up.Codec = c
	return c
}

// Stale implements Call.
func (c *Call1) Stale() bool { return c.up.Carried > 0 }

// Shared implements Call.
func (c *Call1) Shared() bool { return false }

// SetReadDeadline implements Call.
func (c *Call1) SetReadDeadline(t time.Time) error { return c.up.SetReadDeadline(t) }

// SetWriteDeadline implements Call.
func (c *Call1) SetWriteDeadline(t time.Time) error { return c.up.SetWriteDeadline(t) }

// Address implements Call.
func (c *Call1) Address() string { return c.up.Address() }

// LocalAddr implements Call.
func (c *Call1) LocalAddr() netip.AddrPort { return c.up.LocalAddr() }

// Cut implements Call.
func (c *Call1) Cut() {
	c.cut.Store(true)
	c.up.Close()
}

// End implements Call.
func (c *Call1) End(keep bool, now time.Time) {
	if c.EndExchange() && keep && !c.cut.Load() {
		c.pool.Put(c.up, now)
	} else {
		c.pool.Discard(c.up)
	}
}

// Posted gives a tunnel in the bodies of the request that was written and the response whose head was read.
func (c *Call1) Posted() conn.Conn { return &posted{Conn: c.up.Conn, call: c} }

// posted is a tunnel in the bodies of a request of HTTP/1 and its response.
type posted struct {
	conn.Conn
	call *Call1
}

func (p *posted) Read(b []byte) (int, error) { return p.call.ReadBody(b) }

func (p *posted) Write(b []byte) (int, error) {
	if err := p.call.WriteBody(b); err != nil {
		return 0, err
	}
	return len(b), p.call.Flush()
}

func (p *posted) Wait() error {
	if p.call.BodyDone() {
		return nil
	}
	return p.call.WaitResponse()
}

func (p *posted) CloseWrite() error { return p.call.FinishBody(nil) }
