package proxy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/proxyproto"
)

// announced reads the PROXY protocol header that a listener wants and reports whether the connection may go on. From then on the
// client is whom the header names.
func (d *connection) announced(want *conf.ProxyProtocol) bool {
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
		d.Remote = netip.AddrPortFrom(h.Source.Addr().Unmap(), h.Source.Port())
		// The port stays the listener's: it is what chains and policies name.
		d.Destination = netip.AddrPortFrom(h.Destination.Addr().Unmap(), d.Destination.Port())
		d.Local = netip.AddrPortFrom(h.Destination.Addr().Unmap(), h.Destination.Port())
	}
	return true
}
