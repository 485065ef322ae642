package poll

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// pipe is what bytes lie in while they move between two sockets within the kernel.
type pipe struct {
	r, w int
	n    int // bytes in it
}

// pipeSize holds what a socket's buffer gives at once.
const pipeSize = 1 << 20

const (
	spliceMove     = 1 // SPLICE_F_MOVE of linux/splice.h
	spliceNonblock = 2 // SPLICE_F_NONBLOCK
	setPipeSize    = 1031
)

// pipes keeps empty ones. A pipe that the garbage collector drops is closed by its file, so none is lost: see newPipe.
var pipes = sync.Pool{}

// keptPipe is a pipe with the files that own its descriptors.
type keptPipe struct {
	pipe
	files [2]*os.File
}

func newPipe() (*keptPipe, error) {
	if k, ok := pipes.Get().(*keptPipe); ok {
		return k, nil
	}
	var fd [2]int
	// Not O_NONBLOCK, which would take it to Go's netpoller; splice is told each time.
	if err := syscall.Pipe2(fd[:], syscall.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	// A smaller one does as well: there is a limit for users.
	syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd[1]), setPipeSize, pipeSize)
	k := &keptPipe{pipe: pipe{r: fd[0], w: fd[1]}}
	for i := range fd {
		k.files[i] = os.NewFile(uintptr(fd[i]), "pipe")
	}
	return k, nil
}

func (k *keptPipe) drop() {
	if k.n > 0 {
		k.files[0].Close()
		k.files[1].Close()
		return
	}
	pipes.Put(k)
}

// Splice moves bytes from src to c within the kernel: until src ends, a call fails, or at least most bytes have moved. It waits
// with nothing held but a pipe, and none while src is silent. moved is told of bytes that c has taken. The two errors tell the
// sides apart; io.EOF of src is the end of its stream. Bytes that were taken from src are lost when writing fails.
func (c *Conn) Splice(src *Conn, most int64, moved func(int64)) (readErr, writeErr error) {
	if !src.begin() {
		return src.failed("read", errClosed), nil
	}
	defer src.end()
	if !c.begin() {
		return nil, c.failed("write", errClosed)
	}
	defer c.end()
	for most > 0 {
		if _, err := src.r.await(0); err != nil {
			return src.failed("read", err), nil
		}
		k, err := newPipe()
		if err != nil {
			return nil, err
		}
		readErr, writeErr = c.spliceOnce(src, k, &most, moved)
		k.drop()
		if readErr != nil || writeErr != nil {
			break
		}
	}
	if readErr != nil && readErr != io.EOF {
		readErr = src.failed("splice", readErr)
	}
	if writeErr != nil {
		writeErr = c.failed("splice", writeErr)
	}
	return readErr, writeErr
}

var errClosed = net.ErrClosed

// spliceOnce moves what is there until src has no more.
func (c *Conn) spliceOnce(src *Conn, k *keptPipe, most *int64, moved func(int64)) (readErr, writeErr error) {
	for *most > 0 {
		src.r.lower(ready)
		n, errno := splice(src.fd, k.w, pipeSize)
		src.asked = src.poller.cycle.Load()
		switch {
		case errno == syscall.EAGAIN:
			if src.r.state.Load()&ended != 0 {
				src.r.lower(ended)
			}
			return nil, nil
		case errno == syscall.EINTR:
			src.mayBeReady()
			continue
		case errno != 0:
			src.r.raise(ended)
			return os.NewSyscallError("splice", errno), nil
		case n == 0:
			src.r.raise(ended)
			return io.EOF, nil
		}
		src.mayBeReady()
		k.n = n
		if err := c.empty(k); err != nil {
			return nil, err
		}
		*most -= int64(n)
		moved(int64(n))
		if err := src.r.check(); err != nil {
			return err, nil
		}
	}
	return nil, nil
}

// empty writes what is in the pipe.
func (c *Conn) empty(k *keptPipe) error {
	for fresh := false; k.n > 0; {
		if err := c.w.check(); err != nil {
			return err
		}
		n, errno := splice(k.r, c.fd, k.n)
		if errno == 0 {
			k.n -= n
		}
		switch {
		case errno == syscall.EINTR || k.n == 0:
		case errno != 0 && errno != syscall.EAGAIN:
			return os.NewSyscallError("splice", errno)
		case !fresh:
			c.w.lower(ready)
			fresh = true
		case errno == syscall.EAGAIN:
			if _, err := c.w.await(ready); err != nil {
				return err
			}
		}
	}
	return nil
}

func splice(from, to, n int) (int, syscall.Errno) {
	m, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), spliceMove|spliceNonblock)
	return int(m), errno
}
