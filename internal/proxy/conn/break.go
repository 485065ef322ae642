package conn

import (
	"crypto/tls"
	"errors"
	"net"
)

// breaker is a Conn that can end so that its peer sees that something is missing.
type breaker interface{ BreakOnClose(on bool) }

// BreakOnClose makes Close, and the end of the process, tell the peer that what it got is not whole: by a reset in place of the end of
// the stream, and over TLS without close_notify. It is for what ends with its connection and has no other sign of its end. Without on all
// is as before. Where a transport cannot do it nothing changes. Close may come at the same time.
func BreakOnClose(c Conn, on bool) {
	if b, ok := c.(breaker); ok {
		b.BreakOnClose(on)
		return
	}
	Control(c, func(fd uintptr) { setBreaks(fd, on) })
}

// BreakOnClose implements breaker.
func (p *prefixed) BreakOnClose(on bool) { BreakOnClose(p.Conn, on) }

// BreakOnClose implements breaker.
func (c *waitConn) BreakOnClose(on bool) { setLinger(c.nc, on) }

// BreakOnClose implements breaker. It comes from the writing goroutine.
func (c *tlsConn) BreakOnClose(on bool) {
	c.breaks.Store(on)
	BreakOnClose(c.under.c, on)
}

// BreakOnClose implements breaker. It comes from the writing goroutine.
func (c *peekConn) BreakOnClose(on bool) {
	if t, ok := c.nc.(*tls.Conn); ok {
		c.breaks.Store(on)
		setLinger(t.NetConn(), on)
	}
}

// Close closes what is under TLS where the end is to be seen as a break: that of TLS would be a proper end.
func (c *peekConn) Close() error {
	t, ok := c.nc.(*tls.Conn)
	if !ok || !c.breaks.Load() {
		return c.netConn.Close()
	}
	if err := t.NetConn().Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func setLinger(nc net.Conn, on bool) {
	if l, ok := nc.(interface{ SetLinger(seconds int) error }); ok {
		seconds := -1
		if on {
			seconds = 0
		}
		l.SetLinger(seconds)
	}
}
