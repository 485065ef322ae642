package generate

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/envoy"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// classicResource gives a resource to an Envoy.
func (g *Generator) classicResource(typeURL, name string) (proto.Message, bool) {
	secrets := envoy.Secrets{Dir: g.node.SecretsDir}
	switch {
	case typeURL == ListenerType && g.node.Role == wire.Sidecar:
		l := g.classicListener(name)
		if l == nil {
			return nil, false
		}
		return secrets.Listener(l), true
	case typeURL == RouteType && g.node.Role == wire.Sidecar:
		if port, err := strconv.ParseUint(name, 10, 16); err == nil {
			return envoy.Routes(g.portTable(name, uint16(port), g.otherHosts())), true
		}
		if a, err := addressOf(name); err == nil && g.view.EgressTo(a.Addr(), a.Port()) != nil {
			return envoy.Routes(g.portTable(name, a.Port())), true
		}
	}
	m, ok := g.resource(typeURL, name)
	switch m := m.(type) {
	case *listenerv3.Listener:
		return secrets.Listener(m), ok
	case *routev3.RouteConfiguration:
		return envoy.Routes(m), ok
	case *clusterv3.Cluster:
		g.relayOnly(m)
		return secrets.Cluster(m), ok
	}
	return m, ok
}

// relayOnly has connections to a port of undeclared protocol relayed as bytes: an Envoy that found requests on some of them would have
// to offer another ALPN for those.
func (g *Generator) relayOnly(c *clusterv3.Cluster) {
	direction, port, _, host, ok := wire.ParseCluster(c.Name)
	if !ok || direction != "outbound" {
		return
	}
	if s, _ := g.view.Backing(host); s != nil && s.Port(port) != nil && s.Port(port).Protocol == model.Auto {
		c.TypedExtensionProtocolOptions = nil
	}
}

// classicNames lists the listeners of a sidecar that is an Envoy.
func (g *Generator) classicNames() []string {
	names := []string{wire.OutboundListener, wire.InboundListener}
	for s := range g.mesh.AllServices() {
		if g.view.Behind(s) != s {
			continue
		}
		for _, p := range s.Ports {
			if g.view.Reaches(s, p.Number) {
				names = append(names, g.addressesOf(s, p)...)
			}
		}
	}
	for _, port := range g.routedPorts() {
		names = append(names, wire.GatewayListenerName(port))
	}
	names = append(names, g.sidecarListeners()...)
	slices.Sort(names)
	return slices.Compact(names)
}

// sidecarListeners names the listeners of addresses that the Sidecar names.
func (g *Generator) sidecarListeners() []string {
	var names []string
	if scope := g.view.Sidecar(); scope != nil {
		for _, e := range scope.Egress {
			if e.Bind.IsValid() {
				names = append(names, addressListenerName(e.Bind, e.Port))
			}
		}
	}
	_, inbound := g.view.Opened()
	for _, a := range inbound {
		names = append(names, openInbound+addressListenerName(a.Addr(), a.Port()))
	}
	return names
}

// classicClusters names the clusters that our own proxies ask for one by one: of the endpoints of headless services, and those that
// gateways find by server name.
func (g *Generator) classicClusters() []string {
	var names []string
	if g.node.Role == wire.Gateway {
		for _, set := range g.view.Servers() {
			for _, s := range set.Servers {
				if s.Server.TLS != nil && s.Server.TLS.Mode == model.TLSAutoPassthrough {
					for _, c := range g.autoPassthrough(s) {
						names = append(names, c.Name)
					}
				}
			}
		}
		return append(names, g.datagramClusters()...)
	}
	for s := range g.mesh.AllServices() {
		if !s.Headless || !g.view.Visible(s) {
			continue
		}
		for _, p := range s.Ports {
			for _, e := range g.mesh.Endpoints(s) {
				if a, err := netip.ParseAddr(e.Address); err == nil && !p.Protocol.IsHTTP() {
					names = append(names, wire.OutboundCluster(p.Number, "", view.PinnedHost(a, s.Host)))
				}
			}
		}
	}
	return names
}

