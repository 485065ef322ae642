package poll

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Set is the pollers of a process and the connections that they watch. Its methods may be called from any goroutine.
type Set struct {
	// Set once.
	pollers []*poller
	done    sync.WaitGroup

	turn atomic.Uint32 // which poller gets the next connection

	// table has the connections by descriptor. It is read by the pollers at any time and changed with mu held.
	table  atomic.Pointer[[]atomic.Pointer[Conn]]
	mu     sync.Mutex
	serial uint32
	closed bool
}

// Open starts n pollers, one for each core that runs Go code when n is 0. Close ends them.
func Open(n int) (*Set, error) {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	s := &Set{}
	s.table.Store(&[]atomic.Pointer[Conn]{})
	for range n {
		p, err := newPoller(s)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.pollers = append(s.pollers, p)
		s.done.Go(p.run) // ends by Close
	}
	return s, nil
}

// Close closes what is open and ends the pollers.
func (s *Set) Close() error {
	s.mu.Lock()
	s.closed = true
	table := *s.table.Load()
	s.mu.Unlock()
	for i := range table {
		if c := table[i].Load(); c != nil {
			c.Close()
		}
	}
	var err error
	for _, p := range s.pollers {
		p.deadlines.close()
		err = errors.Join(err, p.file.Close())
	}
	s.done.Wait()
	return err
}

// Count gives the number of connections that the set watches.
func (s *Set) Count() (n int) {
	for i, table := 0, *s.table.Load(); i < len(table); i++ {
		if table[i].Load() != nil {
			n++
		}
	}
	return n
}

// add puts a connection under watch. On failure the descriptor stays the caller's.
func (s *Set) add(c *Conn) error {
	c.poller = s.pollers[s.turn.Add(1)%uint32(len(s.pollers))]
	if err := s.enter(c); err != nil {
		return err
	}
	e := syscall.EpollEvent{Events: interest, Fd: int32(c.fd), Pad: int32(c.serial)}
	if err := syscall.EpollCtl(c.poller.epoll, syscall.EPOLL_CTL_ADD, c.fd, &e); err != nil {
		s.leave(c)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// interest is everything, once for each change.
const interest = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31 // EPOLLET, which package syscall has as a negative number

func (s *Set) enter(c *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	s.serial++
	c.serial = s.serial
	table := *s.table.Load()
	if c.fd >= len(table) {
		larger := make([]atomic.Pointer[Conn], max(2*len(table), c.fd+1, 64))
		for i := range table {
			larger[i].Store(table[i].Load())
		}
		table = larger
		s.table.Store(&table)
	}
	table[c.fd].Store(c)
	return nil
}

// leave comes before the descriptor is closed and may become another connection's.
func (s *Set) leave(c *Conn) {
	s.mu.Lock()
	(*s.table.Load())[c.fd].Store(nil)
	s.mu.Unlock()
}

// poller is one epoll set and its goroutine.
type poller struct {
	// Set once.
	set   *Set
	epoll int
	file  *os.File // owns epoll and has it on Go's netpoller

	// cycle counts the questions to the kernel: what an answer says was true after the cycle began.
	cycle  atomic.Uint32
	heard  atomic.Int64            // when the last cycle began, in nanoseconds since base
	events [256]syscall.EpollEvent // owned by run

	deadlines deadlines
}

func newPoller(s *Set) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// A non-blocking file goes to the netpoller.
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &poller{set: s, epoll: fd, file: os.NewFile(uintptr(fd), "epoll")}, nil
}

// run asks the kernel whenever Go's netpoller says that there is news, until the file is closed. The function for RawConn.Read
// never says that it is done: between two calls of Read an edge would be lost.
func (p *poller) run() {
	raw, err := p.file.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			p.drain()
			return false
		})
	}
	p.set.mu.Lock()
	defer p.set.mu.Unlock()
	if !p.set.closed {
		panic(fmt.Sprintf("poll: the poller ended: %v", err)) // nothing would be served any more
	}
}

// drain wakes everybody for whom there is news. Being run again is cheaper than going to sleep and being woken, so it looks a
// second time, when those that it has woken have run, if there were several.
func (p *poller) drain() {
	for {
		p.heard.Store(int64(time.Since(base)))
		cycle := p.cycle.Add(1)
		n := p.wait()
		table := *p.set.table.Load()
		for i := range n {
			e := &p.events[i]
			// The descriptor may have become another connection's since.
			if c := table[e.Fd].Load(); c != nil && c.serial == uint32(e.Pad) {
				c.news(e.Events, cycle)
			}
		}
		if n < busyFrom {
			return
		}
		runtime.Gosched()
	}
}

// lately is how old the poller's knowledge may be for those who can live with a mistake.
const lately = int64(time.Millisecond)

func (p *poller) heardLately() bool { return int64(time.Since(base))-p.heard.Load() < lately }

// busyFrom is the number of events from which more are expected at once.
const busyFrom = 2

func (p *poller) wait() int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
		if errno == 0 {
			return int(n)
		}
		if errno != syscall.EINTR {
			return 0
		}
	}
}
