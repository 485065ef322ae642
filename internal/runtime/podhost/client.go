package podhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how to start a pod host.
type Options struct {
	Command []string // ends in Main
	Setup   Setup
	// UserNS makes a user namespace too, which is how one who is not root gets the others. The user stays who they are in it.
	UserNS bool
	Stderr *os.File
}

// ErrClosed is what requests get once the pod host is gone.
var ErrClosed = errors.New("pod host is gone")

// startTime bounds the pod host's own start, with its trial pod.
const startTime = 10 * time.Second

// Client is the pod host as its parent sees it. Its methods may be called from any goroutine.
type Client struct {
	netns bool
	notes []string
	sock  *socket
	done  chan struct{} // closed when the pod host is gone, and its processes with it

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
	running map[uint64]*Running
	closed  bool
}

type answer struct {
	reply
	fds []int
}

// Start starts a pod host and waits until it is ready: in netns mode it has then made and removed a pod for trial, so an error
// says what this machine does not allow.
func Start(ctx context.Context, opt Options) (*Client, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pod host: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "pod host")
	sock, err := newSocket(os.NewFile(uintptr(fds[0]), "pod host"))
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("pod host: %w", err)
	}
	c := &Client{netns: opt.Setup.Netns, sock: sock, done: make(chan struct{}), waiting: map[uint64]chan answer{}, running: map[uint64]*Running{}}
	if err := c.spawn(opt, theirs); err != nil {
		sock.conn.Close()
		return nil, fmt.Errorf("pod host: %w", err)
	}
	go c.read() // ends when the socket does
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	a, err := c.ask(ctx, request{Op: "setup", Setup: &opt.Setup})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("pod host: %w", err)
	}
	c.notes = a.Notes
	return c, nil
}

// spawn starts the process from a thread that lives as long as it: the kernel sends the parent-death signal when the thread that
// forked ends, not the process.
func (c *Client) spawn(opt Options, theirs *os.File) error {
	cmd := exec.Command(opt.Command[0], opt.Command[1:]...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = opt.Stderr
	cmd.SysProcAttr = attributes(opt)
	started := make(chan error)
	go func() { // ends with the pod host
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		theirs.Close()
		started <- err
		if err == nil {
			cmd.Wait()
			close(c.done)
		}
	}()
	return <-started
}

// attributes of the pod host. It keeps the user's own id in a user namespace (so that programs which refuse to be root run, and
// files belong to whom they belong) and holds its capabilities there as ambient ones.
func attributes(opt Options) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true} // Ctrl-C in the terminal is for `weft up` alone
	if !opt.Setup.Netns {
		return a // it must outlive a killed parent, to end what has no namespace that would
	}
	a.Pdeathsig = syscall.SIGKILL
	a.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	if opt.UserNS {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_KILL, unix.CAP_SYS_PTRACE}
	}
	return a
}

// Close kills all pods at once and waits until the pod host is gone.
func (c *Client) Close() {
	c.sock.conn.Close()
	<-c.done
}

// Done is closed when the pod host is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

// Notes say, in sentences, what every pod lacks on this machine.
func (c *Client) Notes() []string { return c.notes }

// CreatePod makes a pod. The notes say, in sentences, what it lacks on this machine.
func (c *Client) CreatePod(ctx context.Context, p Pod) (notes []string, err error) {
	a, err := c.ask(ctx, request{Op: opPod, Pod: &p})
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.Name, err)
	}
	return a.Notes, nil
}

// RemovePod kills what still runs in a pod and takes it away.
func (c *Client) RemovePod(ctx context.Context, name string) error {
	if _, err := c.ask(ctx, request{Op: opRemove, Name: name}); err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	return nil
}

// Running is a process that was started.
type Running struct {
	c    *Client
	id   uint64
	done chan struct{}
	pid  int
	exit Exit // before done is closed only the reader writes it
}

