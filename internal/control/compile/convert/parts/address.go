package parts

import (
	"net/netip"
	"strings"
)

// Prefix reads an address range; a single address is a range of one.
func (p *Part) Prefix(v, field string) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address in an IPv6 address that stands for one
	if prefix, err := netip.ParsePrefix(v); err == nil && (!prefix.Addr().Is4In6() || prefix.Bits() >= mapped) {
		return prefix.Masked()
	}
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen())
	}
	p.Err("InvalidAddress", field, `ranges look like "10.0.0.0/8"`, "%q is neither an IP address nor a range", v)
	return netip.Prefix{}
}

// UnixSocket checks the address of a unix socket: "unix:///PATH", or "unix://@NAME" for one of Linux without a file.
func (p *Part) UnixSocket(v, field string) {
	name, ok := strings.CutPrefix(v, "unix://")
	if !ok || len(name) < 2 || name[0] != '/' && name[0] != '@' || strings.HasSuffix(name, "/") || strings.ContainsAny(name, "\x00\r\n") {
		p.Err("InvalidAddress", field, "write unix:///PATH", "%q is no absolute path of a unix socket", v)
	}
}
