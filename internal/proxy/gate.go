package proxy

import (
	"fmt"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
)

// gates counts the connections that gates limit, by their keys. The zero value is ready.
type gates struct {
	mu    sync.Mutex
	taken map[string]uint64
}

func (g *gates) take(c *conf.Gate) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken[c.Key] >= c.MaxConnections {
		return false
	}
	if g.taken == nil {
		g.taken = map[string]uint64{}
	}
	g.taken[c.Key]++
	return true
}

func (g *gates) give(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken[key]--; g.taken[key] == 0 {
		delete(g.taken, key)
	}
}

// pass asks the gates of the chain, in their order, whether they take the connection.
func (d *connection) pass(chain *conf.Chain) bool {
	for i := range chain.Gates {
		g := &chain.Gates[i]
		if l := g.Rate; l != nil {
			if err := d.p.carrier.CountConnection(l); err != nil {
				d.turnAway(failure.OverLimit, "limit", err)
				return false
			}
		}
		if g.MaxConnections == 0 {
			continue
		}
		if !d.p.gates.take(g) {
			d.turnAway(failure.OverLimit, "limit", fmt.Errorf("filter chain %q has %d connections, and no more are allowed", chain.Name, g.MaxConnections))
			return false
		}
		d.accepted.AtEnd(func() { d.p.gates.give(g.Key) })
	}
	return true
}
