package main

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// loops resume coroutines: one loop for each core.
type loops struct{ all []*loop }

func newCoroutines() (*loops, error) {
	l := &loops{}
	for range runtime.GOMAXPROCS(0) {
		one, err := newLoop()
		if err != nil {
			return nil, err
		}
		l.all = append(l.all, one)
	}
	return l, nil
}

// serve gives each loop a listener of its own at the address.
func (l *loops) serve(address string, handle func(routine, stream)) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	var done sync.WaitGroup
	for _, one := range l.all {
		if err := one.listen(a); err != nil {
			return err
		}
		done.Go(func() { one.run(handle) }) // for ever
	}
	done.Wait()
	return nil
}

// loop is a poller that runs the coroutines of its connections itself. Nothing of it is shared but what mu guards.
type loop struct {
	epoll, listener, event int
	file                   *os.File
	conns                  map[int32]*coConn
	idle                   pool
	events                 [256]syscall.EpollEvent
	running                *coroutine

	mu   sync.Mutex
	back []*coroutine // call-outs that are done
}

// coroutine is a handler; resume runs it until it waits again.
type coroutine struct {
	loop   *loop
	resume func() (struct{}, bool)
	yield  func(struct{}) bool
}

func newLoop() (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err == nil {
		err = syscall.SetNonblock(epoll, true)
	}
	if err != nil {
		return nil, err
	}
	event, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, errno
	}
	l := &loop{epoll: epoll, event: int(event), file: os.NewFile(uintptr(epoll), "epoll"), conns: map[int32]*coConn{}}
	return l, l.watch(l.event)
}

func (l *loop) watch(fd int) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31, Fd: int32(fd)}
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &e)
}

func (l *loop) listen(a netip.AddrPort) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	const reusePort = 15
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, reusePort, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}), syscall.Listen(fd, 1024))
	l.listener = fd
	return errors.Join(err, l.watch(fd))
}

func (l *loop) run(handle func(routine, stream)) {
	raw, err := l.file.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			for l.once(handle) > 0 {
			}
			return false
		})
	}
	fmt.Fprintln(os.Stderr, "backends: a loop ended:", err)
	os.Exit(1)
}

func (l *loop) once(handle func(routine, stream)) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	for _, e := range l.events[:n] {
		switch int(e.Fd) {
		case l.listener:
			l.accept(handle)
		case l.event:
			l.comeBack()
		default:
			if c := l.conns[e.Fd]; c != nil {
				c.ready = true
				if w := c.waiting; w != nil {
					c.waiting = nil
					l.continues(w)
				}
			}
		}
	}
	return int(n)
}

func (l *loop) continues(c *coroutine) {
	l.running = c
	c.resume()
	l.running = nil
}

func (l *loop) accept(handle func(routine, stream)) {
	for {
		fd, _, err := syscall.Accept4(l.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		c, err := l.add(fd)
		if err != nil {
			continue
		}
		co := &coroutine{loop: l}
		co.resume, _ = iter.Pull(func(yield func(struct{}) bool) {
			co.yield = yield
			handle(co, c)
		})
		l.continues(co)
	}
}

func (l *loop) add(fd int) (*coConn, error) {
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	c := &coConn{fd: fd, loop: l}
	l.conns[int32(fd)] = c
	return c, l.watch(fd)
}

// comeBack resumes those whose call-outs are done.
func (l *loop) comeBack() {
	var count [8]byte
	syscall.Read(l.event, count[:])
	l.mu.Lock()
	back := l.back
	l.back = nil
	l.mu.Unlock()
	for _, c := range back {
		l.continues(c)
	}
}

func (c *coroutine) pool() *pool { return &c.loop.idle }

func (c *coroutine) callOut(f func()) {
	go func() { // ends with f
		f()
		c.loop.mu.Lock()
		c.loop.back = append(c.loop.back, c)
		c.loop.mu.Unlock()
		one := [8]byte{1}
		syscall.Write(c.loop.event, one[:])
	}()
	c.yield(struct{}{})
}

func (c *coroutine) dial(to netip.AddrPort) (stream, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil && err != syscall.EINPROGRESS {
		return nil, err
	}
	up, err := c.loop.add(fd)
	if err == nil {
		up.wait()
	}
	return up, err
}

// coConn belongs to its loop. Its deadline is noted and not enforced: that costs the pollers in package conn next to nothing.
type coConn struct {
	fd       int
	loop     *loop
	ready    bool
	waiting  *coroutine
	deadline time.Time
}

func (c *coConn) wait() {
	c.waiting = c.loop.running
	c.waiting.yield(struct{}{})
}

func (c *coConn) Read(p []byte) (int, error) {
	for {
		for !c.ready {
			c.wait()
		}
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		switch {
		case errno == syscall.EAGAIN:
			c.ready = false
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, net.ErrClosed
		default:
			c.ready = int(n) == len(p)
			return int(n), nil
		}
	}
}

// Write is enough for small messages.
func (c *coConn) Write(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (c *coConn) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *coConn) Close() error {
	delete(c.loop.conns, int32(c.fd))
	return syscall.Close(c.fd)
}
