package poll

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Listener is a listening socket that is watched by a poller, as are the connections that it accepts. Its methods may be called
// from any goroutine.
type Listener struct {
	// Set once.
	socket *Conn // never read or written
	addr   net.Addr
	batch  int // of connections taken from the kernel at once

	mu    sync.Mutex // held by the Accept that waits
	queue []accepted // taken from the kernel and not yet by Accept
}

type accepted struct {
	fd   int
	from syscall.Sockaddr
}

// maxBatch bounds the connections taken from the kernel at once.
const maxBatch = 32

// batch is less where the table of descriptors is small: what waits here for Accept holds some.
func batch() int {
	var table syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &table) != nil {
		return maxBatch
	}
	return int(max(min(table.Cur/64, maxBatch), 1))
}

// Listen takes over a listening socket, however it was opened. l is closed by it; listening goes on in a descriptor of our own.
func (s *Set) Listen(l *net.TCPListener) (*Listener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, err := duplicate(raw)
	if err != nil {
		return nil, err
	}
	// Accepted sockets inherit these, which saves five system calls on each.
	if err := configure(fd); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	c, err := s.adopt(fd, "tcp", netip.AddrPort{}, netip.AddrPort{})
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	c.mayBeReady()
	return &Listener{socket: c, addr: l.Addr(), batch: batch()}, l.Close()
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// SyscallConn gives the descriptor for Control. As package net's, a listener's RawConn neither reads nor writes.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return rawListener{l.socket}, nil }

type rawListener struct{ socket *Conn }

func (r rawListener) Control(f func(fd uintptr)) error { return r.socket.Control(f) }
func (rawListener) Read(func(uintptr) bool) error      { return syscall.EINVAL }
func (rawListener) Write(func(uintptr) bool) error     { return syscall.EINVAL }

// Keep-alive probes of the kernel, for peers that vanish without a word: after 30 s, every 10 s, 6 times.
const (
	keepIdle     = 30
	keepInterval = 10
	keepCount    = 6
)

// configure sets what every connection of ours has.
func configure(fd int) error {
	for _, o := range [...]struct{ level, name, value int }{
		{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, keepIdle},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, keepInterval},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepCount},
	} {
		if err := syscall.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// AcceptConn gives the next connection, of which nothing was read. Errors are package net's: a temporary one may be survived.
func (l *Listener) AcceptConn() (*Conn, error) {
	for {
		a, err := l.next()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
		}
		local, err := syscall.Getsockname(a.fd)
		if err != nil { // reset while it waited in the queue
			syscall.Close(a.fd)
			continue
		}
		c, err := l.socket.set.adopt(a.fd, "tcp", addrPort(local), addrPort(a.from))
		if err != nil {
			syscall.Close(a.fd)
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
		}
		return c, nil
	}
}

func (l *Listener) next() (a accepted, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		if err := l.fill(); err != nil {
			return a, err
		}
	}
	a = l.queue[0]
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return a, nil
}

// fill waits for connections and takes those that are there. An error that follows some is met again.
func (l *Listener) fill() error {
	c := l.socket
	if !c.begin() {
		return net.ErrClosed
	}
	defer c.end()
	for len(l.queue) == 0 {
		if _, err := c.r.await(ready); err != nil {
			return err
		}
		for len(l.queue) < l.batch {
			fd, from, err := syscall.Accept4(c.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EAGAIN {
				break
			}
			c.mayBeReady()
			switch {
			case err == nil:
				l.queue = append(l.queue, accepted{fd, from})
			case err == syscall.EINTR || err == syscall.ECONNABORTED:
			case len(l.queue) > 0:
				return nil
			default:
				return os.NewSyscallError("accept4", err)
			}
		}
	}
	return nil
}

// Close stops listening. Connections that were taken from the kernel before are still given by AcceptConn, which is to be called
// until it fails: nobody else can serve them.
func (l *Listener) Close() error {
	// Another process may hold the same socket, and then the kernel would go on telling this poller of its clients.
	c := l.socket
	_ = c.Control(func(fd uintptr) { _ = syscall.EpollCtl(c.poller.epoll, syscall.EPOLL_CTL_DEL, int(fd), nil) }) // the socket is closed in any case
	return c.Close()
}

func addrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
