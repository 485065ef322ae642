package exchange

import (
	"errors"
	"fmt"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/wire"
)

// match finds the route, and with it the cluster or the answer. Where there is none, policies and limits are asked nonetheless: as in
// Envoy, whose router is the last filter, a client that may not ask does not learn what there is. When the configuration changes at that very moment, the route of
// before may lead to a cluster that has just gone: then the new configuration is asked.
func (x *Exchange) match() bool {
	for tries := 0; ; tries++ {
		ok := x.matchOnce()
		now := x.p.Config.Snapshot()
		if !ok && x.err != nil && x.err.Kind == failure.NoCluster && now != x.snapshot && tries < rematches {
			x.snapshot, x.err = now, nil
			continue
		}
		if !ok && x.table != nil && x.err != nil && (x.err.Kind == failure.NoRoute || x.err.Kind == failure.NoCluster) {
			x.astray, x.err = x.err, nil
			return true
		}
		return ok
	}
}

// routed ends a request that leads nowhere.
func (x *Exchange) routed() bool {
	x.err = x.astray
	return x.astray == nil
}

// rematches bounds how often a request follows the configuration.
const rematches = 3

func (x *Exchange) matchOnce() bool {
	if !x.findTable() {
		return false
	}
	if x.table == nil {
		return x.passThrough()
	}
	x.translate()
	if !x.underscores() {
		return false
	}
	elsewhere, ok := x.normalize()
	if !ok {
		return false
	}
	if elsewhere != nil {
		x.matched = route.Result{Host: &conf.VirtualHost{}, Route: elsewhere}
		return true
	}
	x.draw()
	x.matching = route.Request{Request: &x.Req, Random: uint32(x.random) % 1e6, GRPC: x.isGRPC || x.Req.Method != "POST" && grpc.Typed(&x.Req), Presented: x.d.PeerURI != "", Validated: x.d.PeerURI != ""}
	x.matched = route.Find(x.table, &x.matching)
	if x.matched.Host == nil || x.matched.Route == nil {
		if x.Req.Method == "OPTIONS" && x.Req.Path == "*" {
			x.matched.Route = nil
			return false // it asks the server in general, which no route is needed for (RFC 9110 section 9.3.7)
		}
		return x.fail(failure.NoRoute, "route", fmt.Errorf("nothing matches %s %s%s", x.Req.Method, x.Req.Authority, x.Req.Path))
	}
	f := x.matched.Route.Forward
	if f == nil {
		return true
	}
	if !x.upgradable(f) {
		return x.fail(failure.RefusedUpgrade, "route", fmt.Errorf("upgrade to %s: not enabled on route %s", x.Req.Upgrade, x.matched.Route.Name))
	}
	if !x.findCluster(f) {
		return false
	}
	if f.Timeout > 0 {
		x.deadline = x.Start.Add(f.Timeout)
	}
	if x.isGRPC {
		x.limit()
	}
	return true
}

// draw makes the request's random number, once: its lower half decides about routes that take a share, the upper about splits,
// so that a request which is matched again ends up in the same place.
func (x *Exchange) draw() {
	for x.random == 0 {
		x.random = x.p.random64()
	}
}

// findCluster chooses where the route leads.
func (x *Exchange) findCluster(f *conf.Forward) bool {
	if x.split = route.Pick(f.Clusters, f.TotalWeight, uint32(x.random>>32)); f.ClusterHeader != "" {
		name, _ := x.Req.Header.Get(f.ClusterHeader)
		x.split = &conf.WeightedCluster{Cluster: name}
	}
	x.recall(f)
	if x.split == nil {
		return x.fail(failure.NoCluster, "route", errors.New("no cluster"))
	}
	if x.cluster = x.p.Clusters.Get(x.split.Cluster); x.cluster == nil {
		x.fail(failure.NoCluster, "route", fmt.Errorf("cluster %s: not known", x.split.Cluster))
		x.err.Code = f.UnknownStatus
		return false
	}
	return true
}

// underscores refuses or drops fields with underscores in their names where the configuration says so.
func (x *Exchange) underscores() bool {
	if x.http == nil || x.http.Underscores == conf.AllowUnderscores {
		return true
	}
	h := &x.Req.Header
	if x.http.Underscores == conf.DropUnderscores {
		h.DelFunc(hasUnderscore)
		return true
	}
	for i := range h.Len() {
		if hasUnderscore(h.Name(i)) {
			return x.fail(failure.Malformed, "request", fmt.Errorf("field %q has an underscore in its name, which is refused here", h.Name(i)))
		}
	}
	return true
}

