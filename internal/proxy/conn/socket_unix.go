//go:build unix

package conn

import (
	"net"
	"syscall"
)

// newSocket gives nil for a connection that has no descriptor of its own.
func newSocket(base netConn) *socket {
	var (
		raw syscall.RawConn
		err error
	)
	switch nc := base.nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
	case *net.UnixConn:
		raw, err = nc.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	s := &socket{netConn: base, raw: raw}
	s.readable = s.askOnce
	s.ask = s.askQuiet
	return s
}

// Wait peeks once and then parks on the netpoller. What wakes it is not asked again: the Read that follows finds out, so
// that waiting and reading cost as many system calls as a blocking Read alone.
func (s *socket) Wait() error {
	s.asked = false
	return s.raw.Read(s.readable)
}

// askOnce must ask the first time: the netpoller is edge triggered and RawConn.Read forgets an edge that came earlier.
func (s *socket) askOnce(fd uintptr) bool {
	if s.asked {
		return true
	}
	s.asked = true
	return !wouldBlock(fd, s.scratch[:])
}

// Quiet reports whether the kernel has neither data nor an end of stream nor an error for us.
func (s *socket) Quiet() bool {
	s.quietMu.Lock()
	defer s.quietMu.Unlock()
	s.quiet = false
	return s.raw.Control(s.ask) == nil && s.quiet
}

func (s *socket) askQuiet(fd uintptr) { s.quiet = wouldBlock(fd, s.probe[:]) }

// wouldBlock peeks: a signal may interrupt it, which says nothing.
func wouldBlock(fd uintptr, p []byte) bool {
	for {
		_, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}

// setBreaks makes the closing of a socket reset its connection, or takes that back.
func setBreaks(fd uintptr, on bool) {
	linger := &syscall.Linger{}
	if on {
		linger.Onoff = 1
	}
	syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, linger)
}
