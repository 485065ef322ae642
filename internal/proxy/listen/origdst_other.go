//go:build !linux

package listen

import (
	"net"
	"net/netip"
)

// redirectedFrom has no answer: only Linux redirects to us.
func redirectedFrom(*net.TCPConn) (netip.AddrPort, bool) { return netip.AddrPort{}, false }
