package conn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Quieter is implemented by a Conn that can tell without blocking whether it is open with nothing to read.
type Quieter interface{ Quiet() bool }

// Quiet reports whether c is open, as far as is known here, with nothing to read: the state in which a pooled connection
// must be before it carries another request. It never blocks. A connection that has data, was ended or reset by its peer,
// or cannot tell is not quiet.
func Quiet(c Conn) bool {
	q, ok := c.(Quieter)
	return ok && q.Quiet()
}

// waiter is a net.Conn that can wait for its own readability, as in-memory connections can.
type waiter interface{ Wait() error }

// FromNet gives nc as a Conn on Go's netpoller: each call blocks its goroutine. The Conn owns nc from here on.
//
// TCP and Unix sockets, and connections with a Wait method of their own, wait without consuming anything. Any other one
// (*tls.Conn) waits by reading one byte ahead, which the next Read delivers. TLS that runs over ToNet gathers the records of
// one Write and reads several at a time. What ToNet made is given back.
func FromNet(nc net.Conn) Conn {
	if a, ok := nc.(*netAdapter); ok && a.untouched() {
		return a.c
	}
	base := netConn{nc: nc, local: addrPort(nc.LocalAddr()), remote: addrPort(nc.RemoteAddr())}
	if s := newSocket(base); s != nil {
		return s
	}
	if w, ok := nc.(waiter); ok {
		return &waitConn{netConn: base, w: w}
	}
	if t, ok := nc.(*tls.Conn); ok {
		return newTLSConn(base, t)
	}
	return &peekConn{netConn: base}
}

// NetReader gives the net.Conn under c if every byte still to be read comes from it, else nil. It belongs to the goroutine
// that reads c.
func NetReader(c Conn) net.Conn {
	switch c := c.(type) {
	case *peekConn:
		if c.has {
			return nil
		}
	case *tlsConn:
		if c.has {
			return nil
		}
	case *prefixed:
		if len(c.prefix) > 0 {
			return nil
		}
		return NetReader(c.Conn)
	}
	return NetWriter(c)
}

// NetWriter gives the net.Conn to which writing on c goes, nil if there is none.
func NetWriter(c Conn) net.Conn {
	switch c := c.(type) {
	case *socket:
		return c.nc
	case *waitConn:
		return c.nc
	case *peekConn:
		return c.nc
	case *tlsConn:
		return c.nc
	case *prefixed:
		return NetWriter(c.Conn)
	}
	return nil
}

// Control calls f with the descriptor of c, which f may ask and configure but neither read, write nor keep. Where there is none it
// fails with errors.ErrUnsupported.
func Control(c Conn, f func(fd uintptr)) error {
	if done, err := controlPolled(c, f); done {
		return err
	}
	if s, ok := c.(*socket); ok {
		return s.raw.Control(f)
	}
	return fmt.Errorf("descriptor of %T: %w", c, errors.ErrUnsupported)
}

// netConn is what every connection over a net.Conn shares.
type netConn struct {
	nc            net.Conn
	local, remote netip.AddrPort
}

func (c *netConn) Read(p []byte) (int, error)         { return c.nc.Read(p) }
func (c *netConn) Write(p []byte) (int, error)        { return c.nc.Write(p) }
func (c *netConn) SetReadDeadline(t time.Time) error  { return c.nc.SetReadDeadline(t) }
func (c *netConn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }
func (c *netConn) LocalAddr() netip.AddrPort          { return c.local }
func (c *netConn) RemoteAddr() netip.AddrPort         { return c.remote }

// Close closes the connection. Closing a second time is no error.
func (c *netConn) Close() error {
	if err := c.nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// CloseWrite fails with errors.ErrUnsupported where the transport has no half-close.
func (c *netConn) CloseWrite() error {
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("half-close of %T: %w", c.nc, errors.ErrUnsupported)
}

// waitConn is a connection that waits by itself.
type waitConn struct {
	netConn
	w waiter
}

func (c *waitConn) Wait() error { return c.w.Wait() }

func (c *waitConn) Quiet() bool {
	q, ok := c.nc.(Quieter)
	return ok && q.Quiet()
}

// peekConn waits by reading one byte ahead. The byte belongs to the reading goroutine.
type peekConn struct {
	netConn
	breaks atomic.Bool // see BreakOnClose
	has    bool
	byte   [1]byte
}

func (c *peekConn) Wait() error {
	if c.has {
		return nil
	}
	n, err := c.nc.Read(c.byte[:])
	if n == 1 {
		c.has = true
		return nil
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, net.ErrClosed) {
		return err
	}
	// The end of the stream and lasting errors meet the Read that follows again.
	return nil
}

func (c *peekConn) Read(p []byte) (int, error) {
	if !c.has || len(p) == 0 {
		return c.nc.Read(p)
	}
	c.has = false
	p[0] = c.byte[0]
	return 1, nil
}

// Quiet asks the transport under TLS.
func (c *peekConn) Quiet() bool {
	t, ok := c.nc.(*tls.Conn)
	return ok && !c.has && Quiet(FromNet(t.NetConn()))
}

// socket is a connection with a descriptor.
type socket struct {
	netConn
	raw syscall.RawConn

	// Owned by the reading goroutine.
	asked    bool // the kernel was asked in the current Wait
	scratch  [1]byte
	readable func(fd uintptr) bool // askOnce, bound one time

	quietMu sync.Mutex // Quiet is called by whoever owns the pool
	probe   [1]byte
	quiet   bool
	ask     func(fd uintptr)
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