func hasUnderscore(name string) bool { return strings.IndexByte(name, '_') >= 0 }

// normalize gives the path the one form in which routes, policies and the workload all see it, so that "/x/%2e%2e/admin" cannot
// pass a policy on "/admin". elsewhere is a route that sends the client to that form, where the configuration wants that; else nil.
func (x *Exchange) normalize() (elsewhere *conf.Route, ok bool) {
	if x.http == nil {
		return nil, true
	}
	path, moved, ok := route.Canonical(x.http, x.Req.Path)
	if !ok {
		return nil, x.fail(failure.BadPath, "normalize",
			fmt.Errorf("path %q leads out of the root, or holds an escaped NUL or an escaped slash that is refused", x.Req.Path))
	}
	x.Req.Path = path
	if !moved {
		return nil, true
	}
	path, _ = x.Req.SplitPath()
	return &conf.Route{Name: "unescaped path", Redirect: &conf.Redirect{Status: 307, Path: path}}, true
}

// upgradable reports whether the route lets the protocol change. HTTP/2 by upgrade, which RFC 9113 has given up, is ignored as
// any server may.
func (x *Exchange) upgradable(f *conf.Forward) bool {
	if message.EqualFold(x.Req.Upgrade, "h2c") {
		x.Req.Upgrade = ""
	}
	return x.Req.Upgrade == "" || f.Upgrades || x.http != nil && x.http.Upgrades
}

// findTable finds the route table; none means that the destination is not the mesh's.
func (x *Exchange) findTable() bool {
	if x.d.Direction != downstream.Outbound {
		x.http, x.direct = x.d.HTTP, x.d.App
		if x.table = x.http.Routes; x.table == nil {
			if x.table = x.snapshot.RouteTables[x.http.RouteName]; x.table == nil {
				return x.fail(failure.NoConfig, "route", fmt.Errorf("route table %q: not received yet", x.http.RouteName))
			}
		}
		return true
	}
	t, err := x.target()
	if err != nil {
		return x.fail(failure.NoConfig, "resolve "+x.d.Name, err)
	}
	x.direct = x.d.Destination
	if t == nil {
		return true
	}
	x.http = httpOf(t)
	if x.table = t.Routes; x.table == nil && x.http != nil {
		x.table = x.http.Routes
	}
	switch {
	case x.table != nil:
		return true
	case x.outlived(t):
		return x.fail(failure.NotTaken, "route", fmt.Errorf("%s: is no HTTP port any more, and the connection is from when it was", t.Name))
	}
	return x.fail(failure.NoRoute, "route", fmt.Errorf("%s: is not an HTTP port", t.Name))
}

// outlived reports whether a connection that leads to t, which is no HTTP port, would not be served as HTTP if it were made now.
func (x *Exchange) outlived(t *conf.Target) bool {
	if x.d.Fixed == "" {
		t = x.d.AtAddress()
	}
	http, _, _ := x.d.Protocols(t)
	return !http
}

// target resolves the host that the request names, and failing that the address that the client connected to.
func (x *Exchange) target() (*conf.Target, error) {
	d := x.d
	if d.Fixed != "" {
		if d.LocalName(x.Req.Authority) {
			x.Req.Authority = d.Fixed // the client knows only our listener
		}
		d.Name = d.Fixed
		return x.p.Config.Resolve(x.p.ctx, d.Fixed)
	}
	if x.Req.Authority != "" {
		t, err := x.p.Config.Resolve(x.p.ctx, d.ListenerName(x.Req.Authority))
		if t != nil || err != nil {
			return t, err
		}
	}
	return d.AtAddress(), nil
}

func httpOf(t *conf.Target) *conf.HTTP {
	for _, c := range t.Listener.Chains {
		if c.HTTP != nil {
			return c.HTTP
		}
	}
	if t.Listener.Default != nil {
		return t.Listener.Default.HTTP
	}
	return nil
}

// passThrough sends what the mesh does not know where the client wanted it.
func (x *Exchange) passThrough() bool {
	name := x.d.Passthrough().Clusters[0].Cluster
	if name == wire.BlackHoleCluster {
		return x.fail(failure.Unroutable, "resolve", fmt.Errorf("%s: not known to the mesh", x.d.Name))
	}
	if x.cluster = x.d.Cluster(name); x.cluster == nil {
		return x.fail(failure.NoCluster, "resolve", fmt.Errorf("%s: not known to the mesh, and cluster %q is unknown", x.d.Name, name))
	}
	return true
}
