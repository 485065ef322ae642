package generate

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// inboundListener is what a sidecar does with connections to its workload. Chains are matched as Envoy does it: destination port,
// then server name, transport protocol and application protocols, each level preferring a chain that names the value. So the
// chains without port are for all ports that nobody declared.
//
//	mode        mesh TLS     other TLS              plaintext
//	STRICT      terminated   terminated or refused  refused
//	PERMISSIVE  terminated   relayed to the app     taken
//	DISABLE     relayed      relayed                taken
//
// Under STRICT a chain does not ask for the mesh's ALPN: whoever shows a certificate of the mesh is let in. While the mode changes, what
// either mode takes is taken, and TLS that is not the mesh's is not relayed if one of them is STRICT.
func (g *Generator) inboundListener() *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:             wire.InboundListener,
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		ListenerFilters: []*listenerv3.ListenerFilter{{Name: message.TLSInspector,
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: message.Pack(&tlsinspectorv3.TlsInspector{})}}},
	}
	declared := map[uint16]bool{}
	for _, p := range slices.SortedFunc(slices.Values(g.view.Ports()), func(a, b model.WorkloadPort) int { return int(a.Number) - int(b.Number) }) {
		if declared[p.Number] {
			continue
		}
		declared[p.Number] = true
		l.FilterChains = append(l.FilterChains, g.portChains(p.Number, p.Protocol, wire.InboundCluster(p.Number), p.ServiceHost)...)
	}
	for _, port := range slices.Sorted(maps.Keys(g.view.MTLSPorts())) {
		if !declared[port] {
			l.FilterChains = append(l.FilterChains, g.portChains(port, model.Auto, wire.InboundPassthroughCluster, "")...)
		}
	}
	l.FilterChains = append(l.FilterChains, g.portChains(0, model.Auto, wire.InboundPassthroughCluster, "")...)
	return l
}

// inboundPort makes the chains of one port.
type inboundPort struct {
	g       *Generator
	number  uint16 // 0 for all that are not declared
	cluster string
	service string
	// protocol as it is declared
	protocol model.Protocol
	chains   []*listenerv3.FilterChain
}

func (g *Generator) portChains(number uint16, protocol model.Protocol, cluster, service string) []*listenerv3.FilterChain {
	p := &inboundPort{g: g, number: number, cluster: cluster, service: service, protocol: protocol}
	modes := g.view.OwnMTLSModes(number)
	strict := slices.Contains(modes, model.MTLSStrict)
	if strict || slices.Contains(modes, model.MTLSPermissive) {
		p.meshChains(strict)
	}
	if !strict || len(modes) > 1 {
		p.plainChains()
	}
	if !strict {
		p.add(overTLS, nil, nil, p.tcp())
	}
	return p.chains
}

// meshChains take mutual TLS.
func (p *inboundPort) meshChains(strict bool) {
	only := meshALPN
	if strict {
		only = nil
	}
	switch {
	case p.protocol.IsHTTP():
		p.add(overTLS, only, transport.Inbound(append([]string{wire.ALPNHTTP2, wire.ALPNHTTP1, wire.ALPNTCP}, webHTTP...)), p.http())
	case p.protocol == model.TCP || p.protocol == model.TLS || p.protocol == model.HTTPS:
		p.add(overTLS, only, transport.Inbound(meshALPN), p.tcp())
	default:
		p.add(overTLS, meshHTTP, transport.Inbound(meshHTTP), p.http())
		if strict {
			p.add(overTLS, webHTTP, transport.Inbound(webHTTP), p.http())
			p.add(overTLS, nil, transport.Inbound([]string{wire.ALPNTCP}), p.tcp())
		} else {
			p.add(overTLS, []string{wire.ALPNTCP}, transport.Inbound([]string{wire.ALPNTCP}), p.tcp())
		}
	}
}

// plainChains take plaintext.
func (p *inboundPort) plainChains() {
	switch {
	case p.protocol.IsHTTP():
		p.add(overPlain, nil, nil, p.http())
	case p.protocol == model.TCP || p.protocol == model.TLS || p.protocol == model.HTTPS:
		p.add(overPlain, nil, nil, p.tcp())
	default:
		p.add(overPlain, plainHTTP, nil, p.http())
		p.add(overPlain, nil, nil, p.tcp())
	}
}

func (p *inboundPort) add(transport string, alpn []string, tls *corev3.TransportSocket, filters []*listenerv3.Filter) {
	name := "inbound|" + strconv.Itoa(int(p.number)) + "|" + transport
	if p.number == 0 {
		name = "inbound|undeclared|" + transport
	}
	if tls != nil {
		name += "|mesh"
	}
	for _, a := range alpn {
		name += "|" + a
	}
	match := &listenerv3.FilterChainMatch{TransportProtocol: transport, ApplicationProtocols: alpn}
	if p.number != 0 {
		match.DestinationPort = wrapperspb.UInt32(uint32(p.number))
	}
	p.chains = append(p.chains, &listenerv3.FilterChain{Name: name, FilterChainMatch: match, TransportSocket: tls, Filters: filters})
}

func (p *inboundPort) tcp() []*listenerv3.Filter {
	return append(p.g.networkPolicies(), p.g.relayTo(p.cluster, p.cluster))
}

func (p *inboundPort) http() []*listenerv3.Filter {
	h := p.g.httpManager("inbound_" + strconv.Itoa(int(p.number)))
	h.HttpFilters = append(slices.Concat(message.WebFilters(p.protocol), p.g.requestPolicies(), p.g.rateLimits()), message.Router())
	// The application learns who calls from x-forwarded-client-cert; what a client claims there is believed only over mutual TLS.
	h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
	h.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
		Subject: wrapperspb.Bool(true), Dns: true, Uri: true}
	h.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: p.routes()}
	return []*listenerv3.Filter{message.NetworkFilter(message.HTTPManagerFilter, h)}
}

// routes sends every request to the workload, without time limit: limits are the client's. A connection that the application
// closed just before a request is no failure of the request, so that is tried again.
func (p *inboundPort) routes() *routev3.RouteConfiguration {
	operation := cmp.Or(p.service, p.g.node.Name) + ":" + strconv.Itoa(int(p.number)) + "/*"
	return &routev3.RouteConfiguration{
		Name:             p.cluster,
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{Name: "inbound|http|" + strconv.Itoa(int(p.number)), Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Name:      "default",
				Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Decorator: &routev3.Decorator{Operation: operation},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: p.cluster},
					Timeout:          durationpb.New(0),
					RetryPolicy:      &routev3.RetryPolicy{RetryOn: "reset-before-request", NumRetries: wrapperspb.UInt32(2)},
				}},
			}}}},
	}
}

// What the first bytes of a connection say, in filter chain matches.
const (
	overTLS   = "tls"
	overPlain = "raw_buffer"
)

var (
	// meshALPN are the protocols that only a proxy of the mesh offers.
	meshALPN = []string{wire.ALPNHTTP1, wire.ALPNHTTP2, wire.ALPNTCP}
	// meshHTTP are those that say that requests follow.
	meshHTTP = []string{wire.ALPNHTTP1, wire.ALPNHTTP2}
	// plainHTTP is what the inspection of a plaintext connection reports for requests.
	plainHTTP = []string{"http/1.0", "http/1.1", "h2c"}
	// webHTTP is what others than the mesh's proxies offer.
	webHTTP = []string{"h2", "http/1.1"}
)
