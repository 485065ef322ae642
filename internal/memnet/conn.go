package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// window is how many unread bytes a connection holds in one direction before writing blocks.
const window = 64 << 10

// Conn is one end of a connection. It is a net.Conn with the half-close of *net.TCPConn.
type Conn struct {
	// Set once.
	local, remote, original netip.AddrPort
	in, out                 *stream // out is the peer's in

	resets atomic.Bool // Close resets
}

// pair gives both ends of a connection that from opened to the address to and that was delivered at the address at.
func pair(from, to, at netip.AddrPort) (client, server *Conn) {
	up, down := newStream(), newStream()
	client = &Conn{local: from, remote: to, original: to, in: down, out: up}
	server = &Conn{local: at, remote: from, original: to, in: up, out: down}
	return client, server
}

// OriginalDst is the address that the client dialled, also if the connection was captured on the way.
func (c *Conn) OriginalDst() netip.AddrPort { return c.original }

// LocalAddr and RemoteAddr give *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// Read reads what has arrived, at least one byte; io.EOF after the peer's end of stream, ECONNRESET after a reset.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

// Wait blocks until Read would not, or the read deadline passes.
func (c *Conn) Wait() error { return c.wrap("read", c.in.wait()) }

// Quiet reports whether the connection is open with nothing to read.
func (c *Conn) Quiet() bool { return c.in.quiet() }

// Write blocks while the peer's window is full. It fails with EPIPE once the peer has closed, ECONNRESET after a reset.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

// CloseWrite sends the end of the stream.
func (c *Conn) CloseWrite() error { return c.wrap("close", c.out.finish()) }

// CloseRead makes later reads see the end of the stream.
func (c *Conn) CloseRead() error {
	c.in.update(func(s *stream) { s.buf, s.off, s.finished = nil, 0, true })
	return nil
}

// Close releases the connection. As in TCP the peer still reads what was sent, unless bytes it sent were not read: then it
// sees a reset.
func (c *Conn) Close() error {
	if c.resets.Load() {
		c.Reset()
	}
	unread := c.in.closeReading()
	if unread {
		c.out.reset()
		c.in.breakWriting(syscall.ECONNRESET)
	} else {
		c.in.breakWriting(syscall.EPIPE)
	}
	c.out.closeWriting()
	return nil
}

// SetLinger is that of *net.TCPConn for 0, with which Close resets, and less, with which it does not.
func (c *Conn) SetLinger(seconds int) error {
	c.resets.Store(seconds == 0)
	return nil
}

// Reset breaks the connection: both ends see ECONNRESET at once, and bytes in flight are lost.
func (c *Conn) Reset() {
	c.in.reset()
	c.out.reset()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.readLimit.set(c.in, &c.in.readClosed, t)
	c.out.writeLimit.set(c.out, &c.out.writeClosed, t)
	return nil
}

// SetReadDeadline makes pending and later reads fail with os.ErrDeadlineExceeded after t.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.readLimit.set(c.in, &c.in.readClosed, t)
	return nil
}

// SetWriteDeadline makes pending and later writes fail with os.ErrDeadlineExceeded after t.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.writeLimit.set(c.out, &c.out.writeClosed, t)
	return nil
}

// wrap gives errors the shape of package net's. io.EOF stays bare, as there.
func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// stream is one direction of a connection.
type stream struct {
	mu    sync.Mutex
	moved sync.Cond // any change below

	buf                     []byte // sent and not read; buf[off:] is live
	off                     int
	finished                bool  // the sender has ended it
	broken                  error // reading fails with it, before buf
	readClosed, writeClosed bool  // by the own side
	writeErr                error // writing fails with it: the reader is gone
	readLimit, writeLimit   deadline
}

func newStream() *stream {
	s := &stream{}
	s.moved.L = &s.mu
	return s
}

func (s *stream) update(change func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	s.moved.Broadcast()
}

