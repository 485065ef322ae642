//go:build !linux

package listen

import (
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// redirectedFrom has no answer: only Linux redirects to us.
func redirectedFrom(conn.Conn) (netip.AddrPort, bool) { return netip.AddrPort{}, false }