// addressesOf names the listeners that take connections to a service's port: the port's own for requests and where there is no
// address but ranges, else one for each address.
func (g *Generator) addressesOf(s *model.Service, p model.Port) []string {
	var names []string
	if p.Protocol.IsHTTP() {
		return []string{wire.GatewayListenerName(p.Number)}
	}
	for _, a := range s.Addresses {
		names = append(names, addressListenerName(a, p.Number))
	}
	if s.Headless {
		for _, e := range g.mesh.Endpoints(s) {
			if a, err := netip.ParseAddr(e.Address); err == nil {
				names = append(names, addressListenerName(a, p.Number))
			}
		}
	}
	if len(names) == 0 || len(s.Networks) > 0 {
		names = append(names, wire.GatewayListenerName(p.Number))
	}
	return names
}

func addressListenerName(a netip.Addr, port uint16) string {
	return a.String() + "_" + strconv.Itoa(int(port))
}

// classicListener gives the listener of that name; nil when there is none.
func (g *Generator) classicListener(name string) *listenerv3.Listener {
	switch name {
	case wire.OutboundListener:
		return g.virtualOutbound()
	case wire.InboundListener:
		return g.virtualInbound()
	}
	bare, entered := strings.CutPrefix(name, openInbound)
	at, err := addressOf(bare)
	switch {
	case err != nil:
		return nil
	case entered:
		return g.openInbound(name, at)
	}
	if e := g.view.EgressTo(at.Addr(), at.Port()); e != nil {
		return g.classicEgress(name, e)
	}
	if at.Addr().IsUnspecified() {
		return g.portListener(name, at.Port())
	}
	t, ok := g.view.ResolveAddress(at.Addr(), at.Port())
	if !ok || t.Protocol().IsHTTP() {
		return nil
	}
	l := g.handed(name, at.Addr(), at.Port())
	l.FilterChains = g.outboundChains(t)
	inspect(l)
	return l
}

// addressOf undoes addressListenerName.
func addressOf(name string) (netip.AddrPort, error) {
	host, number, _ := strings.Cut(name, "_")
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(number, 10, 16)
	return netip.AddrPortFrom(a, uint16(port)), err
}

// classicEgress is the listener of an egress's own address.
func (g *Generator) classicEgress(name string, e *model.Egress) *listenerv3.Listener {
	l := g.handed(name, e.Bind, e.Port)
	l.BindToPort = wrapperspb.Bool(e.Open)
	chains, requests := g.egressChains(e)
	if requests {
		h := g.egressManager(name, g.sessionsInMesh())
		h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: message.ADS(), RouteConfigName: name}}
		http := &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{message.NetworkFilter(message.HTTPManagerFilter, h)},
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: overPlain, ApplicationProtocols: plainHTTP}}
		chains = append([]*listenerv3.FilterChain{http}, chains...)
	}
	if len(chains) == 0 {
		return nil
	}
	l.FilterChains = chains
	inspect(l)
	return l
}

// openInbound begins the name of a listener that an Envoy has at a port of its workload, beside the one for what is captured.
const openInbound = "inbound_"

// openInbound is the listener of that name; nil where the Sidecar wants none.
func (g *Generator) openInbound(name string, at netip.AddrPort) *listenerv3.Listener {
	if _, inbound := g.view.Opened(); !slices.Contains(inbound, at) {
		return nil
	}
	l := &listenerv3.Listener{Name: name, Address: message.SocketAddress(at.Addr().String(), at.Port()), TrafficDirection: corev3.TrafficDirection_INBOUND}
	for _, c := range g.inboundListener().FilterChains {
		if c.FilterChainMatch.GetDestinationPort().GetValue() == uint32(at.Port()) {
			l.FilterChains = append(l.FilterChains, c)
		}
	}
	inspect(l)
	for _, f := range l.ListenerFilters {
		if f.Name == httpInspector {
			f.FilterDisabled = atPorts(g.opaquePorts())
		}
	}
	return l
}

