package generate

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/model"
)

const corsFilter = "envoy.filters.http.cors"

// perFilter gives what a rule says of filters; nil when it says nothing.
func (g *Generator) perFilter(r *model.HTTPRoute) map[string]*anypb.Any {
	out := map[string]*anypb.Any{}
	if r.Fault != nil {
		if f := routing.Fault(r.Fault); f != nil {
			out[message.FaultFilter] = message.Pack(f)
		}
	}
	if r.CORS != nil && !g.node.Proxyless {
		out[corsFilter] = message.Pack(routing.CORS(r.CORS))
	}
	if r.Session != nil && !g.node.Proxyless {
		out[routing.SessionFilter] = message.Pack(routing.Session(r.Session))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
