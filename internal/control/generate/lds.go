package generate

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Listener gives the listener of that name. Outbound ones hold an api_listener for protocols on which requests are routed, and
// filter chains for those that are relayed; a port that declares neither (Auto) has both.
func (g *Generator) Listener(name string) (proto.Message, bool) {
	if g.node.Role == wire.Gateway {
		for _, l := range g.GatewayListeners() {
			if l.Name == name {
				return l, true
			}
		}
	}
	if name == wire.InboundListener || name == wire.OutboundListener {
		switch {
		case g.node.Role != wire.Sidecar || g.node.Proxyless:
			return nil, false
		case name == wire.OutboundListener:
			return g.unknownListener(), true
		}
		return g.inboundListener(), true
	}
	host, port, err := wire.SplitListenerName(name)
	if err != nil {
		return nil, false
	}
	if e := g.egressTo(host, port); e != nil {
		l := g.egressListener(name, e)
		return l, l.ApiListener != nil || len(l.FilterChains) > 0
	}
	t, ok := g.view.Resolve(host, port)
	if !ok {
		return nil, false
	}
	l := g.outboundListener(name, t)
	return l, l.ApiListener != nil || len(l.FilterChains) > 0
}

func (g *Generator) outboundListener(name string, t *view.Target) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: name, TrafficDirection: corev3.TrafficDirection_OUTBOUND}
	protocol := t.Protocol()
	if protocol.IsHTTP() || protocol == model.Auto {
		l.ApiListener = &listenerv3.ApiListener{ApiListener: message.Pack(g.outboundHTTP(t))}
	}
	if !protocol.IsHTTP() && !(g.node.Proxyless && l.ApiListener != nil) {
		l.FilterChains = g.outboundChains(t)
	}
	return l
}

func (g *Generator) outboundHTTP(t *view.Target) *hcmv3.HttpConnectionManager {
	name := wire.RouteName(t.Host, t.Port)
	if t.Pinned.IsValid() {
		name = wire.RouteName(t.Pinned.String(), t.Port)
	}
	h := g.httpManager("outbound_" + name)
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: message.ADS(), RouteConfigName: name}}
	h.HttpFilters = g.outboundFilters(t.Protocol(), keepSessions(t.Sets))
	return h
}

// httpManager holds what all connection managers have in common, inbound, outbound and at gateways.
func (g *Generator) httpManager(stat string) *hcmv3.HttpConnectionManager {
	paths := g.mesh.Settings().Paths
	h := &hcmv3.HttpConnectionManager{
		StatPrefix:     stat,
		CodecType:      hcmv3.HttpConnectionManager_AUTO,
		NormalizePath:  wrapperspb.Bool(paths != model.NormalizeOff),
		MergeSlashes:   paths == model.MergeSlashes || paths == model.DecodeSlashes,
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		AccessLog:      g.accessLogs(),
	}
	if paths == model.DecodeSlashes {
		h.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	}
	return h
}

// outboundFilters answer for routes that other origins may use, inject the faults of routes, then route. No browser is behind a
// gRPC client, which refuses filters that it does not know.
func (g *Generator) outboundFilters(p model.Protocol, sessions bool) []*hcmv3.HttpFilter {
	if g.node.Proxyless {
		return []*hcmv3.HttpFilter{message.HTTPFilter(message.FaultFilter, &faultv3.HTTPFault{}), message.Router()}
	}
	filters := append(message.WebFilters(p), message.HTTPFilter(corsFilter, &corsv3.Cors{}), message.HTTPFilter(message.FaultFilter, &faultv3.HTTPFault{}))
	return append(append(append(filters, g.lookups()...), routing.SessionFilters(sessions)...), message.Router())
}

// outboundChains relays connections: by the TCP routes of the route sets, or by their TLS routes where the protocol is TLS.
func (g *Generator) outboundChains(t *view.Target) []*listenerv3.FilterChain {
	at := view.Place{Port: t.Port}
	var chains []*listenerv3.FilterChain
	var closed, ruled bool
	for _, s := range t.Sets {
		var more []*listenerv3.FilterChain
		if p := t.Protocol(); p == model.TLS || p == model.HTTPS {
			more, closed = g.tlsChains(s, at)
			// A TLSRoute decides about the port alone: other server names get nowhere.
			ruled = ruled || s.ByPrecedence && len(more) > 0
		}
		chains = append(chains, more...)
		if !closed {
			more, closed = g.tcpChains(s, at)
			chains = append(chains, more...)
		}
		if closed {
			return chains
		}
	}
	if t.Service == nil || ruled {
		return chains
	}
	relay := g.relayAs(t.Cluster(), t.Itself(), t.Port, &tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: t.Cluster()}})
	return append(chains, &listenerv3.FilterChain{Name: t.Cluster(), FilterChainMatch: ownNames(t),
		Filters: g.lookup([]*listenerv3.Filter{relay}, t.Itself(), t.Port)})
}