// handed is a listener that binds nothing: it gets connections whose original destination it is.
func (g *Generator) handed(name string, a netip.Addr, port uint16) *listenerv3.Listener {
	return &listenerv3.Listener{Name: name, Address: message.SocketAddress(a.String(), port), BindToPort: wrapperspb.Bool(false),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND}
}

func (g *Generator) virtualOutbound() *listenerv3.Listener {
	return &listenerv3.Listener{Name: wire.OutboundListener, Address: message.SocketAddress("0.0.0.0", wire.OutboundPort),
		UseOriginalDst: wrapperspb.Bool(true), TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerv3.FilterChain{
			g.itself("virtualOutbound-blackhole", wire.OutboundPort),
			{Name: "virtualOutbound-catchall-tcp", Filters: []*listenerv3.Filter{g.relayTo(g.unknownCluster(), g.unknownCluster())}},
		}}
}

// itself refuses connections that were made to the capturing port and not redirected there: they would lead to it again.
func (g *Generator) itself(name string, port uint32) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{Name: name, FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(port)},
		Filters: []*listenerv3.Filter{g.relayTo(wire.BlackHoleCluster, wire.BlackHoleCluster)}}
}

// virtualInbound is what our own proxies have, with an address and what an Envoy needs to find out whither and what.
func (g *Generator) virtualInbound() *listenerv3.Listener {
	l := g.inboundListener()
	l.Address, l.ListenerFilters = message.SocketAddress("0.0.0.0", wire.InboundPort), []*listenerv3.ListenerFilter{
		listenerFilter(originalDst, &originalv3.OriginalDst{})}
	l.FilterChains = append([]*listenerv3.FilterChain{g.itself("virtualInbound-blackhole", wire.InboundPort)}, l.FilterChains...)
	inspect(l)
	for _, f := range l.ListenerFilters {
		if f.Name == httpInspector {
			f.FilterDisabled = atPorts(g.opaquePorts())
		}
	}
	return l
}

// opaquePorts are those on which no requests are looked for, so that nobody waits for a client that listens first.
func (g *Generator) opaquePorts() []uint16 {
	var out []uint16
	for _, p := range g.view.Ports() {
		if !p.Protocol.IsHTTP() && p.Protocol != model.Auto {
			out = append(out, p.Number)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// portListener takes what goes to a port at no address of its own: TLS by the server names of services that have none, plaintext
// requests by the port's route table, and the connections of one service that says no more. Anything else goes on.
func (g *Generator) portListener(name string, port uint16) *listenerv3.Listener {
	l := g.handed(name, netip.IPv4Unspecified(), port)
	requests, opaque := slices.Contains(g.routedPorts(), port), []*listenerv3.FilterChain(nil)
	protocol := model.HTTP // of the requests
	for s := range g.mesh.AllServices() {
		p := s.Port(port)
		if p == nil || g.view.Behind(s) != s || !g.view.Reaches(s, port) || !slices.Contains(g.addressesOf(s, *p), name) {
			continue
		}
		if p.Protocol.IsHTTP() {
			if requests = true; p.Protocol == model.GRPCWeb {
				protocol = p.Protocol
			}
			continue
		}
		t := &view.Target{Host: s.Host, Port: port, Service: s, Sets: g.view.RouteSets(s.Host, port, s)}
		for _, c := range g.outboundChains(t) {
			named := byNetwork(byName(c, s, p.Protocol), s)
			if m := named.GetFilterChainMatch(); len(m.GetServerNames()) > 0 || len(m.GetPrefixRanges()) > 0 {
				l.FilterChains = append(l.FilterChains, named)
			} else {
				opaque = append(opaque, named)
			}
		}
	}
	if requests {
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{Name: name,
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: overPlain, ApplicationProtocols: plainHTTP},
			Filters:          []*listenerv3.Filter{message.NetworkFilter(message.HTTPManagerFilter, g.portManager(port, protocol))}})
	}
	l.FilterChains = append(l.FilterChains, opaque...)
	if len(l.FilterChains) == 0 {
		return nil
	}
	inspect(l)
	l.DefaultFilterChain = &listenerv3.FilterChain{Name: "passthrough", Filters: []*listenerv3.Filter{g.relayTo(g.unknownCluster(), g.unknownCluster())}}
	return l
}

// byNetwork has a chain take connections to the service's ranges alone, unless a route has named others.
func byNetwork(c *listenerv3.FilterChain, s *model.Service) *listenerv3.FilterChain {
	if len(s.Networks) == 0 || len(c.GetFilterChainMatch().GetPrefixRanges()) > 0 {
		return c
	}
	if c.FilterChainMatch == nil {
		c.FilterChainMatch = &listenerv3.FilterChainMatch{}
	}
	for _, n := range s.Networks {
		c.FilterChainMatch.PrefixRanges = append(c.FilterChainMatch.PrefixRanges, message.CIDR(n))
	}
	return c
}

// byName gives a chain of a TLS service without address the service's own name to go by, unless a route has named others.
func byName(c *listenerv3.FilterChain, s *model.Service, p model.Protocol) *listenerv3.FilterChain {
	if p != model.TLS && p != model.HTTPS || len(c.GetFilterChainMatch().GetServerNames()) > 0 || s.Host == "*" || len(s.Networks) > 0 {
		return c
	}
	if c.FilterChainMatch == nil {
		c.FilterChainMatch = &listenerv3.FilterChainMatch{}
	}
	c.FilterChainMatch.ServerNames = []string{s.Host}
	return c
}

func (g *Generator) portManager(port uint16, protocol model.Protocol) *hcmv3.HttpConnectionManager {
	name := strconv.Itoa(int(port))
	h := g.httpManager("outbound_" + wire.GatewayListenerName(port))
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: message.ADS(), RouteConfigName: name}}
	h.HttpFilters = g.outboundFilters(protocol, g.sessionsInMesh())
	return h
}