// ready is called with mu held: reading does not block, and fails with err if it is not nil and there are no bytes.
func (s *stream) ready() (ok bool, err error) {
	switch {
	case s.readClosed:
		return true, net.ErrClosed
	case s.broken != nil:
		return true, s.broken
	case s.readLimit.passed:
		return true, os.ErrDeadlineExceeded
	case len(s.buf) > s.off:
		return true, nil
	case s.finished:
		return true, io.EOF
	}
	return false, nil
}

func (s *stream) await() error {
	for {
		if ok, err := s.ready(); ok {
			return err
		}
		s.moved.Wait()
	}
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.await(); err != nil {
		return 0, err
	}
	n := copy(p, s.buf[s.off:])
	if s.off += n; s.off == len(s.buf) {
		s.buf, s.off = s.buf[:0], 0
	}
	s.moved.Broadcast()
	return n, nil
}

// wait reports only what is not a state of the stream itself: that is the next read's to say.
func (s *stream) wait() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch err := s.await(); err {
	case net.ErrClosed, os.ErrDeadlineExceeded:
		return err
	}
	return nil
}

func (s *stream) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.readClosed && s.broken == nil && len(s.buf) == s.off && !s.finished
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for {
		switch {
		case s.writeClosed:
			return total, net.ErrClosed
		case s.writeErr != nil:
			return total, s.writeErr
		case s.finished:
			return total, syscall.EPIPE
		case s.writeLimit.passed:
			return total, os.ErrDeadlineExceeded
		case len(p) == 0:
			return total, nil
		}
		if n := min(window-(len(s.buf)-s.off), len(p)); n > 0 {
			s.push(p[:n])
			p = p[n:]
			total += n
			s.moved.Broadcast()
			continue
		}
		s.moved.Wait()
	}
}

func (s *stream) push(p []byte) {
	if s.off > 0 && len(s.buf)+len(p) > cap(s.buf) {
		s.buf, s.off = s.buf[:copy(s.buf, s.buf[s.off:])], 0
	}
	s.buf = append(s.buf, p...)
}

func (s *stream) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.writeClosed:
		return net.ErrClosed
	case s.writeErr != nil:
		return s.writeErr
	}
	s.finished = true
	s.moved.Broadcast()
	return nil
}

// closeReading reports whether bytes are lost by it.
func (s *stream) closeReading() (unread bool) {
	s.update(func(s *stream) {
		unread = !s.readClosed && s.broken == nil && len(s.buf) > s.off
		s.readClosed, s.buf, s.off = true, nil, 0
		s.readLimit.stop()
	})
	return unread
}

func (s *stream) closeWriting() {
	s.update(func(s *stream) {
		s.finished, s.writeClosed = true, true
		s.writeLimit.stop()
	})
}

func (s *stream) breakWriting(err error) {
	s.update(func(s *stream) {
		if s.writeErr == nil {
			s.writeErr = err
		}
	})
}

func (s *stream) reset() {
	s.update(func(s *stream) {
		s.buf, s.off = nil, 0
		if s.broken == nil {
			s.broken = syscall.ECONNRESET
		}
		if s.writeErr == nil {
			s.writeErr = syscall.ECONNRESET
		}
	})
}

// deadline belongs to one side of a stream and is guarded by its mutex.
type deadline struct {
	timer  *time.Timer
	turn   int // tells a timer that was replaced from the current one
	passed bool
}

// set is called without the mutex; closed is that side's.
func (d *deadline) set(s *stream, closed *bool, t time.Time) {
	s.update(func(s *stream) {
		d.stop()
		if t.IsZero() || *closed {
			return
		}
		wait := time.Until(t)
		if wait <= 0 {
			d.passed = true
			return
		}
		turn := d.turn
		d.timer = time.AfterFunc(wait, func() {
			s.update(func(*stream) { d.passed = d.passed || d.turn == turn })
		})
	})
}

func (d *deadline) stop() {
	d.turn++
	d.passed = false
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
