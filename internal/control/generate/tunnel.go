package generate

import (
	"cmp"

	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// tunnel is what a destination's DestinationRule has its proxy asked for; nil for nothing.
func (g *Generator) tunnel(d model.WeightedDestination, port uint16) *model.Tunnel {
	s := g.view.Service(d.Host)
	if s == nil {
		return nil
	}
	rule := g.view.Destination(s)
	return g.view.Policy(rule, view.Subset(rule, d.Subset), cmp.Or(d.Port, port)).Tunnel
}

// sameTunnel compares. A relay has one tunnel for all of its clusters: those of a weighted route that want another than the first
// cannot be reached through it, and their share of the connections fails, as package compile warns.
func sameTunnel(a, b *model.Tunnel) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func tunneling(t *model.Tunnel) *tcpv3.TcpProxy_TunnelingConfig {
	if t == nil {
		return nil
	}
	return &tcpv3.TcpProxy_TunnelingConfig{Hostname: t.Target, UsePost: t.Post}
}
