//go:build unix

package overload

import "syscall"

// Bearable finds how many connections of clients the process's table of descriptors (ulimit -n) bears, when each needs another one
// to an endpoint, and the proxy some for itself.
func Bearable() int64 {
	var table syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &table) != nil {
		return 0
	}
	return bearable(int64(min(uint64(table.Cur), 1<<40)))
}
