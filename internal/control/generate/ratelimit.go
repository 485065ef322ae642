package generate

import (
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/weftmesh/weft/internal/control/generate/limit"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// rateLimits gives a filter for each rule that holds for the node's workload, and one for all rules for a service.
func (g *Generator) rateLimits() []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, l := range g.mesh.RateLimits(g.node.Namespace) {
		if l.Namespace != "" && l.Namespace != g.node.Namespace || !model.Selects(l.Selector, g.node.Labels) {
			continue
		}
		name := "ratelimit/" + l.Ref.Namespace + "/" + l.Ref.Name
		if l.Service != nil {
			if !g.serves(l.Service.Host) {
				out = append(out, message.HTTPFilter(name, limit.Global(l)))
			}
			continue
		}
		for i := range l.Rules {
			out = append(out, message.HTTPFilter(name+"/"+l.Rules[i].Name, limit.Local(l, &l.Rules[i])))
		}
	}
	return out
}
