package exchange

import (
	"slices"

	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/route"
)

// session is how the request's route keeps clients at their endpoints; nil where it does not.
func (x *Exchange) session() *conf.Session {
	if x.matched.Route == nil || x.http == nil || !x.http.Sessions {
		return nil
	}
	return x.matched.Route.Session
}

// recall finds out where the client's session belongs, and of several clusters chooses the one that has the endpoint.
func (x *Exchange) recall(f *conf.Forward) {
	s := x.session()
	if s == nil {
		return
	}
	if x.wanted = route.Recall(s, &x.Req.Header); x.wanted == "" || len(f.Clusters) < 2 {
		return
	}
	for i := range f.Clusters {
		w := &f.Clusters[i]
		if c := x.p.Clusters.Get(w.Cluster); w.Weight > 0 && c != nil && c.Resolved(x.p.ctx, x.deadline).At(x.wanted) != nil {
			x.split = w
			return
		}
	}
}

// belongs gives the endpoint to which the client's session belongs, if it may be used and has not failed this request; known reports
// whether the client has named one.
func (x *Exchange) belongs() (to *cluster.Endpoint, known bool) {
	if x.wanted == "" {
		return nil, false
	}
	to = x.cluster.At(x.wanted)
	if to == nil || !to.Host.Healthy() || slices.Contains(x.failed[:x.failures], to.Host) {
		return nil, true
	}
	return to, true
}

// remember tells the client where its session belongs, unless it knows.
func (x *Exchange) remember() {
	if s := x.session(); s != nil && x.to != nil && x.to.Raw.Address != x.wanted {
		route.Remember(s, &x.res.Header, x.to.Raw.Address)
	}
}
