package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/proxyproto"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// announced reads the PROXY protocol header that a listener wants and reports whether the connection may go on. From then on the
// client is whom the header names.
func (d *downstream) announced(want *conf.ProxyProtocol) bool {
	if want == nil {
		return true
	}
	h, rest, err := proxyproto.Read(d.conn, talkTime)
	d.conn = rest
	switch {
	case errors.Is(err, proxyproto.ErrNone) && want.Optional:
		return true
	case err == nil && want.Disallowed[h.Version]:
		err = fmt.Errorf("PROXY protocol version %d is not allowed here", h.Version)
	}
	if err != nil {
		d.turnAway(failure.Malformed, "proxy protocol", err)
		return false
	}
	if !h.Local {
		d.remote = netip.AddrPortFrom(h.Source.Addr().Unmap(), h.Source.Port())
		// The port stays the listener's: it is what chains and policies name.
		d.destination = netip.AddrPortFrom(h.Destination.Addr().Unmap(), d.destination.Port())
		d.local = netip.AddrPortFrom(h.Destination.Addr().Unmap(), h.Destination.Port())
	}
	return true
}

// clientKey is the context key of the connection on whose behalf an endpoint is connected to.
type clientKey struct{}

// connecting is the context for connecting to an endpoint on the client's behalf.
func (d *downstream) connecting(to *endpoint) context.Context {
	if !to.announces {
		return d.p.ctx
	}
	return context.WithValue(d.p.ctx, clientKey{}, d)
}

// announcing makes connections that begin with a PROXY protocol header. It names the client of the context, and says that there is
// none where the proxy connects for itself.
func announcing(dial upstream.Dial, version uint8) upstream.Dial {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		var from, to netip.AddrPort
		if d, ok := ctx.Value(clientKey{}).(*downstream); ok {
			from, to = d.remote, d.destination
		}
		deadline, _ := ctx.Deadline()
		if err = c.SetWriteDeadline(deadline); err == nil {
			_, err = c.Write(proxyproto.Append(nil, version, from, to))
		}
		if err = errors.Join(err, c.SetWriteDeadline(time.Time{})); err != nil {
			c.Close()
			return nil, fmt.Errorf("proxy protocol header: %w", err)
		}
		return c, nil
	}
}
