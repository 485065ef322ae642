package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// dialTime bounds the making of a connection to the control plane.
const dialTime = 10 * time.Second

// serve leads connections on the socket to the control plane until ctx ends, and waits for them.
func (a *Agent) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.listener.Close() }) // its error would say that it is closed
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := a.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		open.Go(func() { a.lead(ctx, c) }) // ends with the connection, or ctx
	}
}

// lead waits for a certificate, connects with it, and hands frames both ways until one side ends, or the control plane is silent. It
// ends a connection with the certificate that was shown on it; the client then makes another, with the newest, to another replica: this
// one may be ill, and if it is not, all have their share anyhow.
func (a *Agent) lead(ctx context.Context, c net.Conn) {
	defer c.Close()
	select {
	case <-a.ready:
	case <-ctx.Done():
		return
	}
	up, address, err := a.connect(ctx)
	if err != nil {
		a.options.Log.Warn("the control plane cannot be reached", "control", a.options.Bootstrap.Control, "error", err)
		return
	}
	defer up.Close()
	if was := a.with.Swap(&address); was == nil || *was != address {
		a.options.Log.Info("connected to the control plane", "control", address)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { c.Close(); up.Close() })
	defer stop()
	l := newLink(c, up, a.after, a.timeout)
	var work sync.WaitGroup
	for _, part := range []func(context.Context) error{l.send, l.receive, l.watch} {
		work.Go(func() { cancel(part(ctx)) }) // whichever way a connection ends, the other one ends too
	}
	work.Wait()
	if err := context.Cause(ctx); errors.Is(err, errSilent) {
		a.options.Log.Warn("the connection to the control plane was ended", "control", address, "error", err)
	}
	a.controls.Leave(address)
}

// connect goes to the control plane's replica whose turn it is, or to the next one that takes us.
func (a *Agent) connect(ctx context.Context) (conn net.Conn, address string, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return a.controls.Dial(ctx)
}

// dial makes a connection on which the certificate was shown.
func (a *Agent) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, a.authority.ControlTLS("h2"))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}
