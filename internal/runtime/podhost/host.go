package podhost

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketFD is where the parent leaves the socket.
const socketFD = 3

// Main serves the socket at file descriptor 3 until it closes, then kills every process and returns the exit code.
func Main(args []string) int {
	sock, err := newSocket(os.NewFile(socketFD, "runtime"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "weft pod host: is started by weft up only:", err)
		return 2
	}
	// Whoever started weft may have left descriptors open; workloads shall not hold them. An older kernel lacks the call.
	_ = unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// Caught and not read: ignoring would be inherited by the workloads.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	h := &host{sock: sock, scope: -1, pods: map[string]*pod{}, procs: map[int]uint64{}, pids: map[uint64]int{}}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "weft pod host: subreaper:", err)
		return 1
	}
	go h.reap() // ends with the process
	h.serve()
	h.killAll()
	return 0
}

// host is the state of the pod host process.
type host struct {
	sock *socket

	// set by the setup request, before any other
	setup Setup
	base  *base // nil in ports mode
	scope int   // a Landlock ruleset for applications; -1 without one

	podsMu sync.Mutex
	pods   map[string]*pod

	// procMu is held over fork and registration, so that reap knows each process that it finds.
	procMu sync.Mutex
	procs  map[int]uint64 // pid to the client's id
	pids   map[uint64]int
	ending bool
}

func (h *host) serve() {
	buf := make([]byte, maxPacket)
	for {
		var req request
		fds, err := h.sock.receive(buf, &req)
		if err != nil {
			return
		}
		if req.Op == "setup" || req.Op == opSignal { // in their order
			h.handle(req, fds)
			continue
		}
		go h.handle(req, fds) // bounded by the operation itself
	}
}

func (h *host) handle(req request, fds []int) {
	defer closeAll(fds)
	r := reply{ID: req.ID}
	var out []int
	var err error
	switch req.Op {
	case "setup":
		r.Notes, err = h.begin(req.Setup)
	case opPod:
		r.Notes, err = h.createPod(*req.Pod)
	case opRemove:
		err = h.removePod(req.Name)
	case opStart:
		err = h.start(req, fds) // replies itself
		if err == nil {
			return
		}
	case opSignal:
		err = h.signal(req.Proc, req.Signal)
	case opDial:
		var fd int
		if fd, err = h.dial(req); err == nil {
			defer unix.Close(fd)
			out = []int{fd}
		}
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		r.Err = err.Error()
		errors.As(err, &r.Errno)
	}
	h.sock.send(r, out...) // a parent that is gone is noticed by serve
}

// begin prepares the base namespaces and tries everything that a pod needs once. The notes say what pods will lack. A network
// namespace keeps abstract sockets apart already, and containers of one pod share theirs.
func (h *host) begin(s *Setup) (notes []string, err error) {
	if s == nil {
		return nil, errors.New("setup is missing")
	}
	h.setup = *s
	if h.scope, err = newScope(!s.Netns); err != nil {
		notes = append(notes, fmt.Sprintf("workloads can signal each other and sidecars: %v", err))
	}
	if !s.Netns {
		return notes, nil
	}
	if h.base, err = newBase(s.Gateway); err != nil {
		return nil, err
	}
	trial := Pod{Name: "trial", Hostname: "trial", Address: s.Gateway.Masked().Addr().Next().Next(), Capture: true}
	if _, err := h.createPod(trial); err != nil {
		return nil, err
	}
	return notes, h.removePod(trial.Name)
}

func (h *host) createPod(spec Pod) ([]string, error) {
	h.podsMu.Lock()
	defer h.podsMu.Unlock()
	if h.pods[spec.Name] != nil {
		return nil, syscall.EEXIST
	}
	p, err := h.newPod(spec)
	if err != nil {
		return nil, err
	}
	h.pods[spec.Name] = p
	return p.notes, nil
}

func (h *host) removePod(name string) error {
	p, err := h.pod(name)
	if err != nil {
		return err
	}
	h.podsMu.Lock()
	delete(h.pods, name)
	h.podsMu.Unlock()
	close(p.leaving)
	<-p.left
	if h.base == nil {
		return nil
	}
	p.killAll()
	return p.close()
}

func (h *host) pod(name string) (*pod, error) {
	h.podsMu.Lock()
	defer h.podsMu.Unlock()
	p := h.pods[name]
	if p == nil {
		return nil, fmt.Errorf("no pod %q", name)
	}
	return p, nil
}
