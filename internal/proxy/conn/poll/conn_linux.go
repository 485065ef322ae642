package poll

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a socket that is watched by a poller. It does what conn.Conn says.
type Conn struct {
	// Set once.
	fd            int
	serial        uint32
	set           *Set
	poller        *poller
	network       string
	local, remote netip.AddrPort

	// refs is twice the number of calls under way, and one for the owner until Close: the descriptor is closed by the last one,
	// so that no call meets one that has become another connection's.
	refs atomic.Int32
	sent atomic.Int64 // bytes that writing has given the kernel

	asked uint32 // the poller's cycle when the reading goroutine last asked the kernel
	r, w  side
}

const (
	openRef = 1
	callRef = 2
)

// adopt takes a connected, non-blocking descriptor. On failure it stays the caller's.
func (s *Set) adopt(fd int, network string, local, remote netip.AddrPort) (*Conn, error) {
	c := s.newConn(fd, network, local, remote)
	if err := s.add(c); err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Set) newConn(fd int, network string, local, remote netip.AddrPort) *Conn {
	c := &Conn{fd: fd, set: s, network: network, local: local, remote: remote}
	c.refs.Store(openRef)
	c.w.state.Store(ready)
	return c
}

// news takes what the poller heard.
func (c *Conn) news(events, cycle uint32) {
	const broken = syscall.EPOLLHUP | syscall.EPOLLERR
	if events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|broken) != 0 {
		f := uint64(ready)
		if events&(syscall.EPOLLRDHUP|broken) != 0 {
			f |= ended
		}
		c.r.becomes(f, cycle)
	}
	if events&(syscall.EPOLLOUT|broken) != 0 && c.w.state.Load()&ready == 0 {
		c.w.raise(ready)
	}
}

// begin keeps the descriptor open until end.
func (c *Conn) begin() bool {
	for {
		n := c.refs.Load()
		if n&openRef == 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+callRef) {
			return true
		}
	}
}

func (c *Conn) end() {
	if c.refs.Add(-callRef) == 0 {
		c.release()
	}
}

func (c *Conn) release() {
	c.poller.forget(&c.r)
	c.poller.forget(&c.w)
	c.set.leave(c)
	syscall.Close(c.fd)
}

// Close makes pending and later calls fail with net.ErrClosed. The last of them to return closes the descriptor.
func (c *Conn) Close() error {
	for {
		n := c.refs.Load()
		if n&openRef == 0 {
			return nil
		}
		if !c.refs.CompareAndSwap(n, n&^openRef+callRef) {
			continue
		}
		c.r.raise(closed)
		c.w.raise(closed)
		c.end()
		return nil
	}
}

// Read reads what has arrived.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !c.begin() {
		return 0, c.failed("read", net.ErrClosed)
	}
	n, err := c.read(p)
	c.end()
	if err != nil && err != io.EOF {
		err = c.failed("read", err)
	}
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	for {
		// What becomes ready from here on is news; a stream that has ended stays so.
		if _, err := c.r.await(ready); err != nil {
			return 0, err
		}
		n, errno := recv(c.fd, p, 0)
		c.asked = c.poller.cycle.Load()
		switch {
		case errno == syscall.EINTR:
			c.mayBeReady()
		case errno == syscall.EAGAIN:
			c.r.lower(ended)
		case errno != 0:
			c.r.raise(ended)
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			c.r.raise(ended)
			return 0, io.EOF
		default:
			if n == len(p) {
				c.mayBeReady()
			}
			return n, nil
		}
	}
}

// mayBeReady notes that there may be more to read.
func (c *Conn) mayBeReady() { c.r.becomes(ready, c.asked) }

// Wait blocks until Read would not. It asks the kernel only if what the poller heard may be older than the last read.
func (c *Conn) Wait() error {
	if !c.begin() {
		return c.failed("read", net.ErrClosed)
	}
	err := c.wait()
	c.end()
	if err != nil {
		err = c.failed("read", err)
	}
	return err
}

