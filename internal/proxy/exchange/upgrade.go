package exchange

import (
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/wire"
)

// upgrade passes a 101 on and relays what follows.
func (x *Exchange) upgrade() {
	http1.StripHopByHop(&x.res.Header)
	x.shaken()
	x.dressResponse()
	x.status = 101
	err := x.down.WriteResponse(&x.res)
	if err == nil {
		err = side.OpenTunnel(x.down, x.down.Shared())
	}
	if err != nil {
		x.gone("upgrade", err)
		return
	}
	x.prepareEntry() // the heads' strings die with the hijacking
	x.keepFields()
	up, err1 := x.call.Hijack()
	down, err2 := x.down.Hijack()
	if err := errors.Join(err1, err2); err != nil {
		x.gone("upgrade", err)
	}
	x.Hijacked = true
	idle := time.Duration(0)
	if x.matched.Route != nil {
		idle = x.matched.Route.Forward.IdleTimeout
	}
	if x.timed {
		x.call.SetReadDeadline(time.Time{})
		x.call.SetWriteDeadline(time.Time{})
	}
	n, err := relay.Tunnel(x.p.ctx, down, up, idle)
	x.sent, x.received = n.FromUpstream, n.FromDownstream
	x.tunnelEnded(err)
}

func (x *Exchange) tunnelEnded(err error) {
	var e *relay.Error
	switch {
	case err == nil:
	case x.p.ctx.Err() != nil:
		x.gone("tunnel", err)
	case errors.Is(err, relay.ErrIdle):
		x.fail(failure.Stalled, "tunnel", relay.ErrIdle)
	case errors.As(err, &e) && e.Side == relay.Downstream:
		x.gone("tunnel", e.Err)
	case errors.As(err, &e):
		x.err = failure.Unanswered("tunnel", e.Err)
		x.err.Late = true
	}
}

var errNoForwardProxy = errors.New("this listener is no forward proxy")

// establish answers CONNECT: the forward proxy relays what follows to the name that the client gives. It connects there first, so that
// 200 says that the tunnel is there (RFC 9110 section 9.3.6).
func (x *Exchange) establish() {
	tunnel := x.tunnel()
	if tunnel == nil {
		x.snapshot = x.p.Config.Snapshot()
		x.answerError()
		x.End = x.p.Now()
		x.record()
		return
	}
	x.res.Reset()
	x.res.Status = 200
	x.res.Body = message.Body{}
	err := x.down.WriteResponse(&x.res)
	if err == nil {
		err = side.OpenTunnel(x.down, x.down.Shared())
	}
	c, hijackErr := x.down.Hijack()
	x.Hijacked = true
	if errors.Join(err, hijackErr) != nil {
		tunnel.Drop()
		return
	}
	tunnel.Serve(c)
}

// tunnel makes ready what CONNECT asks for; nil if that fails.
func (x *Exchange) tunnel() *downstream.Tunnel {
	d := x.d
	if d.Tunnel == nil {
		x.fail(failure.RefusedMethod, "connect", errNoForwardProxy)
		return nil
	}
	target, err := x.p.Config.Resolve(x.p.ctx, d.ListenerName(x.Req.Authority))
	var tcp *conf.TCP
	http := false
	if err == nil {
		http, tcp, _ = d.Protocols(target)
	}
	if err != nil || tcp == nil && !http {
		x.fail(failure.NoConfig, "resolve "+d.Name, err)
		return nil
	}
	if target == nil && tcp.Clusters[0].Cluster == wire.BlackHoleCluster {
		x.fail(failure.Unroutable, "resolve", fmt.Errorf("%s: not known to the mesh", d.Name))
		return nil
	}
	t := d.Tunnel(d.Name, target)
	if t.Err == nil {
		return t
	}
	x.cluster, x.to = t.Cluster, t.To
	if !errors.As(t.Err, &x.err) {
		x.fail(failure.ConnectFailed, "connect", t.Err)
	}
	return nil
}
