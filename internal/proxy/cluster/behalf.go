package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weftmesh/weft/internal/proxy/proxyproto"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// clientKey is the context key of the connection on whose behalf an endpoint is connected to: who made it, and where it went.
type clientKey struct{}

// OnBehalf gives the context for connecting to the endpoint for a client whose connection came from one address and went to another.
func (e *Endpoint) OnBehalf(ctx context.Context, from, to netip.AddrPort) context.Context {
	if !e.announces {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, [2]netip.AddrPort{from, to})
}

// announcing makes connections that begin with a PROXY protocol header. It names the client of the context, and says that there is
// none where the proxy connects for itself.
func announcing(dial upstream.Dial, version uint8) upstream.Dial {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		ends, _ := ctx.Value(clientKey{}).([2]netip.AddrPort)
		deadline, _ := ctx.Deadline()
		if err = c.SetWriteDeadline(deadline); err == nil {
			_, err = c.Write(proxyproto.Append(nil, version, ends[0], ends[1]))
		}
		if err = errors.Join(err, c.SetWriteDeadline(time.Time{})); err != nil {
			c.Close()
			return nil, fmt.Errorf("proxy protocol header: %w", err)
		}
		return c, nil
	}
}
