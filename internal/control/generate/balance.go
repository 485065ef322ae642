package generate

import (
	"cmp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
)

// hashOf gives the consistent hashing of a destination, nil for none.
func (g *Generator) hashOf(d model.WeightedDestination, port uint16) *model.ConsistentHash {
	s := g.view.Service(d.Host)
	if s == nil {
		return nil
	}
	if d.Port != 0 {
		port = d.Port
	} else if len(s.Ports) == 1 {
		port = s.Ports[0].Number
	}
	rule := g.view.Destination(s)
	if b := g.view.Policy(rule, view.Subset(rule, d.Subset), port).Balancing; b != nil {
		return b.Hash
	}
	return nil
}

// hashPolicies are the keys of all destinations of a route, each once.
func (g *Generator) hashPolicies(destinations []model.WeightedDestination, port uint16) (out []*routev3.RouteAction_HashPolicy) {
	for _, d := range destinations {
		h := g.hashOf(d, port)
		if h == nil {
			continue
		}
		p := routing.HashPolicy(h)
		if !slices.ContainsFunc(out, func(o *routev3.RouteAction_HashPolicy) bool { return proto.Equal(o, p) }) {
			out = append(out, p)
		}
	}
	return out
}

// sourceHash is the key of relayed connections: the client's address is the only one that they have.
func (g *Generator) sourceHash(destinations []model.WeightedDestination, port uint16) []*typev3.HashPolicy {
	for _, d := range destinations {
		if h := g.hashOf(d, port); h != nil && h.SourceIP {
			return []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
		}
	}
	return nil
}

// relayIdle is the idle time-out that the first destination wants of relayed connections.
func (g *Generator) relayIdle(destinations []model.WeightedDestination, port uint16) *durationpb.Duration {
	p := g.relayPool(destinations, port, func(p *model.ConnectionPool) bool { return p.TCPIdleTimeout > 0 })
	if p == nil {
		return nil
	}
	return durationpb.New(p.TCPIdleTimeout)
}

// relayPool gives the settings of the first destination that says what is asked for; nil for none.
func (g *Generator) relayPool(destinations []model.WeightedDestination, port uint16, says func(*model.ConnectionPool) bool) *model.ConnectionPool {
	for _, d := range destinations {
		if s := g.view.Service(d.Host); s != nil {
			rule := g.view.Destination(s)
			if p := g.view.Policy(rule, view.Subset(rule, d.Subset), cmp.Or(d.Port, port)).Pool; p != nil && says(p) {
				return p
			}
		}
	}
	return nil
}
