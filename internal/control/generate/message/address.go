package message

import (
	"cmp"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/wire"
)

// ByAddress orders endpoints by their addresses.
func ByAddress(a, b *endpointv3.LbEndpoint) int {
	x, y := a.GetEndpoint().GetAddress(), b.GetEndpoint().GetAddress()
	return cmp.Or(cmp.Compare(x.GetSocketAddress().GetAddress(), y.GetSocketAddress().GetAddress()),
		cmp.Compare(x.GetSocketAddress().GetPortValue(), y.GetSocketAddress().GetPortValue()), cmp.Compare(x.GetPipe().GetPath(), y.GetPipe().GetPath()))
}

// IsUnix reports whether an address is a unix socket.
func IsUnix(address string) bool { return strings.HasPrefix(address, wire.UnixPrefix) }

// EndpointAddress is that of an instance: a socket's, or the path of a unix socket.
func EndpointAddress(address string, port uint16) *corev3.Address {
	if path, ok := strings.CutPrefix(address, wire.UnixPrefix); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
	}
	return SocketAddress(address, port)
}

// Locality takes a locality apart: "region/zone/subzone".
func Locality(s string) *corev3.Locality {
	parts := strings.SplitN(s+"//", "/", 4)
	return &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}

// SocketAddress is an address with a port.
func SocketAddress(address string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}}
}

// Messages share what is equal in them: nobody changes a message that was made.
var (
	ViaMutualTLS = Texts("tlsMode", "istio")
	weightOne    = wrapperspb.UInt32(1)
)

// Weight of an endpoint: at least 1.
func Weight(n uint32) *wrapperspb.UInt32Value {
	if n <= 1 {
		return weightOne
	}
	return wrapperspb.UInt32(n)
}

// Texts makes a struct of pairs of a name and a text, without the empty ones.
func Texts(pairs ...string) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			s.Fields[pairs[i]] = structpb.NewStringValue(pairs[i+1])
		}
	}
	return s
}

// Prefixes reads destination subnets, addresses or ranges; false when one of them is neither, since a condition that is left out
// would widen the match.
func Prefixes(subnets []string) ([]*corev3.CidrRange, bool) {
	var out []*corev3.CidrRange
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, false
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, CIDR(p))
	}
	return out, true
}

// CIDR is a block of addresses.
func CIDR(p netip.Prefix) *corev3.CidrRange {
	p = p.Masked()
	if a := p.Addr(); a.Is4In6() {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-(a.BitLen()-a.Unmap().BitLen()))
	}
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}
