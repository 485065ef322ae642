package generate

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// GatewayListeners gives all listeners that the node binds, in the order of their ports; none unless it is a gateway.
func (g *Generator) GatewayListeners() []*listenerv3.Listener {
	var out []*listenerv3.Listener
	for _, set := range g.view.Servers() {
		if set.UDP {
			if l := g.datagramListener(set); l != nil && !slices.ContainsFunc(out, func(o *listenerv3.Listener) bool { return o.Name == l.Name }) {
				out = append(out, l)
			}
			continue
		}
		l := &listenerv3.Listener{
			Name:             wire.GatewayListenerName(set.Port),
			Address:          message.SocketAddress(cmp.Or(set.Servers[0].Server.Bind, "0.0.0.0"), set.Port),
			TrafficDirection: corev3.TrafficDirection_OUTBOUND,
			Metadata:         g.proxySettings(),
		}
		l.ListenerFilters = g.headerFilter(set)
		switch set.Kind() {
		case model.HTTP:
			filter := g.gatewayHTTP(wire.GatewayRouteName(set.Port), set.Port, set.Protocol())
			l.FilterChains = []*listenerv3.FilterChain{{Name: l.Name, Filters: []*listenerv3.Filter{filter}}}
		case model.TLS:
			l.ListenerFilters = append(l.ListenerFilters, &listenerv3.ListenerFilter{Name: message.TLSInspector,
				ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(&tlsinspectorv3.TlsInspector{})}})
			for _, s := range set.Servers {
				l.FilterChains = append(l.FilterChains, g.gatewayTLS(s)...)
			}
			l.FilterChains = uniqueMatches(append(l.FilterChains, g.closing(set.Servers)...))
		case model.TCP:
			for _, s := range set.Servers {
				l.FilterChains = append(l.FilterChains, g.gatewayTCP(s)...)
			}
			l.FilterChains = uniqueMatches(l.FilterChains)
		}
		if len(l.FilterChains) > 0 {
			out = append(out, l)
		}
		if q := g.quicListener(set); q != nil {
			out = append(out, q)
		}
	}
	return out
}

// gatewayHTTP serves clients outside the mesh: what they claim about their own address is not believed.
func (g *Generator) gatewayHTTP(routes string, port uint16, p model.Protocol) *listenerv3.Filter {
	return message.NetworkFilter(message.HTTPManagerFilter, g.gatewayManager(routes, port, p))
}

func (g *Generator) gatewayManager(routes string, port uint16, p model.Protocol) *hcmv3.HttpConnectionManager {
	h := g.httpManager("gateway_" + strconv.Itoa(int(port)))
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: message.ADS(), RouteConfigName: routes}}
	h.UseRemoteAddress = wrapperspb.Bool(true)
	h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	h.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
		Subject: wrapperspb.Bool(true), Dns: true, Uri: true}
	h.HttpFilters = slices.Concat(g.requestPolicies(), g.rateLimits(), g.outboundFilters(p, g.sessionsAtGateways()))
	return h
}

// tlsRouteName names the table of one server that terminates TLS, as Istio does for its own Gateways; others say what they are besides.
func tlsRouteName(p view.Place) string {
	name := "https." + strconv.Itoa(int(p.Port)) + "." + p.Server.Name + "." + p.Gateway.Ref.Name + "." + p.Gateway.Ref.Namespace
	if kind := strings.ToLower(p.Gateway.Ref.Kind); !strings.HasPrefix(kind, "gateway") || kind == "gateway.k8s" {
		name += "." + strings.TrimPrefix(kind, "gateway.")
	}
	return name
}

// gatewayTLS gives the chains of a server: one that terminates TLS, or those of the routes for TLS that is passed through.
func (g *Generator) gatewayTLS(s view.Place) []*listenerv3.FilterChain {
	if s.Server.TLS != nil && s.Server.TLS.Mode == model.TLSAutoPassthrough {
		return g.autoPassthrough(s)
	}
	if s.Server.TLS != nil && s.Server.TLS.Mode == model.TLSPassthrough {
		var chains []*listenerv3.FilterChain
		for _, set := range g.view.RouteSetsAt(s) {
			more, _ := g.tlsChains(set, s)
			for _, c := range more {
				c.Filters = append(g.networkPolicies(), c.Filters...)
			}
			chains = append(chains, more...)
		}
		return chains
	}
	var filters []*listenerv3.Filter
	var origin *corev3.Metadata
	named := g.terminatedTLS(s)
	alpn := webHTTP
	if s.Server.Protocol == model.HTTPS {
		filters = []*listenerv3.Filter{g.gatewayHTTP(tlsRouteName(s), s.Port, s.Server.Protocol)}
	} else if tcp := g.gatewayTCP(s); len(tcp) > 0 {
		filters, origin, alpn = tcp[0].Filters, tcp[0].Metadata, nil
	}
	terminate := transport.Server(s.Server, alpn)
	if terminate == nil || len(filters) == 0 {
		return named
	}
	match := &listenerv3.FilterChainMatch{}
	for _, h := range s.Server.Hosts {
		if h.Host == "*" {
			match.ServerNames = nil
			break
		}
		match.ServerNames = append(match.ServerNames, h.Host)
	}
	slices.Sort(match.ServerNames)
	match.ServerNames = slices.Compact(match.ServerNames)
	return append(named, &listenerv3.FilterChain{Name: tlsRouteName(s), Metadata: origin, FilterChainMatch: match, TransportSocket: terminate,
		Filters: filters})
}

