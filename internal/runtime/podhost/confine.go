package podhost

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine takes from the calling thread's children, after exec, what an application must not have: capabilities, and signals to
// processes outside of its pod. All applications of a pod are started by one thread, so that they are in one Landlock domain
// and may signal each other, as a preStop hook has to.
func (h *host) confine() error {
	if err := dropCapabilities(false); err != nil {
		return err
	}
	if h.scope < 0 {
		return nil
	}
	return restrictSelf(h.scope)
}

// scopeABI is the Landlock ABI that has scopes (Linux 6.12).
const scopeABI = 6

// newScope makes a Landlock ruleset that keeps signals, and with it ptrace, within its domain; and with abstractSockets,
// connections to abstract unix sockets. It is tried once. Without an error the descriptor is good.
func newScope(abstractSockets bool) (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return -1, fmt.Errorf("landlock: %w", errno)
	}
	if abi < scopeABI {
		return -1, fmt.Errorf("landlock ABI %d, scopes need %d", abi, scopeABI)
	}
	attr := unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_SIGNAL}
	if abstractSockets {
		attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock ruleset: %w", errno)
	}
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is restricted, and ends here
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = restrictSelf(int(fd))
		}
		tried <- err
	}()
	if err := <-tried; err != nil {
		unix.Close(int(fd))
		return -1, err
	}
	return int(fd), nil
}

func restrictSelf(ruleset int) error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}

// hide covers folders, in a mount namespace of the calling thread's own, by empty ones that nobody can write to. A folder that
// is not there needs no cover.
func hide(folders []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new mount namespace: %w", err)
	}
	for _, f := range folders {
		err := unix.Mount("tmpfs", f, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0555,size=4k")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("hide %s: %w", f, err)
		}
	}
	return nil
}

// dropCapabilities leaves this thread's children no capability after exec, or CAP_NET_ADMIN alone, and no way to gain any.
func dropCapabilities(netAdmin bool) error {
	bounded := true
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if netAdmin && c == unix.CAP_NET_ADMIN {
			continue
		}
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err {
		case nil, unix.EINVAL: // unknown to an older kernel
		case unix.EPERM: // an ordinary user's in ports mode
			bounded = false
		default:
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
	if !bounded { // what this thread lacks, no_new_privs keeps its children from gaining
		data = [2]unix.CapUserData{}
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}
