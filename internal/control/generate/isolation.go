package generate

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/wire"
)

// isolate has requests for a listener's host meet that listener's routes alone, also where it has none (GatewaySpec.listeners,
// "Listener Isolation"): what wildcards of other listeners have for such hosts is left out.
func isolate(hosts map[string]*hostRoutes, servers []view.Place) {
	isolated := map[string]*hostRoutes{}
	for _, s := range servers {
		if !index.IsWildcard(s.Own()) {
			continue
		}
		for _, h := range s.Server.Others {
			if hosts[h] == nil && isolated[h] == nil && s.Leaves(h) {
				if v := mostSpecific(hosts, h); v != nil {
					isolated[h] = v.without(h)
				}
			}
		}
	}
	maps.DeleteFunc(isolated, func(_ string, v *hostRoutes) bool { return v == nil })
	maps.Copy(hosts, isolated)
}

// mostSpecific gives what the longest wildcard that covers a host has.
func mostSpecific(hosts map[string]*hostRoutes, host string) (v *hostRoutes) {
	longest := ""
	for h, of := range hosts {
		if len(h) > len(longest) && view.CoversOther(h, host) {
			longest, v = h, of
		}
	}
	return v
}

// without is what remains for a host of which some listeners take no requests; nil where all do.
func (v *hostRoutes) without(host string) *hostRoutes {
	out := &hostRoutes{redirect: v.redirect, isolated: true}
	for i, p := range v.places {
		if !p.Leaves(host) {
			out.places, out.sets = append(out.places, p), append(out.sets, v.sets[i])
		}
	}
	if len(out.places) == len(v.places) {
		return nil
	}
	return out
}

// misdirected answers requests for hosts of other listeners of the Gateway that come over a connection which its server name led
// here: the client is told to open another one (RFC 9110, section 15.5.20; Listener.hostname). nil where there are none.
func misdirected(hosts map[string]*hostRoutes, servers []view.Place) *routev3.VirtualHost {
	for _, s := range servers {
		if own := s.Own(); own != "" && hosts[own] == nil && s.Covered() {
			hosts[own] = &hostRoutes{isolated: true}
		}
	}
	elsewhere := map[string]bool{}
	for _, s := range servers {
		for _, h := range s.Server.Others {
			if h != s.Own() && hosts[h] == nil {
				elsewhere[h] = true
			}
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	return &routev3.VirtualHost{Name: "misdirected:" + strconv.Itoa(int(servers[0].Port)), Domains: slices.Sorted(maps.Keys(elsewhere)),
		Routes: []*routev3.Route{{
			Name:   "misdirected",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: routing.Direct(http.StatusMisdirectedRequest, []byte("this connection was opened for another server name\n")),
		}}}
}

// closing gives chains that close connections for the server names of listeners that wildcards of other listeners cover. They count
// where nothing else takes the names.
func (g *Generator) closing(servers []view.Place) (chains []*listenerv3.FilterChain) {
	for _, s := range servers {
		if s.Covered() {
			chains = append(chains, &listenerv3.FilterChain{Name: wire.BlackHoleCluster + "." + s.Own(),
				FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{s.Own()}},
				Filters:          []*listenerv3.Filter{g.relayTo(wire.BlackHoleCluster, wire.BlackHoleCluster)}})
		}
	}
	return chains
}
