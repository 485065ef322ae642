package conn

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Spliceable reports whether Splice works from src to dst: both are plain sockets of one back end, and everything still to be read
// of src is in its socket.
func Spliceable(dst, src Conn) bool {
	if d, s := polledPair(dst, src); d != nil && s != nil {
		return true
	}
	d, s := netPair(dst, src)
	return d != nil && s != nil
}

// Splice moves bytes from src to dst within the kernel until src's stream ends (io.EOF as readErr) or a side fails; it may also
// return with no error while src is silent. moved is told what dst has taken, at least every interval in which something was; 0
// is for as often as it happens. Both must be Spliceable.
func Splice(dst, src Conn, interval time.Duration, moved func(int64)) (readErr, writeErr error) {
	if d, s := polledPair(dst, src); d != nil && s != nil {
		return splicePolled(d, s, moved)
	}
	d, s := netPair(dst, src)
	if interval > 0 {
		defer src.SetReadDeadline(time.Time{})
	}
	for {
		if interval > 0 {
			src.SetReadDeadline(time.Now().Add(interval))
		}
		limited := io.LimitedReader{R: s, N: spliceRun}
		n, err := d.ReadFrom(&limited)
		moved(n)
		var op *net.OpError
		switch {
		case err == nil && limited.N > 0:
			return io.EOF, nil
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case errors.As(err, &op) && op.Op == "read": // net names the side by the operation
			return err, nil
		default:
			return nil, err
		}
	}
}

// spliceRun bounds how much moves before moved is told.
const spliceRun = 4 << 20

func netPair(dst, src Conn) (d, s *net.TCPConn) {
	d, _ = NetWriter(dst).(*net.TCPConn)
	s, _ = NetReader(src).(*net.TCPConn)
	return d, s
}

// bare gives what is under a prefix that was read; the Conn itself for any other.
func bare(c Conn) Conn {
	if p, ok := c.(*prefixed); ok && len(p.prefix) == 0 {
		return bare(p.Conn)
	}
	return c
}
