package exchange

import (
	"errors"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/side"
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

// establish answers CONNECT: the forward proxy relays what follows to the name that the client gives.
func (x *Exchange) establish() {
	if x.d.Tunnel == nil {
		x.fail(failure.RefusedMethod, "connect", errNoForwardProxy)
		x.answerError()
		x.End = x.p.Now()
		x.record()
		return
	}
	d := x.d
	target, err := x.p.Config.Resolve(x.p.ctx, d.ListenerName(x.Req.Authority))
	var tcp *conf.TCP
	http := false
	if err == nil {
		http, tcp, _ = d.Protocols(target)
	}
	if err != nil || tcp == nil && !http {
		x.fail(failure.NoConfig, "resolve "+d.Name, err)
		x.answerError()
		x.End = x.p.Now()
		x.record()
		return
	}
	x.res.Reset()
	x.res.Status = 200
	x.res.Body = message.Body{}
	if err = x.down.WriteResponse(&x.res); err == nil {
		err = side.OpenTunnel(x.down, x.down.Shared())
	}
	c, hijackErr := x.down.Hijack()
	x.Hijacked = true
	if errors.Join(err, hijackErr) != nil {
		return
	}
	d.Tunnel(c, d.Name, target)
}
