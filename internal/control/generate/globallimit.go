package generate

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// serves reports whether the node is an endpoint of a service: a rate-limit service must not be asked whether it may be asked.
func (g *Generator) serves(host string) bool {
	s := g.mesh.Service(host)
	return s != nil && slices.ContainsFunc(g.mesh.Endpoints(s), func(e *model.Endpoint) bool {
		return e.Instance == g.node.Name && e.Namespace == g.node.Namespace
	})
}
