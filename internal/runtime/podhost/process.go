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
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread changes its namespaces and capabilities for good, and ends here
		result <- h.fork(p, req, fds)
	}()
	return <-result
}

func (h *host) fork(p *pod, req request, fds []int) error {
	spec := req.Process
	pidfd := -1
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])}}
	attr.Sys = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if h.base != nil {
		if err := p.enter(); err != nil {
			return err
		}
		if err := dropCapabilities(spec.NetAdmin); err != nil {
			return err
		}
		if spec.NetAdmin {
			attr.Sys.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
		}
	}
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

// dropCapabilities leaves this thread's children no capability after exec, or CAP_NET_ADMIN alone, and no way to gain any.
func dropCapabilities(netAdmin bool) error {
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if netAdmin && c == unix.CAP_NET_ADMIN {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL { // unknown to an older kernel
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
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

// killAll ends every descendant. As PID 1 that is the kernel's work when we leave; else they are looked for until none is left,
// since one may fork while we look.
func (h *host) killAll() {
	h.procMu.Lock()
	h.ending = true
	h.procMu.Unlock()
	if os.Getpid() == 1 {
		return
	}
	deadline := time.Now().Add(5 * time.Second)
	for children := descendants(os.Getpid()); len(children) > 0 && time.Now().Before(deadline); children = descendants(os.Getpid()) {
		for _, pid := range children {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(2 * time.Millisecond)
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
