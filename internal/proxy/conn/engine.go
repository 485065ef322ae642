package conn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Names of the back ends, for Open.
const (
	// Poll is a poller of our own for each core. It is there on Linux alone.
	Poll = "poll"
	// Net is Go's netpoller, and works everywhere.
	Net = "net"
)

// Engine is a back end; a nil one is Net. It accepts connections and opens them. What it gives are net.Conns of which FromNet makes the Conns that
// run on it; FromNet takes any other net.Conn too, and lets that run on Go's netpoller. Its methods may be called from any
// goroutine.
type Engine struct {
	poll *pollers // nil for Net
}

// Open starts a back end by name; "" is the best that there is here.
func Open(name string) (*Engine, error) {
	if name == "" && canPoll {
		name = Poll
	}
	switch name {
	case Net, "":
		return &Engine{}, nil
	case Poll:
		p, err := openPollers()
		if err != nil {
			return nil, fmt.Errorf("i/o back end %s: %w", name, err)
		}
		return &Engine{poll: p}, nil
	}
	return nil, fmt.Errorf("i/o back end %q: there are %s and %s", name, Poll, Net)
}

// Name is that of the back end.
func (e *Engine) Name() string {
	if e != nil && e.poll != nil {
		return Poll
	}
	return Net
}

// Close closes the connections that run on the engine, and ends it.
func (e *Engine) Close() error {
	if e == nil || e.poll == nil {
		return nil
	}
	return e.poll.close()
}

// Listen makes l accept onto the engine, whoever opened it. A listener that is not a TCP socket is given back as it is.
func (e *Engine) Listen(l net.Listener) (net.Listener, error) {
	if e == nil || e.poll == nil {
		return l, nil
	}
	return e.poll.listen(l)
}

// Adopt moves nc onto the engine, if it is a socket and not there already. It owns nc from here on.
func (e *Engine) Adopt(nc net.Conn) (net.Conn, error) {
	if e == nil || e.poll == nil {
		return nc, nil
	}
	return e.poll.adopt(nc)
}

// Dialer opens connections. control is called with the socket before it connects; nil for nothing to do. Names, and networks other
// than TCP, are left to package net.
func (e *Engine) Dialer(control func(fd uintptr) error) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 30 * time.Second}
	if control != nil {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = control(fd) })
			return errors.Join(err, failed)
		}
	}
	if e == nil || e.poll == nil {
		return d.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		a, err := netip.ParseAddrPort(address)
		if err == nil && network == "tcp" && a.Addr().Zone() == "" {
			return e.poll.dial(ctx, a, control)
		}
		return e.Adopting(d.DialContext)(ctx, network, address)
	}
}

// Adopting is dial, with what it opens moved onto the engine.
func (e *Engine) Adopting(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return e.Adopt(nc)
	}
}