// terminatedTLS gives the chains of TLSRoutes at a server that ends TLS: the server name chooses the route, what was encrypted is
// relayed. Routes for TLS of VirtualServices are for passthrough alone, as in Istio.
func (g *Generator) terminatedTLS(s view.Place) []*listenerv3.FilterChain {
	if s.Server.Protocol != model.TLS {
		return nil
	}
	terminate := transport.Server(s.Server, nil)
	if terminate == nil {
		return nil
	}
	var chains []*listenerv3.FilterChain
	for _, set := range g.view.RouteSetsAt(s) {
		if !set.ByPrecedence {
			continue
		}
		more, _ := g.tlsChains(set, s)
		for _, c := range more {
			c.TransportSocket, c.Filters = terminate, append(g.networkPolicies(), c.Filters...)
		}
		chains = append(chains, more...)
	}
	return chains
}

// gatewayTCP gives the chains of the TCP routes that name the server.
func (g *Generator) gatewayTCP(s view.Place) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	for _, set := range g.view.RouteSetsAt(s) {
		more, closed := g.tcpChains(set, s)
		for _, c := range more {
			c.Filters = append(g.networkPolicies(), c.Filters...)
		}
		chains = append(chains, more...)
		if closed {
			break
		}
	}
	return chains
}

// gatewayRoute gives the route table of a gateway's port, or of one of its servers with TLS.
func (g *Generator) gatewayRoute(name string) (*routev3.RouteConfiguration, bool) {
	for _, set := range g.view.Servers() {
		switch set.Kind() {
		case model.HTTP:
			if name == wire.GatewayRouteName(set.Port) {
				return g.gatewayTable(name, set.Servers), true
			}
		case model.TLS:
			for i, s := range set.Servers {
				if s.Server.Protocol == model.HTTPS && name == tlsRouteName(s) {
					return g.gatewayTable(name, append([]view.Place{s}, set.Also[i]...)), true
				}
			}
		}
	}
	return nil, false
}

// hostRoutes collects what a virtual host is made of.
type hostRoutes struct {
	places   []view.Place
	sets     [][]*model.RouteSet // by place
	redirect bool
	isolated bool // also without routes
}

// gatewayTable has a virtual host for each host of a route set that a server takes. Route sets for one host are merged, those first that
// count first for the node; a host that should be asked for over TLS only redirects there.
func (g *Generator) gatewayTable(name string, servers []view.Place) *routev3.RouteConfiguration {
	hosts := map[string]*hostRoutes{}
	at := func(h string) *hostRoutes {
		if hosts[h] == nil {
			hosts[h] = &hostRoutes{}
		}
		return hosts[h]
	}
	for _, s := range servers {
		if s.Server.HTTPSRedirect {
			for _, h := range s.Server.Hosts {
				at(h.Host).redirect = true
			}
		}
		byHost := map[string][]*model.RouteSet{}
		for _, r := range g.view.RouteSetsAt(s) {
			for _, h := range s.Hosts(r) {
				byHost[h] = append(byHost[h], r)
			}
		}
		for h, sets := range byHost {
			v := at(h)
			v.redirect = v.redirect || s.Server.HTTPSRedirect
			v.places, v.sets = append(v.places, s), append(v.sets, sets)
		}
	}
	table := &routev3.RouteConfiguration{Name: name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true}
	if servers[0].Server.Protocol != model.HTTPS {
		isolate(hosts, servers)
	} else if v := misdirected(hosts, servers); v != nil {
		table.VirtualHosts = append(table.VirtualHosts, v)
	}
	for _, h := range slices.SortedFunc(maps.Keys(hosts), cmp.Compare[string]) {
		if routes := g.hostRoutes(hosts[h]); len(routes) > 0 || hosts[h].isolated {
			table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{Name: h, Domains: []string{h}, Routes: routes, IncludeRequestAttemptCount: true})
		}
	}
	return table
}

func (g *Generator) hostRoutes(v *hostRoutes) []*routev3.Route {
	if v.redirect {
		return []*routev3.Route{{
			Name:  "https-redirect",
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{
				SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true}}},
		}}
	}
	// The same set may be attached through several servers of the port; it counts once, where it comes first. Those of several
	// gateways are as old as they are, whichever gateway is older.
	var all []candidate
	seen := map[*model.RouteSet]bool{}
	for i, p := range v.places {
		for _, s := range v.sets[i] {
			if !seen[s] {
				seen[s] = true
				all = append(all, g.candidates(s, p)...)
			}
		}
	}
	if len(v.places) > 1 {
		slices.SortStableFunc(all, func(a, b candidate) int { return g.view.Compare(a.set, b.set) })
	}
	return g.inOrder(all)
}

// uniqueMatches drops chains whose match an earlier one has, and of others the server names that an earlier one has: the older object's
// count. Envoy refuses a listener with two such chains.
func uniqueMatches(chains []*listenerv3.FilterChain) []*listenerv3.FilterChain {
	seen := map[string]bool{}
	var out []*listenerv3.FilterChain
	for _, c := range chains {
		match, _ := proto.Clone(c.GetFilterChainMatch()).(*listenerv3.FilterChainMatch)
		names := match.GetServerNames()
		if match != nil {
			match.ServerNames = nil
		}
		rest := string(message.Pack(match).GetValue())
		left := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return seen[n+"\x00"+rest] })
		if len(names) == 0 && seen["\x00"+rest] || len(names) > 0 && len(left) == 0 {
			continue
		}
		for _, n := range left {
			seen[n+"\x00"+rest] = true
		}
		if len(names) == 0 {
			seen["\x00"+rest] = true
		}
		if len(left) < len(names) {
			match.ServerNames = left
			c.FilterChainMatch = match
		}
		out = append(out, c)
	}
	return out
}
