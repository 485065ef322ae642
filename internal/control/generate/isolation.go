package generate

import (
	"maps"
	"slices"
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// own is the host of a listener of the Gateway API; empty for servers of others, which have no listeners beside them.
func (p place) own() string {
	if len(p.server.Others) == 0 || len(p.server.Hosts) != 1 {
		return ""
	}
	return p.server.Hosts[0].Host
}

// leaves reports whether a host that the listener's own one covers is another listener's of the Gateway.
func (p place) leaves(host string) bool {
	own := p.own()
	return own != "" && own != host && covers(own, host) && slices.Contains(p.server.Others, host)
}

func covers(pattern, host string) bool { return pattern == "*" || isWildcard(pattern) && wildcardCovers(pattern, host) }

// isolate has requests for a listener's host meet that listener's routes alone, also where it has none (GatewaySpec.listeners,
// "Listener Isolation"): what wildcards of other listeners have for such hosts is left out.
func isolate(hosts map[string]*hostRoutes, servers []place) {
	isolated := map[string]*hostRoutes{}
	for _, s := range servers {
		if !isWildcard(s.own()) {
			continue
		}
		for _, h := range s.server.Others {
			if hosts[h] == nil && isolated[h] == nil && s.leaves(h) {
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
		if h != host && isWildcard(h) && covers(h, host) && len(h) > len(longest) {
			longest, v = h, of
		}
	}
	return v
}

// without is what remains for a host of which some listeners take no requests; nil where all do.
func (v *hostRoutes) without(host string) *hostRoutes {
	out := &hostRoutes{redirect: v.redirect, isolated: true}
	for i, p := range v.places {
		if !p.leaves(host) {
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
func misdirected(hosts map[string]*hostRoutes, servers []place) *routev3.VirtualHost {
	elsewhere := map[string]bool{}
	for _, s := range servers {
		own := s.own()
		if own == "" {
			continue
		}
		for _, h := range s.server.Others {
			if h != own && hosts[h] == nil {
				elsewhere[h] = true
			}
			if hosts[own] == nil && covers(h, own) {
				hosts[own] = &hostRoutes{isolated: true}
			}
		}
	}
	for h := range elsewhere {
		if hosts[h] != nil {
			delete(elsewhere, h)
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	return &routev3.VirtualHost{Name: "misdirected:" + strconv.Itoa(int(servers[0].port)), Domains: slices.Sorted(maps.Keys(elsewhere)),
		Routes: []*routev3.Route{{
			Name:   "misdirected",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: routing.Direct(421, []byte("this connection was opened for another server name\n")),
		}}}
}

// closing gives chains that close connections for the server names of listeners that wildcards of other listeners cover. They count
// where nothing else takes the names.
func (g *Generator) closing(servers []place) (chains []*listenerv3.FilterChain) {
	for _, s := range servers {
		own := s.own()
		if own == "" || !slices.ContainsFunc(s.server.Others, func(h string) bool { return h != own && covers(h, own) }) {
			continue
		}
		chains = append(chains, &listenerv3.FilterChain{Name: wire.BlackHoleCluster + "." + own,
			FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{own}},
			Filters:          []*listenerv3.Filter{g.relayTo(wire.BlackHoleCluster, wire.BlackHoleCluster)}})
	}
	return chains
}

// endsTLS reports whether servers of a route table are reached through TLS.
func endsTLS(servers []place) bool { return len(servers) > 0 && servers[0].server.Protocol == model.HTTPS }
