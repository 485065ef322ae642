package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dial reaches an endpoint: directly, or from the host's network where we have only a name, no route, or a route that leads
// nowhere.
func (p *Proxy) dial(ctx context.Context, address string) (net.Conn, error) {
	if p.opt.DialOutside == nil {
		return p.opt.Dial(ctx, "tcp", address)
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		return p.opt.DialOutside(ctx, "tcp", address)
	}
	return p.dialBoth(ctx, address)
}

// outsideAfter is how long the direct way may take before the host's network is tried as well. A connection within a machine
// or a data centre is there long before.
const outsideAfter = 250 * time.Millisecond

type dialled struct {
	conn net.Conn
	err  error
}

// dialBoth tries the direct way first and the other one beside it when that takes long or there is no route (in the manner of
// RFC 8305). Both attempts have ended when it returns.
func (p *Proxy) dialBoth(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	direct, outside := make(chan dialled, 1), make(chan dialled, 1)
	try := func(to chan dialled, dial func(context.Context, string, string) (net.Conn, error)) {
		c, err := dial(ctx, "tcp", address)
		to <- dialled{c, err}
	}
	go try(direct, p.opt.Dial) // ends with its attempt, which is waited for
	timer := time.NewTimer(outsideAfter)
	defer timer.Stop()
	select {
	case d := <-direct:
		if d.err == nil || !noRouteTo(d.err) {
			return d.conn, d.err
		}
		direct <- d
	case <-timer.C:
	}
	go try(outside, p.opt.DialOutside) // as above
	return settle(direct, outside, cancel)
}

// settle gives the first connection and ends the other attempt. When both fail, a refusal says more than a time that ran out.
func settle(direct, outside chan dialled, cancel func()) (net.Conn, error) {
	first, other := dialled{}, outside
	select {
	case first = <-direct:
		if first.err != nil && noRouteTo(first.err) {
			d := <-outside
			return d.conn, d.err
		}
	case first = <-outside:
		other = direct
	}
	if first.err != nil {
		second := <-other
		if second.err == nil {
			return second.conn, nil
		}
		return nil, first.err
	}
	cancel()
	if late := <-other; late.conn != nil {
		late.conn.Close()
	}
	return first.conn, nil
}

func noRouteTo(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}
