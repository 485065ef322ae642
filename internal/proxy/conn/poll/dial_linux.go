package poll

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Dial connects to an address within ctx. control, which may be nil, is called with the socket before. Errors are package net's.
func (s *Set) Dial(ctx context.Context, to netip.AddrPort, control func(fd uintptr) error) (*Conn, error) {
	c, err := s.dial(ctx, to, control)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

func (s *Set) dial(ctx context.Context, to netip.AddrPort, control func(fd uintptr) error) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	family, sa := sockaddr(to)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = configure(fd); err == nil && control != nil {
		err = control(uintptr(fd))
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	c := s.newConn(fd, "tcp", netip.AddrPort{}, to)
	err = syscall.Connect(fd, sa)
	if err != nil && err != syscall.EINPROGRESS && err != syscall.EINTR {
		syscall.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	c.w.state.Store(0)
	if err := s.add(c); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	if err := c.connected(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connected waits until the socket can be written, which is when connecting has ended.
func (c *Conn) connected(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := c.w.await(0)
	if !unhook() && err == nil { // the context ended meanwhile
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return err
	}
	failed, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if failed != 0 {
		return os.NewSyscallError("connect", syscall.Errno(failed))
	}
	local, err := syscall.Getsockname(c.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	c.local = addrPort(local)
	return nil
}

func sockaddr(a netip.AddrPort) (family int, sa syscall.Sockaddr) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Adopt takes over a connected socket of package net, which is closed by it: its connection goes on in a descriptor of our own.
func (s *Set) Adopt(nc net.Conn) (*Conn, error) {
	raw, network, ok := socketOf(nc)
	if !ok {
		return nil, &net.OpError{Op: "adopt", Net: nc.LocalAddr().Network(), Err: syscall.ENOTSOCK}
	}
	fd, err := duplicate(raw)
	if err != nil {
		return nil, err
	}
	nc.Close() // leaves Go's netpoller; the connection itself has our descriptor
	local, _ := syscall.Getsockname(fd)
	remote, _ := syscall.Getpeername(fd)
	c, err := s.adopt(fd, network, addrPort(local), addrPort(remote))
	if err != nil {
		syscall.Close(fd)
	}
	return c, err
}

// duplicate gives a descriptor of our own of a socket that package net has.
func duplicate(raw syscall.RawConn) (fd int, err error) {
	fd = -1
	if closed := raw.Control(func(old uintptr) { fd, err = duplicateFD(old) }); closed != nil {
		return -1, closed
	}
	return fd, err
}

func duplicateFD(old uintptr) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(n), nil
}

func socketOf(nc net.Conn) (raw syscall.RawConn, network string, ok bool) {
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
		network = "tcp"
	case *net.UnixConn:
		raw, err = nc.SyscallConn()
		network = "unix"
	}
	return raw, network, raw != nil && err == nil
}