// tcpChains gives the chains of a set's TCP routes, and whether one of them takes every connection.
func (g *Generator) tcpChains(s *model.RouteSet, at view.Place) (chains []*listenerv3.FilterChain, closed bool) {
	for _, r := range s.TCP {
		matches := r.Matches
		if len(matches) == 0 {
			matches = []model.L4Match{{}}
		}
		for _, m := range matches {
			if !g.view.TakesL4(m, at) {
				continue
			}
			if !g.bound.part() {
				return nil, true
			}
			subnets, valid := message.Prefixes(m.DestinationSubnets)
			if !valid {
				continue
			}
			c := &listenerv3.FilterChain{Name: routeName(s.Ref, r.Field), Metadata: originMetadata(s.Ref, r.Field), Filters: []*listenerv3.Filter{g.relay(s, r.Destinations, at, r.Field)}}
			if len(subnets) > 0 {
				c.FilterChainMatch = &listenerv3.FilterChainMatch{PrefixRanges: subnets}
			}
			chains = append(chains, c)
			g.bound.done()
			if len(subnets) == 0 {
				return chains, true
			}
		}
	}
	return chains, false
}

// tlsChains gives the chains of a set's TLS routes, by server name.
func (g *Generator) tlsChains(s *model.RouteSet, at view.Place) (chains []*listenerv3.FilterChain, closed bool) {
	for _, r := range s.TLS {
		for _, m := range r.Matches {
			if !g.view.TakesL4(m, at) {
				continue
			}
			if !g.bound.part() {
				return nil, true
			}
			names := at.ServerNames(s, m.SNIHosts)
			subnets, valid := message.Prefixes(m.DestinationSubnets)
			if !valid || len(names) == 0 && len(m.SNIHosts) > 0 {
				continue
			}
			match := &listenerv3.FilterChainMatch{ServerNames: names, PrefixRanges: subnets}
			if slices.Contains(names, "*") {
				match.ServerNames = nil
			}
			c := &listenerv3.FilterChain{Name: routeName(s.Ref, r.Field), Metadata: originMetadata(s.Ref, r.Field), FilterChainMatch: match,
				Filters: g.lookup([]*listenerv3.Filter{g.relay(s, r.Destinations, at, r.Field)}, r.Destinations, at.Port)}
			chains = append(chains, c)
			g.bound.done()
			if len(match.ServerNames) == 0 && len(subnets) == 0 {
				return chains, true
			}
		}
	}
	return chains, false
}

// relay sends connections to the destinations of a route.
func (g *Generator) relay(s *model.RouteSet, destinations []model.WeightedDestination, at view.Place, field string) *listenerv3.Filter {
	stat := routeName(s.Ref, field)
	if len(destinations) == 1 {
		if destinations[0].Invalid != "" {
			return g.relayTo(stat, wire.BlackHoleCluster)
		}
		d := destinations[0]
		return g.relayAs(stat, destinations, at.Port, &tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: g.destinationCluster(d, at.Port)}})
	}
	var weighted []*tcpv3.TcpProxy_WeightedCluster_ClusterWeight
	tunnel := g.tunnel(destinations[0], at.Port)
	for _, d := range destinations {
		if d.Weight == 0 {
			continue
		}
		name := wire.BlackHoleCluster
		if d.Invalid == "" && sameTunnel(tunnel, g.tunnel(d, at.Port)) {
			name = g.destinationCluster(d, at.Port)
		}
		weighted = append(weighted, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: name, Weight: d.Weight})
	}
	if len(weighted) == 0 {
		return g.relayTo(stat, wire.BlackHoleCluster)
	}
	return g.relayAs(stat, destinations, at.Port, &tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_WeightedClusters{
		WeightedClusters: &tcpv3.TcpProxy_WeightedCluster{Clusters: weighted}}})
}

// relayAs completes a relay by what the DestinationRules of its destinations say about relayed connections.
func (g *Generator) relayAs(stat string, destinations []model.WeightedDestination, port uint16, m *tcpv3.TcpProxy) *listenerv3.Filter {
	m.AccessLog = g.accessLogs()
	m.StatPrefix, m.HashPolicy, m.IdleTimeout = stat, g.sourceHash(destinations, port), g.relayIdle(destinations, port)
	m.TunnelingConfig = tunneling(g.tunnel(destinations[0], port))
	if p := g.relayPool(destinations, port, func(p *model.ConnectionPool) bool { return p.MaxConnectionDuration > 0 }); p != nil {
		m.MaxDownstreamConnectionDuration = durationpb.New(p.MaxConnectionDuration)
	}
	return message.NetworkFilter(message.TCPFilter, m)
}

func (g *Generator) relayTo(stat, cluster string) *listenerv3.Filter {
	return message.NetworkFilter(message.TCPFilter, &tcpv3.TcpProxy{StatPrefix: stat, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster}, AccessLog: g.accessLogs()})
}
