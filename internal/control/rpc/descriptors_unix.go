//go:build unix

package rpc

import "syscall"

// descriptors is how many the process may have open (ulimit -n).
func descriptors() int64 {
	var table syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &table) != nil {
		return 0
	}
	return int64(min(uint64(table.Cur), 1<<40))
}
