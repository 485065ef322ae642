package listen

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// redirectedFrom asks connection tracking. It has no answer for a connection that no rule has redirected.
func redirectedFrom(c conn.Conn) (dst netip.AddrPort, ok bool) {
	ask := originalV6
	if c.LocalAddr().Addr().Is4() {
		ask = originalV4
	}
	if err := conn.Control(c, func(fd uintptr) { dst, ok = ask(int(fd)) }); err != nil {
		return netip.AddrPort{}, false
	}
	return dst, ok
}

// originalV4 reads a sockaddr_in through the one getter of package unix that copies 16 bytes of that level.
func originalV4(fd int) (netip.AddrPort, bool) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(m.Multiaddr[2:4])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), port), true
}

// originalV6 reads a sockaddr_in6, which ip6_mtuinfo begins with. Its port is in network order.
func originalV6(fd int) (netip.AddrPort, bool) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, false
	}
	port := m.Addr.Port<<8 | m.Addr.Port>>8
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		port = m.Addr.Port
	}
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr).Unmap(), port), true
}
