package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/takeover"
	"github.com/weftmesh/weft/internal/wire"
)

func newRunning(p *Proxy, hard context.Context) *running {
	r := &running{p: p, hard: hard, failed: make(chan error, 1), replaced: make(chan struct{})}
	var inherited []bind.Inherited
	if t := p.opt.Taken; t != nil {
		inherited = t.Sockets
	}
	r.owner.Store(p.opt.Taken == nil)
	r.sockets = bind.NewSockets(p.opt.Network, inherited)
	r.sockets.Number = byte(p.epoch()) // 256 upgrades later none of that number is left
	r.ports = &bind.Ports{Sockets: r.sockets, Config: p.config, Log: p.log, Bound: p.state.Ports,
		Gate: func() listen.Gate { return p.guard.Gate() }}
	if p.opt.Bootstrap.Node.Role == wire.Gateway {
		r.ports.Owner, r.ports.Handle, r.ports.QUIC, r.ports.Datagrams = bind.OfGateway, p.enterCounted, p.quic, p.datagrams
	} else {
		r.ports.Owner, r.ports.Handle = bind.OfSidecar, p.openedCounted
	}
	if t := p.opt.Taken; t != nil {
		r.ports.Preceded = func() bool { _, there := t.Left(); return there }
	}
	return r
}

// serveOwn starts what one process alone serves.
func (r *running) serveOwn() {
	for _, serve := range r.own {
		serve()
	}
}

// takeOver tells the predecessor that this process serves, and waits until that one has stopped accepting. Then the successors of
// this process are waited for.
func (r *running) takeOver(ctx context.Context) error {
	p := r.p
	if t := p.opt.Taken; t != nil {
		if err := r.Await(ctx, p.state.Settled()); err != nil || ctx.Err() != nil {
			return err
		}
		if err := t.Ready(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("proxy: %w", err)
		}
		r.owner.Store(true)
		if err := r.sockets.Own(); err != nil {
			p.log.Warn("sockets of the process before were not all given up", "error", err)
		}
		if p.plane != nil {
			p.plane.Own()
		}
		r.serveOwn()
		p.log.Info("took over", "predecessor", t.Predecessor.PID, "version", t.Predecessor.Release, "epoch", p.epoch())
	}
	r.offer()
	return nil
}

// epoch counts the takeovers before this process.
func (p *Proxy) epoch() int {
	if p.opt.Taken == nil {
		return 0
	}
	return p.opt.Taken.Predecessor.Epoch + 1
}

// openUpgrade opens the socket where a successor asks for the others.
func (r *running) openUpgrade() error {
	path := r.p.opt.Bootstrap.UpgradeSocket
	if path == "" {
		return nil
	}
	l, err := r.sockets.Listen(r.hard, bind.Packets, path)
	if err == nil && r.owner.Load() {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return fmt.Errorf("proxy: upgrade socket: %w", err)
	}
	r.upgrade = l
	r.yielded = append(r.yielded, func() { l.Close() })
	return nil
}

// offer waits for successors.
func (r *running) offer() {
	l, ok := r.upgrade.(*net.UnixListener)
	if !ok {
		return
	}
	p := r.p
	g := &takeover.Giver{Self: takeover.Process{PID: os.Getpid(), Release: p.opt.Version, Epoch: p.epoch()}, Predecessor: (*predecessor)(r), Log: p.log}
	r.work.Go(func() { r.fails("upgrade socket", g.Serve(r.hard, l)) }) // ends when the socket is closed, and with hard
}

// predecessor is a running proxy as its successor meets it.
type predecessor running

// Begin implements takeover.Predecessor.
func (r *predecessor) Begin() ([]bind.Socket, error) {
	p := r.p
	if p.draining() {
		return nil, errors.New("this proxy is draining, and ends; it is not taken over")
	}
	if _, err := r.sockets.Open(); err != nil {
		return nil, err
	}
	r.owner.Store(false)
	r.ports.Freeze(true)
	list, err := r.sockets.Open() // a port may have come or gone meanwhile
	if err != nil {
		r.Abort()
		return nil, err
	}
	if p.plane != nil {
		p.plane.Yield()
	}
	return list, nil
}

// Abort implements takeover.Predecessor.
func (r *predecessor) Abort() {
	if r.p.plane != nil {
		r.p.plane.Own()
	}
	r.ports.Freeze(false)
	r.owner.Store(true)
}

// Yield implements takeover.Predecessor.
func (r *predecessor) Yield() {
	p := r.p
	r.sockets.Keep()
	p.replaced.Store(true)
	for _, stop := range r.yielded {
		stop()
	}
	(*running)(r).stopAccepting()
	p.Drain()
	p.ending.Store(true)
	close(r.replaced)
}

// Open implements takeover.Predecessor.
func (r *predecessor) Open() int { return (*running)(r).open() }

// fade lets connections live on until their clients end them, or the time for it is over: a successor accepts what comes, so nobody
// waits for this process. When ctx ends, the time is that of an ordinary drain.
func (r *running) fade(ctx context.Context) {
	limit := time.NewTimer(r.p.opt.UpgradeTime)
	defer limit.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	told := ctx.Done()
	for r.open() > 0 {
		select {
		case <-limit.C:
			r.p.log.Warn("connections outlived the time after an upgrade; they are cut off", "open", r.open())
			return
		case <-told:
			told = nil
			r.p.replaced.Store(false) // idle connections get no more than the usual grace
			limit.Reset(r.p.opt.DrainTime)
		case <-tick.C:
		}
	}
}

// idleGrace is how long connections without a request may stay when draining has begun. After an upgrade that is nearly as long as
// there is: to close one is to risk the request that is just coming.
func (p *Proxy) idleGrace() time.Duration {
	if p.replaced.Load() {
		return p.opt.UpgradeTime - p.drainGrace()
	}
	return p.drainGrace()
}
