package podhost

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// start starts a process and sends the reply itself, under the lock, so that no exit overtakes it.
func (h *host) start(req request, fds []int) error {
	if req.Process == nil || len(fds) != 3 {
		return fmt.Errorf("start needs a process and three descriptors")
	}
	p, err := h.pod(req.Process.Pod)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	if req.Process.Sidecar {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread changes its namespaces and capabilities for good, and ends here
			result <- h.forkSidecar(p, req, fds)
		}()
		return <-result
	}
	if !p.do(func() { result <- h.fork(req, fds) }) {
		return fmt.Errorf("pod %q is gone", req.Process.Pod)
	}
	return <-result
}

// forkSidecar prepares the calling thread for a sidecar: outside of what confines the applications, with CAP_NET_ADMIN over its
// pod's network where it has one. What it makes, its admin socket too, is for its user only.
func (h *host) forkSidecar(p *pod, req request, fds []int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a root and a umask of its own
		return fmt.Errorf("unshare: %w", err)
	}
	unix.Umask(0o077)
	if h.base == nil {
		if err := dropCapabilities(false); err != nil {
			return err
		}
		return h.fork(req, fds)
	}
	if err := p.enter(); err != nil {
		return err
	}
	if err := dropCapabilities(true); err != nil {
		return err
	}
	return h.fork(req, fds, unix.CAP_NET_ADMIN)
}

// fork starts the process with what the calling thread has, and ambient capabilities.
func (h *host) fork(req request, fds []int, ambient ...uintptr) error {
	spec := req.Process
	pidfd := -1
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])}}
	attr.Sys = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd, AmbientCaps: ambient}
	h.procMu.Lock()
	defer h.procMu.Unlock()
	if h.ending {
		return ErrClosed
	}
	pid, err := syscall.ForkExec(spec.Path, spec.Args, attr)
	if err != nil {
		return err
	}
	h.procs[pid], h.pids[req.Proc] = req.Proc, pid
	r, out := reply{ID: req.ID}, []int(nil)
	if pidfd >= 0 {
		defer unix.Close(pidfd)
		out = []int{pidfd}
	}
	h.sock.send(r, out...)
	return nil
}

func (h *host) signal(proc uint64, sig syscall.Signal) error {
	h.procMu.Lock()
	defer h.procMu.Unlock()
	pid, ok := h.pids[proc]
	if !ok {
		return syscall.ESRCH
	}
	return syscall.Kill(-pid, sig)
}

// reap collects every child, the adopted ones too.
func (h *host) reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCHLD)
	for range c {
		for h.reapOne() {
		}
	}
}

func (h *host) reapOne() bool {
	h.procMu.Lock()
	defer h.procMu.Unlock()
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	id, ok := h.procs[pid]
	if !ok {
		return true
	}
	delete(h.procs, pid)
	delete(h.pids, id)
	syscall.Kill(-pid, syscall.SIGKILL) // what it left behind in its group
	exit := Exit{Code: ws.ExitStatus()}
	if ws.Signaled() {
		exit.Signal = ws.Signal()
	}
	h.sock.send(reply{Proc: id, Exit: &exit})
	return true
}

// killAll ends every descendant. As PID 1 that is the kernel's work when we leave; else they are killed until the kernel says
// that no child is left: a look at /proc may miss one that is being forked, or adopted, at that moment.
func (h *host) killAll() {
	h.procMu.Lock()
	h.ending = true
	h.procMu.Unlock()
	if os.Getpid() == 1 {
		return
	}
	for deadline := time.Now().Add(5 * time.Second); hasChildren() && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		for _, pid := range descendants(os.Getpid()) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// hasChildren asks wait(2) without reaping: a subreaper that has no child has no descendant.
func hasChildren() bool {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		if err != unix.EINTR {
			return err != unix.ECHILD
		}
	}
}

func descendants(pid int) []int {
	var out []int
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, f := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(append(out, child), descendants(child)...)
			}
		}
	}
	return out
}
