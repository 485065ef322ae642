//go:build !linux

package datagram

import (
	"net"
	"net/netip"
)

const controlSize = 0

// tellDestination does nothing here: the system chooses the address that answers come from.
func tellDestination(*net.UDPConn) error { return nil }

func destinationOf([]byte) netip.Addr { return netip.Addr{} }

func replyFrom([]byte) []byte { return nil }
