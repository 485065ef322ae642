// Package conn is the one narrow connection interface of the request path.
//
// Every step of the proxy (sniffing, TLS, HTTP framing, relaying) is straight-line blocking code over Conn and never over
// net.Conn, so that how a connection is scheduled is a back end chosen by measurement: docs/adr/0005-io-back-end.md. An Engine is
// such a back end. FromNet alone is the portable one: one goroutine per connection on Go's netpoller.
package conn

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
)

// Conn is a byte stream with half-close. One goroutine may read while another writes; no other concurrent use is allowed,
// except that Close may be called at any time from anywhere and makes pending calls return.
type Conn interface {
	// Read reads at least one byte or fails. It returns io.EOF when the peer has closed its sending side.
	Read(p []byte) (int, error)
	// Write writes all of p or fails.
	Write(p []byte) (int, error)
	// Wait blocks until a Read would not block (data, end of stream or an error), or the read deadline passes. It consumes
	// nothing, so that a caller need not hold a buffer while a connection is idle.
	Wait() error
	// CloseWrite ends the sending side (TCP FIN, TLS close_notify); reading goes on.
	CloseWrite() error
	// Close releases the connection. It is idempotent.
	Close() error
	// SetReadDeadline and SetWriteDeadline make pending and later calls fail with os.ErrDeadlineExceeded after t. The zero
	// time means no deadline.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	// LocalAddr and RemoteAddr are the connection's own addresses (not the original destination of a redirected one). They
	// are the zero AddrPort where the transport has none.
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
}

// LongAgo is a deadline that interrupts whoever waits.
var LongAgo = time.Unix(1, 0)

// TableFull reports whether an error says that there is no descriptor left, of the process or of the system.
func TableFull(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
