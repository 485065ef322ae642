package side

import (
	"context"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http3"
)

// Client3 is a stream of HTTP/3 as its exchange sees it.
type Client3 struct {
	*http3.Stream

	mu   sync.Mutex
	up   Call // is cut when the client leaves; nil for none
	stop func() bool
}

// BodyWhole implements Client.
func (c *Client3) BodyWhole() bool { return c.BodyDone() }

// Interruptible implements Client: the library may be in the midst of a frame's head.
func (c *Client3) Interruptible() bool { return false }

// Resume implements Client.
func (c *Client3) Resume() {}

// Shared implements Client.
func (c *Client3) Shared() bool { return true }

// Break implements Client. The library has one code for all that is broken off.
func (c *Client3) Break(uint32) { c.Reset() }

// Await implements Client.
func (c *Client3) Await(up Call, _ time.Time, _ bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
	if c.stop == nil {
		c.stop = c.OnGone(c.cut)
	}
	return false
}

func (c *Client3) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up != nil {
		c.up.Cut()
	}
}

// Awaited implements Client.
func (c *Client3) Awaited(time.Time) bool { return c.Left() }

// Left implements Client.
func (c *Client3) Left() bool {
	select {
	case <-c.Gone():
		return true
	default:
		return false
	}
}

// Forget implements Client.
func (c *Client3) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = nil
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
}

// Pause implements Client.
func (c *Client3) Pause(ctx context.Context, d time.Duration, _ bool) bool {
	return pause(ctx, d, c.Gone()) && !c.Left()
}
