// Package upstream reaches endpoints: it connects, makes mutual TLS, keeps connections for reuse, and enforces the cluster's
// circuit breakers. Which endpoint, and what is said to it, is decided elsewhere.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Dial opens a connection to "host:port".
type Dial func(ctx context.Context, address string) (net.Conn, error)

// Op is what failed.
type Op uint8

// The operations.
const (
	// Connect: no connection came about; nothing was sent.
	Connect Op = iota + 1
	// Handshake: TLS failed; nothing of the request was sent.
	Handshake
	// Overflow: a circuit breaker is open.
	Overflow
	// Closed: the pool was retired while the caller waited.
	Closed
)

// String names the operation as errors do.
func (o Op) String() string {
	return [...]string{"", "connect", "tls handshake", "circuit breaker", "pool"}[o]
}

// Error says why there is no connection to an endpoint.
type Error struct {
	Op      Op
	Address string
	Err     error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s to %s: %s", e.Op, e.Address, plain(e.Err))
	if e.Ours() {
		text += " (of this proxy, not of the endpoint)"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether it was time that ran out.
func (e *Error) Timeout() bool {
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || errors.Is(e.Err, context.DeadlineExceeded)
}

// ours are failures of the machine that the proxy runs on: no descriptor, port or memory is left for another connection.
var ours = [...]error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM}

// Ours reports whether the endpoint has no part in the failure.
func (e *Error) Ours() bool {
	return e.Op == Connect && slices.ContainsFunc(ours[:], func(own error) bool { return errors.Is(e.Err, own) })
}

// Full reports whether there was no descriptor for a connection.
func (e *Error) Full() bool { return e.Op == Connect && conn.TableFull(e.Err) }

// plain leaves out the addresses that package net puts before the cause: they are the endpoint's, named already.
func plain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "timed out"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		var sys *os.SyscallError
		if errors.As(op.Err, &sys) {
			return sys.Err.Error()
		}
		return op.Err.Error()
	}
	if errors.Is(err, io.EOF) {
		return "closed by the endpoint"
	}
	return strings.TrimPrefix(err.Error(), "tls: ")
}

// Way is how an endpoint is reached. It is immutable.
type Way struct {
	Address string
	TLS     *tls.Config // nil for plaintext
	// MuxTLS replaces TLS for connections that carry many requests at a time.
	MuxTLS *tls.Config
	// Timeout bounds connecting and the handshake together; 0 means DefaultConnectTimeout.
	Timeout time.Duration
	Dial    Dial
	// Source is the workload's identity where TLS uses it: connections made with earlier material are not used again.
	Source *identity.Source
	// Counts is told of every attempt; nil for nobody.
	Counts *Counts
}

// DefaultConnectTimeout is Istio's.
const DefaultConnectTimeout = 10 * time.Second

// Conn is a connection to an endpoint. It belongs to one user at a time.
type Conn struct {
	conn.Conn
	// Codec is kept for the user from one request to the next; its owner is the user.
	Codec any
	// Carried counts the requests that the connection has carried before; it is the user's, or the pool's where many share the
	// connection.
	Carried uint32
	// Peer is who the endpoint proved to be, ALPN what was agreed on; zero in plaintext.
	Peer identity.Peer
	ALPN string

	pool     *Pool
	session  Session // set once, where many requests share the connection
	active   int     // requests on it; guarded by mux.mu, as the next ones
	limit    int     // what it was found to carry at most; 0: not known
	leaving  bool    // it takes no further requests
	material *identity.Material
	made     time.Time // where the pool has a MaxAge
	idleFrom time.Time // guarded by pool.mu while idle
}

// Connect opens a connection that belongs to no pool. The deadline may be zero. All errors are *Error.
func (w *Way) Connect(ctx context.Context, deadline time.Time) (*Conn, error) {
	c, err := w.connect(ctx, deadline)
	w.Counts.note(err, w.TLS != nil)
	return c, err
}

func (w *Way) connect(ctx context.Context, deadline time.Time) (*Conn, error) {
	timeout := w.Timeout
	if timeout <= 0 {
		timeout = DefaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !deadline.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	nc, err := w.Dial(ctx, w.Address)
	if err != nil {
		return nil, &Error{Connect, w.Address, err}
	}
	if w.TLS == nil {
		return &Conn{Conn: conn.FromNet(nc)}, nil
	}
	return w.secure(ctx, nc)
}

func (w *Way) secure(ctx context.Context, nc net.Conn) (*Conn, error) {
	c := &Conn{}
	if w.Source != nil {
		// Read before the handshake: a rotation in between makes the connection look old, never new.
		c.material = w.Source.Current()
	}
	// Through Conn and back, so that every back end serves TLS alike.
	t := tls.Client(conn.ToNet(conn.FromNet(nc)), w.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		t.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &Error{Handshake, w.Address, err}
	}
	state := t.ConnectionState()
	c.Conn, c.ALPN = conn.FromNet(t), state.NegotiatedProtocol
	if w.Source != nil {
		peer, err := identity.PeerOf(state)
		if err != nil {
			t.Close()
			return nil, &Error{Handshake, w.Address, err}
		}
		c.Peer = peer
	}
	return c, nil
}

// Address is the endpoint's, as it was dialled.
func (c *Conn) Address() string {
	if c.pool == nil {
		return c.RemoteAddr().String()
	}
	return c.pool.way.Address
}
