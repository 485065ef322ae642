package generate

import (
	"github.com/weftmesh/weft/internal/control/model"
)

// policy gives the policy of one port of a destination, or of a subset of it, with what it inherits from the mesh's settings: whole
// blocks where the rules have none, and single values where the block says nothing of them.
func (g *Generator) policy(d *model.Destination, s *model.Subset, port uint16) model.TrafficPolicy {
	p, mesh := trafficPolicy(d, s, port), g.mesh.Settings()
	if p.Outlier == nil {
		p.Outlier = mesh.Outlier
	}
	p.Pool = inheritPool(p.Pool, mesh)
	if mesh.Locality != nil && (p.Balancing == nil || p.Balancing.Locality == nil) {
		b := model.Balancing{}
		if p.Balancing != nil {
			b = *p.Balancing
		}
		b.Locality = mesh.Locality
		p.Balancing = &b
	}
	return p
}

// inheritPool completes a connection pool; nil stays nil where the mesh has nothing to add.
func inheritPool(own *model.ConnectionPool, mesh *model.Settings) *model.ConnectionPool {
	if own == nil {
		own = mesh.Pool
	}
	keepAlive := mesh.KeepAlive != nil && (own == nil || own.KeepAlive == nil)
	upgrade := mesh.UpgradeHTTP2 && (own == nil || !own.UpgradeHTTP2 && !own.KeepHTTP1)
	if !keepAlive && !upgrade {
		return own
	}
	p := model.ConnectionPool{}
	if own != nil {
		p = *own
	}
	if keepAlive {
		p.KeepAlive = mesh.KeepAlive
	}
	p.UpgradeHTTP2 = p.UpgradeHTTP2 || upgrade
	return &p
}

// retries are those of a route: its own, or else the mesh's; nil for the built-in ones.
func (g *Generator) retries(own *model.Retries) *model.Retries {
	if own == nil {
		return g.mesh.Settings().Retries
	}
	return own
}
