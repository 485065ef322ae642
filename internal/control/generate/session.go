package generate

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

func keepSessions(sets []*model.RouteSet) bool {
	return slices.ContainsFunc(sets, func(s *model.RouteSet) bool {
		return slices.ContainsFunc(s.HTTP, func(r model.HTTPRoute) bool { return r.Session != nil })
	})
}

// sessionsAtGateways reports whether a route at any gateway keeps sessions.
func (g *Generator) sessionsAtGateways() bool {
	return slices.ContainsFunc(g.mesh.Gateways(), func(gw *model.Gateway) bool { return keepSessions(g.mesh.RouteSetsAt(gw.Ref)) })
}

// sessionsInMesh reports whether any route of sidecars does.
func (g *Generator) sessionsInMesh() bool {
	for _, sets := range g.mesh.AllRouteSets() {
		if keepSessions(sets) {
			return true
		}
	}
	return false
}
