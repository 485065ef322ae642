package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http3"
)

// client3 is a stream of HTTP/3 as its exchange sees it.
type client3 struct {
	*http3.Stream

	mu   sync.Mutex
	x    *exchange // whose call is cut when the client leaves; nil for none
	stop func() bool
}

// BodyWhole implements clientSide.
func (c *client3) BodyWhole() bool { return c.BodyDone() }

// Shared implements clientSide.
func (c *client3) Shared() bool { return true }

// Break implements clientSide. The library has one code for all that is broken off.
func (c *client3) Break(uint32) { c.Reset() }

// Hijack implements clientSide.
func (c *client3) Hijack() (conn.Conn, error) {
	return nil, errors.New("tunnels are not supported over HTTP/3")
}

func (c *client3) await(x *exchange, _ bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x = x
	if c.stop == nil {
		c.stop = c.OnGone(c.cut)
	}
	return false
}

func (c *client3) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.x != nil && c.x.call != nil {
		c.x.call.Cut()
	}
}

func (c *client3) awaited(time.Time) bool { return c.left() }

func (c *client3) left() bool {
	select {
	case <-c.Gone():
		return true
	default:
		return false
	}
}

func (c *client3) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x = nil
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
}

func (c *client3) pause(ctx context.Context, d time.Duration, _ bool) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-c.Gone():
	case <-ctx.Done():
	}
	return !c.left() && ctx.Err() == nil
}
