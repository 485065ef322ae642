package generate

import (
	"cmp"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	udpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

const udpFilter = "envoy.filters.udp_listener.udp_proxy"

// datagramListener relays the datagrams of a port by the oldest route of its servers; nil where there is none.
//
// Envoy's filter knows neither weights nor policies. Our own proxies read both from the listener's metadata; another one, which would
// pass everything to one backend, gets no such listener.
func (g *Generator) datagramListener(set *view.ServerSet) *listenerv3.Listener {
	s, routes, route := g.datagramRoute(set)
	if route == nil {
		return nil
	}
	config := &udpv3.UdpProxyConfig{StatPrefix: routeName(routes.Ref, route.Field), AccessLog: g.accessLogs()}
	if g.sourceHash(route.Destinations, set.Port) != nil {
		config.HashPolicies = []*udpv3.UdpProxyConfig_HashPolicy{{PolicySpecifier: &udpv3.UdpProxyConfig_HashPolicy_SourceIp{SourceIp: true}}}
	}
	split := g.datagramSplit(route.Destinations)
	config.RouteSpecifier = &udpv3.UdpProxyConfig_Cluster{Cluster: split[0].Name}
	more := map[string]*anypb.Any{}
	for i, f := range g.networkPolicies() {
		more[wire.DatagramPolicies+strconv.Itoa(i)] = f.GetTypedConfig()
	}
	if len(split) > 1 {
		more[wire.DatagramSplit] = message.Pack(&tcpv3.TcpProxy_WeightedCluster{Clusters: split})
	}
	if len(more) > 0 && g.node.Classic {
		return nil
	}
	address := message.SocketAddress(cmp.Or(s.Server.Bind, "0.0.0.0"), set.Port)
	address.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	l := &listenerv3.Listener{Name: wire.GatewayUDPListenerName(set.Port), Address: address, TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		Metadata:          g.proxySettings(),
		UdpListenerConfig: &listenerv3.UdpListenerConfig{DownstreamSocketConfig: &corev3.UdpSocketConfig{}},
		ListenerFilters:   []*listenerv3.ListenerFilter{{Name: udpFilter, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(config)}}}}
	if len(more) > 0 {
		if l.Metadata == nil {
			l.Metadata = &corev3.Metadata{}
		}
		l.Metadata.TypedFilterMetadata = more
	}
	return l
}

// datagramRoute finds the rule for the datagrams of a port.
func (g *Generator) datagramRoute(set *view.ServerSet) (view.Place, *model.RouteSet, *model.UDPRoute) {
	for _, s := range set.Servers {
		for _, r := range g.view.RouteSetsAt(s) {
			if len(r.UDP) > 0 {
				return s, r, &r.UDP[0]
			}
		}
	}
	return view.Place{}, nil, nil
}

// datagramSplit gives the clusters of destinations with their weights, the heaviest first; never none.
func (g *Generator) datagramSplit(destinations []model.WeightedDestination) []*tcpv3.TcpProxy_WeightedCluster_ClusterWeight {
	var out []*tcpv3.TcpProxy_WeightedCluster_ClusterWeight
	for _, d := range destinations {
		name := wire.BlackHoleCluster
		if s := g.view.Service(d.Host); d.Invalid == "" && s != nil {
			name = wire.DatagramCluster(d.Port, s.Host)
		}
		if d.Weight > 0 {
			out = append(out, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: name, Weight: d.Weight})
		}
	}
	if len(out) == 0 {
		out = append(out, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: wire.BlackHoleCluster, Weight: 1})
	}
	slices.SortStableFunc(out, func(a, b *tcpv3.TcpProxy_WeightedCluster_ClusterWeight) int { return int(b.Weight) - int(a.Weight) })
	return out
}

// datagramClusters names the clusters that the node's listeners for datagrams lead to.
func (g *Generator) datagramClusters() []string {
	var names []string
	for _, set := range g.view.Servers() {
		if _, _, route := g.datagramRoute(set); set.UDP && route != nil {
			for _, c := range g.datagramSplit(route.Destinations) {
				if c.Name != wire.BlackHoleCluster {
					names = append(names, c.Name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
