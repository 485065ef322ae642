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
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// serverSet is all servers of a gateway workload on one port. Those whose kind of protocol is not the first one's cannot share it
// and are left out.
type serverSet struct {
	port    uint16
	udp     bool
	servers []place
	// also are, for servers by position, the places that share their hosts.
	also map[int][]place
}

// socketKey names a port: those of UDP are others than those of TCP.
type socketKey struct {
	port uint16
	udp  bool
}

// kind of the set: requests, TLS by server name, opaque connections, or datagrams.
func kindOf(p model.Protocol) model.Protocol {
	switch p {
	case model.HTTPS, model.TLS:
		return model.TLS
	case model.TCP, model.UDP:
		return p
	}
	return model.HTTP
}

func (s *serverSet) kind() model.Protocol { return kindOf(s.servers[0].server.Protocol) }

// protocol of a set of kind HTTP, whose servers share a connection manager: gRPC-Web if one of them says so.
func (s *serverSet) protocol() model.Protocol {
	if slices.ContainsFunc(s.servers, func(p place) bool { return p.server.Protocol == model.GRPCWeb }) {
		return model.GRPCWeb
	}
	return s.servers[0].server.Protocol
}

// serverSets gives the node's ports in ascending order; none unless it is a gateway. A node without labels is one that the mesh does
// not know (see package serve): it gets none either, not even those of a Gateway that selects all, because keys come with them.
func (g *Generator) serverSets() []*serverSet {
	if g.node.Role != wire.Gateway || len(g.node.Labels) == 0 {
		return nil
	}
	byPort := map[socketKey]*serverSet{}
	for _, gw := range g.mesh.Gateways() {
		if gw.SelectorNamespace != "" && gw.SelectorNamespace != g.node.Namespace || !subsetOf(gw.Selector, g.node.Labels) {
			continue
		}
		for i := range gw.Servers {
			s := &gw.Servers[i]
			key := socketKey{s.Port, s.Protocol == model.UDP}
			set := byPort[key]
			if set == nil {
				set = &serverSet{port: s.Port, udp: key.udp}
				byPort[key] = set
			}
			if len(set.servers) == 0 || set.kind() == kindOf(s.Protocol) {
				set.servers = append(set.servers, place{port: s.Port, gateway: gw, server: s})
			}
		}
	}
	var out []*serverSet
	for _, key := range slices.SortedFunc(maps.Keys(byPort), func(a, b socketKey) int {
		return cmp.Or(cmp.Compare(a.port, b.port), compareBool(a.udp, b.udp))
	}) {
		byPort[key].share()
		out = append(out, byPort[key])
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// share settles which server of a port ends TLS for a host that several have: the oldest. The routes of the others are reached there
// too if they would have asked the same of clients, as those of several Ingresses do; otherwise they are not: what a gateway asks of
// its clients is not to be got round at another's.
func (s *serverSet) share() {
	if s.kind() != model.TLS {
		return
	}
	owner := map[string]int{} // of hosts, by position in kept
	var kept []place
	for _, p := range s.servers {
		if !ends(p.server) {
			kept = append(kept, p)
			continue
		}
		var own []model.GatewayHost
		shared := map[int][]model.GatewayHost{}
		for _, h := range p.server.Hosts {
			switch i, taken := owner[h.Host]; {
			case !taken || i == len(kept):
				owner[h.Host], own = len(kept), append(own, h)
			case model.AsksTheSame(kept[i].server, p.server):
				shared[i] = append(shared[i], h)
			}
		}
		for _, i := range slices.Sorted(maps.Keys(shared)) {
			if s.also == nil {
				s.also = map[int][]place{}
			}
			s.also[i] = append(s.also[i], p.only(shared[i]))
		}
		switch len(own) {
		case 0:
		case len(p.server.Hosts):
			kept = append(kept, p)
		default:
			kept = append(kept, p.only(own))
		}
	}
	s.servers = kept
}

// ends reports whether a server ends TLS.
func ends(s *model.Server) bool {
	return s.TLS != nil && s.TLS.Mode != model.TLSPassthrough && s.TLS.Mode != model.TLSAutoPassthrough
}

// gatewayClient is what the node shows to backends as a gateway: the oldest of its Gateways that says so decides.
func (g *Generator) gatewayClient() *model.KeyPair {
	if g.node.Role != wire.Gateway || len(g.node.Labels) == 0 {
		return nil
	}
	for _, gw := range g.mesh.Gateways() {
		if gw.Client != nil && (gw.SelectorNamespace == "" || gw.SelectorNamespace == g.node.Namespace) && subsetOf(gw.Selector, g.node.Labels) {
			return gw.Client
		}
	}
	return nil
}

// GatewayListeners gives all listeners that the node binds, in the order of their ports; none unless it is a gateway.
func (g *Generator) GatewayListeners() []*listenerv3.Listener {
	var out []*listenerv3.Listener
	for _, set := range g.serverSets() {
		if set.udp {
			if l := g.datagramListener(set); l != nil && !slices.ContainsFunc(out, func(o *listenerv3.Listener) bool { return o.Name == l.Name }) {
				out = append(out, l)
			}
			continue
		}
		l := &listenerv3.Listener{
			Name:             wire.GatewayListenerName(set.port),
			Address:          message.SocketAddress(firstOf(set.servers[0].server.Bind, "0.0.0.0"), set.port),
			TrafficDirection: corev3.TrafficDirection_OUTBOUND,
			Metadata:         g.proxySettings(),
		}
		l.ListenerFilters = g.headerFilter(set)
		switch set.kind() {
		case model.HTTP:
			filter := g.gatewayHTTP(wire.GatewayRouteName(set.port), set.port, set.protocol())
			l.FilterChains = []*listenerv3.FilterChain{{Name: l.Name, Filters: []*listenerv3.Filter{filter}}}
		case model.TLS:
			l.ListenerFilters = append(l.ListenerFilters, &listenerv3.ListenerFilter{Name: message.TLSInspector,
				ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(&tlsinspectorv3.TlsInspector{})}})
			for _, s := range set.servers {
				l.FilterChains = append(l.FilterChains, g.gatewayTLS(s)...)
			}
			l.FilterChains = uniqueMatches(append(l.FilterChains, g.closing(set.servers)...))
		case model.TCP:
			for _, s := range set.servers {
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
func tlsRouteName(p place) string {
	name := "https." + strconv.Itoa(int(p.port)) + "." + p.server.Name + "." + p.gateway.Ref.Name + "." + p.gateway.Ref.Namespace
	if kind := strings.ToLower(p.gateway.Ref.Kind); !strings.HasPrefix(kind, "gateway") || kind == "gateway.k8s" {
		name += "." + strings.TrimPrefix(kind, "gateway.")
	}
	return name
}

// gatewayTLS gives the chains of a server: one that terminates TLS, or those of the routes for TLS that is passed through.
func (g *Generator) gatewayTLS(s place) []*listenerv3.FilterChain {
	if s.server.TLS != nil && s.server.TLS.Mode == model.TLSAutoPassthrough {
		return g.autoPassthrough(s)
	}
	if s.server.TLS != nil && s.server.TLS.Mode == model.TLSPassthrough {
		var chains []*listenerv3.FilterChain
		for _, set := range g.setsAt(s) {
			more, _ := g.tlsChains(set, s)
			for _, c := range more {
				c.Filters = append(g.networkPolicies(), c.Filters...)
			}
			chains = append(chains, more...)
		}
		return chains
	}
	var filters []*listenerv3.Filter
	named := g.terminatedTLS(s)
	alpn := webHTTP
	if s.server.Protocol == model.HTTPS {
		filters = []*listenerv3.Filter{g.gatewayHTTP(tlsRouteName(s), s.port, s.server.Protocol)}
	} else if tcp := g.gatewayTCP(s); len(tcp) > 0 {
		filters, alpn = tcp[0].Filters, nil
	}
	terminate := transport.Server(s.server, alpn)
	if terminate == nil || len(filters) == 0 {
		return named
	}
	match := &listenerv3.FilterChainMatch{}
	for _, h := range s.server.Hosts {
		if h.Host == "*" {
			match.ServerNames = nil
			break
		}
		match.ServerNames = append(match.ServerNames, h.Host)
	}
	slices.Sort(match.ServerNames)
	match.ServerNames = slices.Compact(match.ServerNames)
	return append(named, &listenerv3.FilterChain{Name: tlsRouteName(s), FilterChainMatch: match, TransportSocket: terminate, Filters: filters})
}

// terminatedTLS gives the chains of TLSRoutes at a server that ends TLS: the server name chooses the route, what was encrypted is
// relayed. Routes for TLS of VirtualServices are for passthrough alone, as in Istio.
func (g *Generator) terminatedTLS(s place) []*listenerv3.FilterChain {
	if s.server.Protocol != model.TLS {
		return nil
	}
	terminate := transport.Server(s.server, nil)
	if terminate == nil {
		return nil
	}
	var chains []*listenerv3.FilterChain
	for _, set := range g.setsAt(s) {
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
func (g *Generator) gatewayTCP(s place) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	for _, set := range g.setsAt(s) {
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

// setsAt gives the route sets that name a server and have a host that it takes, in order of precedence.
func (g *Generator) setsAt(s place) []*model.RouteSet {
	var out []*model.RouteSet
	for _, r := range g.mesh.RouteSetsAt(s.gateway.Ref) {
		if s.named(r.Gateways) && r.ExportTo.VisibleFrom(r.Namespace, g.node.Namespace) && len(s.hosts(r)) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// gatewayRoute gives the route table of a gateway's port, or of one of its servers with TLS.
func (g *Generator) gatewayRoute(name string) (*routev3.RouteConfiguration, bool) {
	for _, set := range g.serverSets() {
		switch set.kind() {
		case model.HTTP:
			if name == wire.GatewayRouteName(set.port) {
				return g.gatewayTable(name, set.servers), true
			}
		case model.TLS:
			for i, s := range set.servers {
				if s.server.Protocol == model.HTTPS && name == tlsRouteName(s) {
					return g.gatewayTable(name, append([]place{s}, set.also[i]...)), true
				}
			}
		}
	}
	return nil, false
}

// hostRoutes collects what a virtual host is made of.
type hostRoutes struct {
	places   []place
	sets     [][]*model.RouteSet // by place
	redirect bool
	isolated bool // also without routes
}

// gatewayTable has a virtual host for each host of a route set that a server takes. Route sets for one host are merged, oldest
// first; a host that should be asked for over TLS only redirects there.
func (g *Generator) gatewayTable(name string, servers []place) *routev3.RouteConfiguration {
	hosts := map[string]*hostRoutes{}
	at := func(h string) *hostRoutes {
		if hosts[h] == nil {
			hosts[h] = &hostRoutes{}
		}
		return hosts[h]
	}
	for _, s := range servers {
		if s.server.HTTPSRedirect {
			for _, h := range s.server.Hosts {
				at(h.Host).redirect = true
			}
		}
		byHost := map[string][]*model.RouteSet{}
		for _, r := range g.setsAt(s) {
			for _, h := range s.hosts(r) {
				byHost[h] = append(byHost[h], r)
			}
		}
		for h, sets := range byHost {
			v := at(h)
			v.redirect = v.redirect || s.server.HTTPSRedirect
			v.places, v.sets = append(v.places, s), append(v.sets, sets)
		}
	}
	table := &routev3.RouteConfiguration{Name: name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true}
	if !endsTLS(servers) {
		isolate(hosts, servers)
	} else if v := misdirected(hosts, servers); v != nil {
		table.VirtualHosts = append(table.VirtualHosts, v)
	}
	for _, h := range slices.SortedFunc(maps.Keys(hosts), cmp.Compare[string]) {
		if routes := g.hostRoutes(hosts[h]); len(routes) > 0 || hosts[h].isolated {
			table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{Name: h, Domains: []string{h}, Routes: routes})
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
		slices.SortStableFunc(all, func(a, b candidate) int {
			return cmp.Or(a.set.Created.Compare(b.set.Created), a.set.Ref.CompareName(b.set.Ref))
		})
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
