package rpc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// poller wakes sockets of which the kernel has news. Its edge-triggered epoll set is itself parked on Go's netpoller, so that no thread
// sleeps in a system call.
type poller struct {
	// Set once.
	epoll int
	file  *os.File // owns epoll

	events [128]syscall.EpollEvent // owned by run

	mu      sync.Mutex // guards what follows
	sockets map[uint64]*socket
	serial  uint64
	closed  bool
}

func openPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // only such a file goes to the netpoller
		return nil, errors.Join(os.NewSyscallError("fcntl", err), syscall.Close(fd))
	}
	return &poller{epoll: fd, file: os.NewFile(uintptr(fd), "epoll"), sockets: map[uint64]*socket{}}, nil
}

// interest is everything, once for each change.
const interest = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31 // EPOLLET, which package syscall has as a negative number

// watch adds a socket, until it is released.
func (p *poller) watch(s *socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	s.poller, s.serial = p, p.serial
	e := syscall.EpollEvent{Events: interest, Fd: int32(uint32(s.serial)), Pad: int32(uint32(s.serial >> 32))}
	if err := syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, s.fd, &e); err != nil {
		s.poller = nil
		return os.NewSyscallError("epoll_ctl", err)
	}
	p.sockets[s.serial] = s
	return nil
}

func (p *poller) forget(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, s.serial)
}

// run asks the kernel whenever Go's netpoller says that there is news, until the poller is closed. The function for RawConn.Read
// never says that it is done: between two calls of Read an edge would be lost.
func (p *poller) run() {
	raw, err := p.file.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			for p.drain() == len(p.events) {
			}
			return false
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		panic(fmt.Sprintf("rpc: the poller ended: %v", err)) // nobody would be served any more
	}
}

func (p *poller) drain() int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range n {
		e := &p.events[i]
		if s := p.sockets[uint64(uint32(e.Pad))<<32|uint64(uint32(e.Fd))]; s != nil {
			s.news(e.Events)
		}
	}
	return int(n)
}

// close ends run.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.file.Close()
}

// news is called by the poller.
func (s *socket) news(events uint32) {
	const end = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	if events&end != 0 {
		s.ended.Store(true)
	}
	if events&(syscall.EPOLLIN|end) != 0 {
		s.readable.Store(true)
	}
	s.wake()
}

// detach takes the connection away from Go's netpoller. One that has no descriptor gets a pump.
func (s *socket) detach() error {
	holder, ok := s.raw.(syscall.Conn)
	if !ok {
		s.pump, s.raw = newPump(s.raw), nil
		s.readable.Store(true)
		return nil
	}
	raw, err := holder.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		var n uintptr
		n, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
		s.fd = int(n)
	}); err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("dup", errno)
	}
	_ = s.raw.Close() // the connection lives on in its copy
	s.raw = nil
	s.readable.Store(true)
	return nil
}

func (s *socket) release() error {
	if s.fd < 0 {
		return nil
	}
	if s.poller != nil {
		s.poller.forget(s)
	}
	err := syscall.Close(s.fd)
	s.fd = -1
	return err
}

// The socket is non-blocking: these return at once, so the scheduler is not told of them.

func (s *socket) recv(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	switch {
	case errno != 0:
		return 0, errno
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return int(n), nil
}

func (s *socket) send(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