// Start starts a process with the three standard streams, which stay the caller's. When it ends, what is left of its process
// group is killed.
func (c *Client) Start(ctx context.Context, p Process, stdio [3]*os.File) (*Running, error) {
	c.mu.Lock()
	c.last++
	r := &Running{c: c, id: c.last, done: make(chan struct{})}
	c.running[r.id] = r
	c.mu.Unlock()
	fds := []int{int(stdio[0].Fd()), int(stdio[1].Fd()), int(stdio[2].Fd())}
	a, err := c.ask(context.WithoutCancel(ctx), request{Op: opStart, Process: &p, Proc: r.id}, fds...) // bounded by fork and exec
	if err != nil {
		c.mu.Lock()
		delete(c.running, r.id)
		c.mu.Unlock()
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	for _, fd := range a.fds {
		r.pid = pidOf(fd)
		unix.Close(fd)
	}
	return r, nil
}

// pidOf reads the process id that a pidfd has in our own pid namespace; 0 when it is gone.
func pidOf(fd int) int {
	raw, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return max(n, 0)
		}
	}
	return 0
}

// PID is the process id in the namespace of the caller.
func (r *Running) PID() int { return r.pid }

// Done is closed when the process ended, or the pod host with it.
func (r *Running) Done() <-chan struct{} { return r.done }

// Exit says how it ended; only after Done.
func (r *Running) Exit() Exit { return r.exit }

// Signal signals the process's group; one that ended is not an error.
func (r *Running) Signal(sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	_, err := r.c.ask(ctx, request{Op: opSignal, Proc: r.id, Signal: sig})
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// Dial connects over TCP from inside a pod to the address, past the sidecar.
func (c *Client) Dial(ctx context.Context, pod string, to netip.AddrPort) (net.Conn, error) {
	if !c.netns {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", to.String())
	}
	a, err := c.ask(ctx, request{Op: opDial, Name: pod, Address: to})
	if err == nil && len(a.fds) != 1 {
		err = errors.New("reply without a socket")
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	f := os.NewFile(uintptr(a.fds[0]), "dial")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if err := connected(ctx, conn.(*net.TCPConn)); err != nil {
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return conn, nil
}

// connected waits for the end of a connect that the pod host began.
func connected(ctx context.Context, conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now()) })
	defer stop()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || errno != 0 {
			result = errors.Join(err, syscall.Errno(errno))
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}

func (c *Client) ask(ctx context.Context, req request, fds ...int) (answer, error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return answer{}, ErrClosed
	}
	c.last++
	req.ID = c.last
	c.waiting[req.ID] = ch
	c.mu.Unlock()
	if err := c.sock.send(req, fds...); err != nil {
		c.mu.Lock()
		delete(c.waiting, req.ID)
		c.mu.Unlock()
		return answer{}, err
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return answer{}, ErrClosed
		}
		return a, a.error()
	case <-ctx.Done():
		c.abandon(req.ID, ch)
		return answer{}, context.Cause(ctx)
	}
}

// abandon forgets a request; a reply that came meanwhile may hold descriptors.
func (c *Client) abandon(id uint64, ch chan answer) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
	select {
	case a := <-ch:
		closeAll(a.fds)
	default:
	}
}

// failure is an error of the pod host; its errno is found by errors.Is.
type failure struct {
	text  string
	errno syscall.Errno
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error {
	if f.errno == 0 {
		return nil
	}
	return f.errno
}

func (a answer) error() error {
	if a.Err == "" {
		return nil
	}
	return &failure{a.Err, a.Errno}
}

// read is the only reader of the socket. At its end every request and every process has ended too.
func (c *Client) read() {
	buf := make([]byte, maxPacket)
	for {
		var r reply
		fds, err := c.sock.receive(buf, &r)
		if err != nil {
			break
		}
		c.deliver(r, fds)
	}
	c.sock.conn.Close()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, ch := range c.waiting {
		close(ch)
	}
	clear(c.waiting)
	for _, r := range c.running {
		r.exit = Exit{Code: -1, Signal: syscall.SIGKILL}
		close(r.done)
	}
	clear(c.running)
}

func (c *Client) deliver(r reply, fds []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID != 0 {
		if ch := c.waiting[r.ID]; ch != nil {
			delete(c.waiting, r.ID)
			ch <- answer{r, fds}
			return
		}
	} else if p := c.running[r.Proc]; p != nil && r.Exit != nil {
		delete(c.running, r.Proc)
		p.exit = *r.Exit
		close(p.done)
	}
	closeAll(fds)
}
