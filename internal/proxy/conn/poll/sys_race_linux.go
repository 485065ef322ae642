//go:build race

package poll

import (
	"errors"
	"syscall"
)

// The race detector learns from package syscall that the kernel writes into memory, and that bytes which went through a socket
// order what was done before and after.

func recv(fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	if flags == 0 {
		n, err := syscall.Read(fd, p)
		return n, errnoOf(err)
	}
	n, _, err := syscall.Recvfrom(fd, p, int(flags))
	return n, errnoOf(err)
}

func send(fd int, p []byte) (int, syscall.Errno) {
	n, err := syscall.Write(fd, p)
	return n, errnoOf(err)
}

func errnoOf(err error) (e syscall.Errno) {
	errors.As(err, &e)
	return e
}
