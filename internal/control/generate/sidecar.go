package generate

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// unknownListener says what happens to connections to destinations that the mesh does not know.
func (g *Generator) unknownListener() *listenerv3.Listener {
	cluster := g.unknownCluster()
	return &listenerv3.Listener{Name: wire.OutboundListener, TrafficDirection: corev3.TrafficDirection_OUTBOUND, Metadata: g.proxySettings(),
		DefaultFilterChain: &listenerv3.FilterChain{Name: cluster, Filters: []*listenerv3.Filter{g.relayTo(cluster, cluster)}}}
}

func (g *Generator) unknownCluster() string {
	cluster := wire.PassthroughCluster
	closed := g.mesh.Settings().RegistryOnly
	if scope := g.view.Sidecar(); scope != nil && scope.Outbound != nil {
		closed = scope.Outbound.RegistryOnly
		if to := scope.Outbound.Proxy; to != nil && !closed {
			cluster = g.destinationCluster(*to, to.Port)
		}
	}
	if closed {
		cluster = wire.BlackHoleCluster
	}
	return cluster
}

// proxySettings tell a proxy how to run, beside a listener that it always has; nil where nobody says.
func (g *Generator) proxySettings() *corev3.Metadata {
	fields := map[string]*structpb.Value{}
	if n := g.view.Concurrency(); n != nil {
		fields[wire.Concurrency] = structpb.NewNumberValue(float64(*n))
	}
	outbound, inbound := g.view.Opened()
	for name, addresses := range map[string][]netip.AddrPort{wire.OpenOutbound: outbound, wire.OpenInbound: inbound} {
		if len(addresses) > 0 {
			fields[name] = addressList(addresses)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{wire.ProxySettings: {Fields: fields}}}
}

func addressList(addresses []netip.AddrPort) *structpb.Value {
	list := &structpb.ListValue{}
	for _, a := range addresses {
		list.Values = append(list.Values, structpb.NewStringValue(a.String()))
	}
	return structpb.NewListValue(list)
}

// egressTo finds what the node's Sidecar has at an address; nil for nothing.
func (g *Generator) egressTo(host string, port uint16) *model.Egress {
	a, err := netip.ParseAddr(host)
	if err != nil || g.node.Proxyless {
		return nil
	}
	return g.view.EgressTo(a.Unmap(), port)
}

// egressListener says what connections to an egress's own address mean. Requests are for the hosts that they name, which are asked for
// like all others: the listener itself knows none, and answers for those that do not exist. Nobody else is behind the address, so that
// nothing passes through.
func (g *Generator) egressListener(name string, e *model.Egress) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: name, TrafficDirection: corev3.TrafficDirection_OUTBOUND}
	chains, requests := g.egressChains(e)
	l.FilterChains = chains
	if requests {
		h := g.egressManager(name, false)
		h.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: name,
			ValidateClusters: wrapperspb.Bool(false)}}
		l.ApiListener = &listenerv3.ApiListener{ApiListener: message.Pack(h)}
	}
	return l
}

func (g *Generator) egressManager(name string, sessions bool) *hcmv3.HttpConnectionManager {
	h := g.httpManager("outbound_" + name)
	h.HttpFilters = g.outboundFilters(model.HTTP, sessions)
	return h
}

// egressChains relay to the services of an egress: TLS by server name, else to the one whose connections say no more, the first by
// host. requests says that there may be any.
func (g *Generator) egressChains(e *model.Egress) (chains []*listenerv3.FilterChain, requests bool) {
	requests = e.Protocol.IsHTTP() || e.Protocol == model.Auto
	var opaque []*listenerv3.FilterChain
	for _, t := range g.view.Targets(e) {
		p := t.Protocol()
		if requests = requests || p.IsHTTP() || p == model.Auto; p.IsHTTP() {
			continue
		}
		for _, c := range g.outboundChains(t) {
			if t.Service != nil {
				c = byName(c, t.Service, p)
			}
			if m := c.GetFilterChainMatch(); len(m.GetServerNames()) > 0 || len(m.GetPrefixRanges()) > 0 {
				chains = append(chains, c)
			} else {
				opaque = append(opaque, c)
			}
		}
	}
	return uniqueMatches(append(chains, opaque...)), requests
}
