package rpc

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is what TLS reads from and writes to. During the handshake it is the connection as it was accepted. After detach it never
// blocks: a read that finds nothing fails with errAgain, which TLS takes for passing, and what the kernel has no room for is kept.
// Its methods are for whoever has the connection's turn; news are for the poller.
type socket struct {
	raw  net.Conn // nil after detach
	wake func()   // set once, before it is watched

	pump   *pump // in place of fd, where there is none
	fd     int
	serial uint64 // by which the poller knows it
	poller *poller
	local  net.Addr
	remote net.Addr

	readable atomic.Bool // a read may find something
	ended    atomic.Bool // the peer sends nothing after what is there
	rest     []byte      // what the kernel had no room for
	failed   error       // of writing; every later write fails
}

func newSocket(raw net.Conn) *socket {
	return &socket{raw: raw, local: raw.LocalAddr(), remote: raw.RemoteAddr(), fd: -1}
}

// errAgain says that there is nothing to read now. It is a net.Error that is temporary, so that a tls.Conn can read on later.
var errAgain net.Error = againError{}

type againError struct{}

func (againError) Error() string   { return "nothing to read yet" }
func (againError) Timeout() bool   { return false }
func (againError) Temporary() bool { return true }

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if s.raw != nil {
		return s.raw.Read(p)
	}
	for s.readable.Swap(false) { // an edge that comes from here on sets it again
		n, err := s.receive(p)
		switch {
		case err == syscall.EINTR:
			s.readable.Store(true)
			continue
		case err == syscall.EAGAIN:
			continue
		case n == len(p), s.ended.Load(): // there is more; otherwise there is nothing until the next edge (epoll(7), question 9)
			s.readable.Store(true)
		}
		return n, err
	}
	return 0, errAgain
}

// Write implements net.Conn. It takes everything; blocked reports whether something of it is waiting.
func (s *socket) Write(p []byte) (int, error) {
	if s.raw != nil {
		return s.raw.Write(p)
	}
	if s.failed != nil {
		return 0, s.failed
	}
	n := 0
	if len(s.rest) == 0 {
		n = s.push(p)
		if s.failed != nil {
			return n, s.failed
		}
	}
	s.rest = append(s.rest, p[n:]...)
	return len(p), nil
}

func (s *socket) receive(p []byte) (int, error) {
	if s.pump != nil {
		return s.pump.recv(p)
	}
	return s.recv(p)
}

func (s *socket) transmit(p []byte) (int, error) {
	if s.pump != nil {
		return s.pump.send(p)
	}
	return s.send(p)
}

// push writes what the kernel has room for.
func (s *socket) push(p []byte) (n int) {
	for n < len(p) {
		m, err := s.transmit(p[n:])
		switch err {
		case nil:
			n += m
		case syscall.EINTR:
		case syscall.EAGAIN:
			return n
		default:
			s.failed = err
			return n
		}
	}
	return n
}

// blocked reports whether the kernel has no room for more.
func (s *socket) blocked() bool { return len(s.rest) > 0 }

// flush tries again to write what is waiting.
func (s *socket) flush() error {
	if len(s.rest) == 0 {
		return s.failed
	}
	n := s.push(s.rest)
	if n == len(s.rest) {
		s.rest = nil
	} else {
		s.rest = s.rest[n:]
	}
	return s.failed
}

// Close implements net.Conn.
func (s *socket) Close() error {
	if s.raw != nil {
		return s.raw.Close()
	}
	if s.pump != nil {
		s.pump.close()
		return nil
	}
	return s.release()
}

// pumpNews is news of a connection without a descriptor: it cannot be told what they are.
func (s *socket) pumpNews() {
	s.readable.Store(true)
	s.wake()
}

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn, for the handshake alone.
func (s *socket) SetDeadline(t time.Time) error {
	if s.raw != nil {
		return s.raw.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(t time.Time) error { return s.SetDeadline(t) }

// SetWriteDeadline implements net.Conn. TLS sets one before it says goodbye, which does not block here.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }
