package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/wire"
)

// match finds the route, and with it the cluster or the answer. When the configuration changes at that very moment, the route of
// before may lead to a cluster that has just gone: then the new configuration is asked.
func (x *exchange) match() bool {
	for tries := 0; ; tries++ {
		ok := x.matchOnce()
		now := x.p.config.Snapshot()
		if ok || x.err == nil || x.err.Kind != failure.NoCluster || now == x.snapshot || tries == rematches {
			return ok
		}
		x.snapshot, x.err = now, nil
	}
}

// rematches bounds how often a request follows the configuration.
const rematches = 3

func (x *exchange) matchOnce() bool {
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
	x.matching = route.Request{Request: &x.req, Random: uint32(x.random) % 1e6, GRPC: x.isGRPC, Presented: x.d.peerURI != "", Validated: x.d.peerURI != ""}
	x.matched = route.Find(x.table, &x.matching)
	if x.matched.Host == nil || x.matched.Route == nil {
		if x.req.Method == "OPTIONS" && x.req.Path == "*" {
			x.matched.Route = nil
			return false // it asks the server in general, which no route is needed for (RFC 9110 section 9.3.7)
		}
		return x.fail(failure.NoRoute, "route", fmt.Errorf("nothing matches %s %s%s", x.req.Method, x.req.Authority, x.req.Path))
	}
	f := x.matched.Route.Forward
	if f == nil {
		return true
	}
	if !x.upgradable(f) {
		return x.fail(failure.RefusedUpgrade, "route", fmt.Errorf("upgrade to %s: not enabled on route %s", x.req.Upgrade, x.matched.Route.Name))
	}
	if !x.findCluster(f) {
		return false
	}
	if f.Timeout > 0 {
		x.deadline = x.start.Add(f.Timeout)
	}
	if x.isGRPC {
		x.limit()
	}
	return true
}

// draw makes the request's random number, once: its lower half decides about routes that take a share, the upper about splits,
// so that a request which is matched again ends up in the same place.
func (x *exchange) draw() {
	for x.random == 0 {
		x.random = x.p.random64()
	}
}

// findCluster chooses where the route leads.
func (x *exchange) findCluster(f *conf.Forward) bool {
	if x.split = route.Pick(f.Clusters, f.TotalWeight, uint32(x.random>>32)); f.ClusterHeader != "" {
		name, _ := x.req.Header.Get(f.ClusterHeader)
		x.split = &conf.WeightedCluster{Cluster: name}
	}
	if x.split == nil {
		return x.fail(failure.NoCluster, "route", errors.New("no cluster"))
	}
	if x.cluster = x.p.clusters.Get(x.split.Cluster); x.cluster == nil {
		x.fail(failure.NoCluster, "route", fmt.Errorf("cluster %s: not known", x.split.Cluster))
		x.err.Code = f.UnknownStatus
		return false
	}
	return true
}

// underscores refuses or drops fields with underscores in their names where the configuration says so.
func (x *exchange) underscores() bool {
	if x.http == nil || x.http.Underscores == conf.AllowUnderscores {
		return true
	}
	h := &x.req.Header
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
func (x *exchange) normalize() (elsewhere *conf.Route, ok bool) {
	if x.http == nil {
		return nil, true
	}
	path, moved, ok := route.Canonical(x.http, x.req.Path)
	if !ok {
		return nil, x.fail(failure.BadPath, "normalize",
			fmt.Errorf("path %q leads out of the root, or holds an escaped NUL or an escaped slash that is refused", x.req.Path))
	}
	x.req.Path = path
	if !moved {
		return nil, true
	}
	path, _ = x.req.SplitPath()
	return &conf.Route{Name: "unescaped path", Redirect: &conf.Redirect{Status: 307, Path: path}}, true
}

// upgradable reports whether the route lets the protocol change. HTTP/2 by upgrade, which RFC 9113 has given up, is ignored as
// any server may.
func (x *exchange) upgradable(f *conf.Forward) bool {
	if message.EqualFold(x.req.Upgrade, "h2c") {
		x.req.Upgrade = ""
	}
	return x.req.Upgrade == "" || f.Upgrades || x.http != nil && x.http.Upgrades
}

// findTable finds the route table; none means that the destination is not the mesh's.
func (x *exchange) findTable() bool {
	if x.d.direction != outbound {
		x.http, x.direct = x.d.http, x.d.app
		if x.table = x.http.Routes; x.table == nil {
			if x.table = x.snapshot.RouteTables[x.http.RouteName]; x.table == nil {
				return x.fail(failure.NoConfig, "route", fmt.Errorf("route table %q: not received yet", x.http.RouteName))
			}
		}
		return true
	}
	t, err := x.target()
	if err != nil {
		return x.fail(failure.NoConfig, "resolve "+x.d.name, err)
	}
	x.direct = x.d.destination
	if t == nil {
		return true
	}
	x.http = httpOf(t)
	if x.table = t.Routes; x.table == nil && x.http != nil {
		x.table = x.http.Routes
	}
	if x.table == nil {
		return x.fail(failure.NoRoute, "route", fmt.Errorf("%s: is not an HTTP port", t.Name))
	}
	return true
}

// target resolves the host that the request names, and failing that the address that the client connected to.
func (x *exchange) target() (*conf.Target, error) {
	d := x.d
	if d.fixed != "" {
		if d.localName(x.req.Authority) {
			x.req.Authority = d.fixed // the client knows only our listener
		}
		d.name = d.fixed
		return x.p.config.Resolve(x.p.ctx, d.fixed)
	}
	if x.req.Authority != "" {
		t, err := x.p.config.Resolve(x.p.ctx, d.listenerName(x.req.Authority))
		if t != nil || err != nil {
			return t, err
		}
	}
	return d.atAddress(), nil
}

// localName reports whether the client names nobody but us. The answer for the last authority is kept.
func (d *downstream) localName(authority string) bool {
	if authority != d.asked || authority == "" {
		host, _ := hostPort(authority)
		d.asked, d.askedLocal = strings.Clone(authority), isLocal(host)
	}
	return d.askedLocal
}

func isLocal(host string) bool {
	if host == "" {
		return false
	}
	if c := host[0]; c != 'l' && c != 'L' && c != ':' && (c < '0' || c > '9') {
		return false // no address begins so, nor does localhost
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || a.IsUnspecified())
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
func (x *exchange) passThrough() bool {
	name := x.d.passthrough().Clusters[0].Cluster
	if name == wire.BlackHoleCluster {
		return x.fail(failure.Unroutable, "resolve", fmt.Errorf("%s: not known to the mesh", x.d.name))
	}
	if x.cluster = x.p.clusterFor(x.d, name); x.cluster == nil {
		return x.fail(failure.NoCluster, "resolve", fmt.Errorf("%s: not known to the mesh, and cluster %q is unknown", x.d.name, name))
	}
	return true
}
