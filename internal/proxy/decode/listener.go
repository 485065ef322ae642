package decode

import (
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	udpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/transport"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

func (d *decoder) listener(m *listenerv3.Listener) *conf.Listener {
	d.Only(m, "name", "address", "filter_chains", "default_filter_chain", "traffic_direction", "listener_filters", "api_listener",
		// Without effect: the proxy captures and sniffs in its own way, whatever the listener filters say of it.
		"use_original_dst", "bind_to_port", "listener_filters_timeout", "continue_on_listener_filters_timeout", "stat_prefix",
		"enable_reuse_port", "metadata", "udp_listener_config")
	d.resource = "listener " + m.GetName()
	l := &conf.Listener{Name: m.GetName(), Direction: direction(m)}
	if v := m.GetMetadata().GetFilterMetadata()[wire.ProxySettings].GetFields()[wire.Concurrency]; v != nil {
		if l.Concurrency = int(min(v.GetNumberValue(), maxConcurrency)); l.Concurrency <= 0 {
			l.Concurrency = -1
		}
	}
	d.At("metadata", func() {
		l.Opens = append(d.opens(m, wire.OpenOutbound, "outbound"), d.opens(m, wire.OpenInbound, "inbound")...)
	})
	if m.GetAddress() != nil {
		d.At("address", func() { l.Address = d.bindAddress(m.GetAddress()) })
	}
	if u := m.GetUdpListenerConfig(); u != nil {
		d.At("udp_listener_config", func() { d.quicListener(u, l) })
	} else if m.GetAddress().GetSocketAddress().GetProtocol() == corev3.SocketAddress_UDP {
		d.Fail("udp_listener_config: is required for a UDP address")
	}
	walk.Each(d.Walk, "listener_filters", m.GetListenerFilters(), func(f *listenerv3.ListenerFilter) { d.listenerFilter(f, l) })
	walk.Each(d.Walk, "filter_chains", m.GetFilterChains(), func(c *listenerv3.FilterChain) { l.Chains = append(l.Chains, d.chain(c)) })
	if m.GetDefaultFilterChain() != nil {
		d.At("default_filter_chain", func() {
			l.Default = d.chain(m.GetDefaultFilterChain())
			if m.GetDefaultFilterChain().GetFilterChainMatch() != nil {
				d.Fail("filter_chain_match: has no place here")
			}
		})
	}
	if a := m.GetApiListener(); a != nil {
		d.At("api_listener", func() { d.apiListener(a, l) })
	}
	switch {
	case l.QUIC:
		d.overQUIC(l)
	case m.GetUdpListenerConfig() != nil:
		d.overUDP(m, l)
	}
	for i, c := range append(slices.Clone(l.Chains), l.Default) {
		if c != nil && len(c.Gates) > 0 && (l.QUIC || l.Direction == "outbound") {
			d.At("filter_chains["+strconv.Itoa(i)+"]", func() { d.Fail("limits of connections are for inbound listeners and for gateways by TCP") })
		}
	}
	if len(l.Chains) == 0 && l.Default == nil && m.GetUdpListenerConfig() == nil {
		d.Fail("has neither api_listener nor filter chains")
	}
	return l
}

// maxOpens bounds the addresses of one list.
const maxOpens = 1000

// opens reads a list of addresses to listen at.
func (d *decoder) opens(m *listenerv3.Listener, key, direction string) (out []*conf.Listener) {
	list := m.GetMetadata().GetFilterMetadata()[wire.ProxySettings].GetFields()[key].GetListValue().GetValues()
	if len(list) > maxOpens {
		d.Fail("%s: has %d addresses, more than %d", key, len(list), maxOpens)
		return nil
	}
	for _, v := range list {
		a, err := netip.ParseAddrPort(v.GetStringValue())
		if err != nil || a.Port() == 0 {
			d.Fail("%s: %q is not an address with its port", key, v.GetStringValue())
			continue
		}
		out = append(out, &conf.Listener{Name: direction + " " + a.String(), Address: a, Direction: direction})
	}
	return out
}

// maxConcurrency is more cores than there are.
const maxConcurrency = 4096

func direction(m *listenerv3.Listener) string {
	switch {
	case m.GetName() == wire.InboundListener || m.GetTrafficDirection() == corev3.TrafficDirection_INBOUND:
		return "inbound"
	case m.GetAddress() != nil:
		return "gateway"
	}
	return "outbound"
}

func (d *decoder) bindAddress(m *corev3.Address) netip.AddrPort {
	host, port := d.Socket(m)
	a, err := netip.ParseAddr(host)
	if err != nil {
		d.Failed(err)
	}
	return netip.AddrPortFrom(a, port)
}

// listenerFilter decodes the PROXY protocol and admits the filters whose work the proxy always does.
func (d *decoder) listenerFilter(m *listenerv3.ListenerFilter, l *conf.Listener) {
	switch a := m.GetTypedConfig(); string(a.MessageName()) {
	case "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig":
		d.Only(m, "name", "typed_config")
		if l.Datagrams != nil {
			d.Fail("comes after a filter that takes all datagrams")
		}
		d.TypedConfig(a, func() {
			if v := (&udpv3.UdpProxyConfig{}); d.Typed(a, v) {
				l.Datagrams = d.datagrams(v)
			}
		})
		return
	case "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol":
		d.Only(m, "name", "typed_config")
		d.TypedConfig(a, func() {
			if v := (&proxyprotov3.ProxyProtocol{}); d.Typed(a, v) {
				l.ProxyProtocol = d.proxyProtocol(v)
			}
		})
		return
	}
	switch m.GetName() {
	case "envoy.filters.listener.tls_inspector", "envoy.filters.listener.http_inspector", "envoy.filters.listener.original_dst":
		d.Only(m, "name", "typed_config", "filter_disabled")
	default:
		d.Fail("listener filter %q is not supported", m.GetName())
	}
}

func (d *decoder) proxyProtocol(m *proxyprotov3.ProxyProtocol) *conf.ProxyProtocol {
	d.Only(m, "allow_requests_without_proxy_protocol", "disallowed_versions", "stat_prefix",
		"pass_through_tlvs") // without effect: nothing passes extensions on
	p := &conf.ProxyProtocol{Optional: m.GetAllowRequestsWithoutProxyProtocol()}
	walk.Each(d.Walk, "disallowed_versions", m.GetDisallowedVersions(), func(v corev3.ProxyProtocolConfig_Version) {
		switch v {
		case corev3.ProxyProtocolConfig_V1:
			p.Disallowed[1] = true
		case corev3.ProxyProtocolConfig_V2:
			p.Disallowed[2] = true
		default:
			d.Fail("version %s is not known", v)
		}
	})
	return p
}

// apiListener joins the HTTP part of an outbound destination with its chains, as conf.Chain says.
func (d *decoder) apiListener(m *listenerv3.ApiListener, l *conf.Listener) {
	d.Only(m, "api_listener")
	var http *conf.HTTP
	d.At("api_listener", func() {
		if hcm := (&hcmv3.HttpConnectionManager{}); d.Typed(m.GetApiListener(), hcm) {
			http = d.http(hcm)
		}
	})
	if l.Direction != "outbound" {
		d.Fail("is for outbound destinations only")
	}
	for _, c := range l.Chains {
		if matchesAll(&c.Match) && c.HTTP == nil {
			c.HTTP = http
			return
		}
	}
	l.Chains = append(l.Chains, &conf.Chain{Name: l.Name, HTTP: http})
}

func matchesAll(m *conf.ChainMatch) bool {
	return m.DestinationPort == 0 && len(m.Destination) == 0 && len(m.ServerNames) == 0 && m.Transport == conf.AnyTransport &&
		len(m.ALPN) == 0 && len(m.SourcePrefixes) == 0 && len(m.DirectPrefixes) == 0
}

func (d *decoder) chain(m *listenerv3.FilterChain) *conf.Chain {
	d.Only(m, "name", "filter_chain_match", "filters", "transport_socket", "metadata")
	istio := walk.Metadata(m.GetMetadata(), "istio")
	c := &conf.Chain{Name: m.GetName(), Object: istio("config"), Field: istio("field")}
	d.At("filter_chain_match", func() { c.Match = d.chainMatch(m.GetFilterChainMatch()) })
	if t := m.GetTransportSocket(); t != nil {
		d.At("transport_socket", func() { c.TLS = transport.Downstream(d.Walk, t) })
	}
	var rbac []*conf.RBAC
	walk.Each(d.Walk, "filters", m.GetFilters(), func(f *listenerv3.Filter) {
		if c.HTTP != nil || c.TCP != nil {
			d.Fail("comes after a filter that ends the chain")
			return
		}
		rbac = append(rbac, d.networkFilter(f, c)...)
	})
	switch {
	case c.HTTP != nil:
		c.HTTP.RBAC = append(rbac, c.HTTP.RBAC...)
	case c.TCP != nil:
		c.TCP.RBAC = rbac
	default:
		d.At("filters", func() { d.Fail("end in neither http_connection_manager nor tcp_proxy") })
	}
	return c
}

func (d *decoder) chainMatch(m *listenerv3.FilterChainMatch) conf.ChainMatch {
	d.Only(m, "destination_port", "prefix_ranges", "source_prefix_ranges", "direct_source_prefix_ranges", "server_names",
		"transport_protocol", "application_protocols")
	c := conf.ChainMatch{
		DestinationPort: d.Port("destination_port", m.GetDestinationPort().GetValue()),
		Destination:     d.CIDRs("prefix_ranges", m.GetPrefixRanges()),
		ServerNames:     m.GetServerNames(),
		ALPN:            m.GetApplicationProtocols(),
	}
	c.DirectPrefixes = d.CIDRs("direct_source_prefix_ranges", m.GetDirectSourcePrefixRanges())
	c.SourcePrefixes = d.CIDRs("source_prefix_ranges", m.GetSourcePrefixRanges())
	switch t := m.GetTransportProtocol(); t {
	case "":
	case "tls":
		c.Transport = conf.TLSTransport
	case "raw_buffer":
		c.Transport = conf.RawTransport
	default:
		d.At("transport_protocol", func() { d.Fail("%q is not supported", t) })
	}
	walk.Each(d.Walk, "server_names", m.GetServerNames(), func(n string) {
		if n == "" || n == "*" {
			d.Fail("%q is not a server name", n)
		}
		d.domain(n)
	})
	return c
}