func (c *Conn) wait() error {
	for {
		state, err := c.r.await(0)
		if err != nil || state&ended != 0 || int32(uint32(state>>cycleShift)-c.asked) > 0 {
			return err
		}
		c.r.lower(ready)
		var peek [1]byte
		_, errno := recv(c.fd, peek[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.asked = c.poller.cycle.Load()
		if errno != syscall.EAGAIN && errno != syscall.EINTR {
			c.mayBeReady()
			return nil
		}
		if errno == syscall.EINTR {
			c.mayBeReady()
		}
	}
}

// OnReady runs f on a goroutine of its own as soon as Wait would return: when something came, the deadline passed or the connection
// was closed. It is false, and f is forgotten, if that is now. Until f runs nobody may read or wait.
func (c *Conn) OnReady(f func()) bool { return c.r.onReady(f) }

// Rests reports that OnReady works.
func (c *Conn) Rests() bool { return true }

// Quiet reports whether the connection is open with nothing to read. It asks the kernel unless the poller has done so lately.
func (c *Conn) Quiet() bool {
	switch state := c.r.state.Load(); {
	case state&(ended|closed) != 0:
		return false
	case state&ready == 0 && c.poller.heardLately():
		return true
	}
	if !c.begin() {
		return false
	}
	defer c.end()
	for {
		var peek [1]byte
		_, errno := recv(c.fd, peek[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if errno != syscall.EINTR {
			return errno == syscall.EAGAIN
		}
	}
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.begin() {
		return 0, c.failed("write", net.ErrClosed)
	}
	n, err := c.write(p)
	c.end()
	if err != nil {
		err = c.failed("write", err)
	}
	return n, err
}

func (c *Conn) write(p []byte) (total int, err error) {
	if err := c.w.check(); err != nil {
		return 0, err
	}
	for fresh := false; ; { // fresh: nothing was ready when the kernel was last asked
		n, errno := send(c.fd, p)
		if n > 0 && errno == 0 {
			c.sent.Add(int64(n))
			total += n
			p = p[n:]
		}
		switch {
		case len(p) == 0 && errno == 0:
			return total, nil
		case errno == syscall.EINTR:
		case errno != 0 && errno != syscall.EAGAIN:
			return total, os.NewSyscallError("write", errno)
		case !fresh:
			// An edge that came before is of no use. One that comes from here on is kept.
			c.w.lower(ready)
			fresh = true
		case errno == syscall.EAGAIN:
			if _, err := c.w.await(ready); err != nil {
				return total, err
			}
		}
		if err := c.w.check(); err != nil {
			return total, err
		}
	}
}

// Sent counts the bytes that the kernel has taken of writes, those under way among them. It may be called from any goroutine.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// CloseWrite sends the end of the stream.
func (c *Conn) CloseWrite() error {
	err := net.ErrClosed
	if c.begin() {
		err = os.NewSyscallError("shutdown", syscall.Shutdown(c.fd, syscall.SHUT_WR))
		c.end()
	}
	if err != nil {
		return c.failed("close", err)
	}
	return nil
}

// SetReadDeadline and SetWriteDeadline may be called from any goroutine.
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.r, t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.w, t) }

func (c *Conn) setDeadline(s *side, t time.Time) error {
	if !c.begin() {
		return c.failed("set", net.ErrClosed)
	}
	c.poller.setDeadline(s, t)
	c.end()
	return nil
}

// LocalAddr and RemoteAddr are zero for unix sockets.
func (c *Conn) LocalAddr() netip.AddrPort  { return c.local }
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// Control calls f with the descriptor, which f may ask and configure but neither read, write nor keep.
func (c *Conn) Control(f func(fd uintptr)) error {
	if !c.begin() {
		return c.failed("control", net.ErrClosed)
	}
	defer c.end()
	f(uintptr(c.fd))
	return nil
}

// failed gives errors the shape of package net's.
func (c *Conn) failed(op string, err error) error {
	e := &net.OpError{Op: op, Net: c.network, Err: err}
	if c.network != "unix" {
		e.Source, e.Addr = net.TCPAddrFromAddrPort(c.local), net.TCPAddrFromAddrPort(c.remote)
	}
	return e
}