// The classical configuration is for Envoys, which ask for everything beforehand, and is named as Istio names it:
//
//	listener  virtualOutbound, virtualInbound   what is captured; the former hands connections to the listener of their address
//	          0.0.0.0_9080                      requests to any service at that port, and TLS by server name
//	          10.78.0.4_3306                    connections to the address of a service, or of an endpoint of a headless one
//	          127.0.0.1_3306                    those to an address that the workload's Sidecar has for an egress
//	          inbound_10.77.0.4_9080            those to a port that it has the proxy listen at
//	route     9080                              the services of that port, a virtual host each
//	          127.0.0.1_9080                    the same for an address of the Sidecar's: nothing else is behind it
//
// Clusters and endpoints have the names and, but for how certificates are found, the contents that they have for our own proxies.
const (
	httpInspector = "envoy.filters.listener.http_inspector"
	originalDst   = "envoy.filters.listener.original_dst"
	// inspection bounds the wait for a client's first bytes; servers of some protocols speak first.
	inspection = 5 * time.Second
)

// inspect adds the filters that a listener's chains need, and drops chains that an Envoy would refuse as the same.
func inspect(l *listenerv3.Listener) {
	l.FilterChains = uniqueMatches(l.FilterChains)
	byTLS, byHTTP := false, false
	for _, c := range l.FilterChains {
		m := c.GetFilterChainMatch()
		byTLS = byTLS || m.GetTransportProtocol() != "" || len(m.GetServerNames()) > 0
		byHTTP = byHTTP || slices.ContainsFunc(m.GetApplicationProtocols(), func(p string) bool { return slices.Contains(plainHTTP, p) })
	}
	if byTLS {
		l.ListenerFilters = append(l.ListenerFilters, listenerFilter(message.TLSInspector, &tlsinspectorv3.TlsInspector{}))
	}
	if byHTTP {
		l.ListenerFilters = append(l.ListenerFilters, listenerFilter(httpInspector, &inspectorv3.HttpInspector{}))
	}
	if byTLS || byHTTP {
		l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = durationpb.New(inspection), true
	}
}

func listenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(m)}}
}

func atPorts(ports []uint16) *listenerv3.ListenerFilterChainMatchPredicate {
	if len(ports) == 0 {
		return nil
	}
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1}}})
	}
	if len(rules) == 1 {
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules}}}
}
