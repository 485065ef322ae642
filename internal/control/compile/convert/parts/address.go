package parts

import "net/netip"

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
