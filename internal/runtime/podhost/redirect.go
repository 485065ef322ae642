package podhost

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the nftables table in each captured pod.
const tableName = "weft"

// capture writes the redirect rules into the calling thread's network namespace, in one transaction:
//
//	output nat      self mark -> inbound; mark -> leave; port 53 -> DNS; lo -> leave; tcp -> outbound
//	prerouting nat  lo -> leave; tcp to the sidecar's own ports -> leave; tcp -> inbound
//	output filter   mark, loopback, pods -> leave; udp -> refuse
//
// UDP to the outside has no way out, and a refusal makes programs fall back to TCP at once. The filter names loopback by address,
// as a packet that the nat chain redirected still shows its old interface there.
func capture(s Setup) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName})
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) func(...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: prio})
		return func(parts ...[]expr.Any) {
			r := &nftables.Rule{Table: t, Chain: ch}
			for _, p := range parts {
				r.Exprs = append(r.Exprs, p...)
			}
			c.AddRule(r)
		}
	}
	out := chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	out(markIs(s.SelfMark), protocolIs(unix.IPPROTO_TCP), redirect(s.Inbound))
	out(markIs(s.Mark), leave())
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		out(protocolIs(proto), portIs(53), redirect(s.DNS))
	}
	out(interfaceIs(expr.MetaKeyOIFNAME, "lo"), leave())
	out(protocolIs(unix.IPPROTO_TCP), redirect(s.Outbound))

	in := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	in(interfaceIs(expr.MetaKeyIIFNAME, "lo"), leave())
	for _, port := range s.Open {
		in(protocolIs(unix.IPPROTO_TCP), portIs(port), leave())
	}
	in(protocolIs(unix.IPPROTO_TCP), redirect(s.Inbound))

	filter := chain("udp", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	filter(markIs(s.Mark), leave())
	filter(destinationIn(netip.MustParsePrefix("127.0.0.0/8")), leave())
	filter(destinationIn(s.Gateway.Masked()), leave())
	filter(protocolIs(unix.IPPROTO_UDP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}) // port unreachable

	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables rules: %w", err)
	}
	return nil
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func markIs(mark int) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, equal(binaryutil.NativeEndian.PutUint32(uint32(mark)))}
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal(padded)}
}

func protocolIs(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{proto})}
}

// portIs matches the destination port of TCP and UDP, which have it at the same place.
func portIs(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binaryutil.BigEndian.PutUint16(port)),
	}
}

func destinationIn(p netip.Prefix) []expr.Any {
	n := ipNet(p)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: n.Mask, Xor: make([]byte, 4)},
		equal(n.IP),
	}
}

func redirect(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}

func leave() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }
