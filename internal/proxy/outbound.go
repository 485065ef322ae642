package proxy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// captured serves a connection of our workload that was redirected to us.
func (p *Proxy) captured(a listen.Accepted) {
	d := p.newDownstream(a, outbound)
	if !a.Redirected {
		// Somebody called the port itself; connecting "there" would call it again.
		d.turnAway(failure.Unroutable, "accept", errors.New("connection was not redirected here"))
		return
	}
	d.address = wire.ListenerName(a.Destination.Addr().String(), a.Destination.Port())
	target, err := p.config.Resolve(p.ctx, d.address)
	if err != nil {
		d.turnAway(failure.NoConfig, "resolve "+a.Destination.String(), err)
		return
	}
	d.byAddress = target
	d.serveOutbound(target)
}

// atAddress is what the connection's address means now: a connection may be kept for longer than a configuration.
func (d *downstream) atAddress() *conf.Target {
	if d.address != "" {
		if t, err := d.p.config.Resolve(d.p.ctx, d.address); err == nil {
			d.byAddress = t
		}
	}
	return d.byAddress
}

// explicit serves an outbound listener that stands for one service.
func (p *Proxy) explicit(destination string) func(listen.Accepted) {
	return func(a listen.Accepted) {
		d := p.newDownstream(a, outbound)
		host, port := hostPort(destination)
		d.fixed = wire.ListenerName(host, port)
		d.destination = netip.AddrPortFrom(a.Destination.Addr(), port)
		target, err := p.config.Resolve(p.ctx, d.fixed)
		if err != nil {
			d.turnAway(failure.NoConfig, "resolve "+d.fixed, err)
			return
		}
		d.byAddress, d.name = target, d.fixed
		d.serveOutbound(target)
	}
}

// forwarder serves the listener of a forward proxy (HTTP_PROXY).
func (p *Proxy) forwarder(a listen.Accepted) {
	d := p.newDownstream(a, outbound)
	d.forward, d.destination, d.app = true, netip.AddrPort{}, netip.AddrPort{}
	d.serveDetected(nil)
}

// serveOutbound finds the protocol as far as the target leaves it open, and serves it.
func (d *downstream) serveOutbound(target *conf.Target) {
	http, tcp, byName := protocols(target, d)
	switch {
	case byName: // chains by server name: the ClientHello comes first
		d.relayByName(target)
	case http && tcp == nil:
		d.serveDetected(nil)
	case !http && tcp == nil:
		d.turnAway(failure.NoChain, "route", fmt.Errorf("%s: no route is for connections to %s", target.Name, d.destination))
	case !http:
		d.relayTCP(tcp, nil)
	default:
		d.serveDetected(d.newStream(tcp))
	}
}

// protocols says what a target may carry. One that the mesh does not know may be anything.
func protocols(t *conf.Target, d *downstream) (http bool, tcp *conf.TCP, byName bool) {
	if t == nil {
		return true, d.passthrough(), false
	}
	for _, c := range t.Listener.Chains {
		http = http || c.HTTP != nil
		byName = byName || len(c.Match.ServerNames) > 0
	}
	if c := t.Listener.Default; c != nil {
		http = http || c.HTTP != nil
	}
	if c, _ := route.Chain(t.Listener, &route.ConnInfo{Destination: d.destination, Source: d.remote.Addr(), Transport: conf.RawTransport}); c != nil {
		tcp = c.TCP
	}
	return http || t.Routes != nil, tcp, byName
}

// passthrough is the chain of destinations that the mesh does not know: what the control plane says, or else the bootstrap file.
func (d *downstream) passthrough() *conf.TCP {
	if t := d.p.config.Snapshot().Unknown; t != nil && len(t.Clusters) > 0 {
		return t
	}
	cluster := wire.PassthroughCluster
	if d.p.opt.RegistryOnly {
		cluster = wire.BlackHoleCluster
	}
	return &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: cluster, Weight: 1}}, TotalWeight: 1}
}

// serveDetected serves HTTP if that is what comes, and relays anything else to s, which may be nil.
func (d *downstream) serveDetected(s *stream) {
	var open func() (*upstream.Conn, error)
	if s != nil {
		open = s.openEarly
		defer s.release()
	}
	found, err := d.p.detect(d.conn, d.destination.String(), open)
	d.conn = found.conn
	switch {
	case s != nil && s.err != nil && err != nil:
		s.record() // neither side spoke, and the upstream could not
	case err != nil:
		d.unheard(err)
	case s == nil, found.Protocol == listen.HTTP1, found.Protocol == listen.HTTP2:
		found.drop()
		d.serveVersion(found.Protocol)
	default:
		s.early(found.early)
		d.relayTCP(s.tcp, s)
	}
}

// openEarly opens the upstream before the client has said anything.
func (s *stream) openEarly() (*upstream.Conn, error) {
	if !s.authorize() || !s.open() {
		return nil, s.err
	}
	up := s.up
	s.up = nil
	s.to.Host.End() // counted again when it is used
	return up, nil
}

// early makes an upstream that was opened before the stream's own.
func (s *stream) early(up *upstream.Conn) {
	if up != nil {
		s.up = up
		s.to.Host.Begin()
	}
}

// relayByName routes TLS that is passed through by the name in its ClientHello.
func (d *downstream) relayByName(t *conf.Target) {
	found, err := d.p.detect(d.conn, "", nil)
	d.conn = found.conn
	if err != nil {
		d.unheard(err)
		return
	}
	d.sni = found.ServerName
	info := route.ConnInfo{Destination: d.destination, Source: d.remote.Addr(), ServerName: found.ServerName, ALPN: found.ALPN,
		Transport: conf.RawTransport}
	if found.Protocol == listen.TLS {
		info.Transport = conf.TLSTransport
	}
	chain, step := route.Chain(t.Listener, &info)
	switch {
	case chain == nil:
		d.turnAway(failure.NoChain, "route", fmt.Errorf("%s: no chain matches the %s (%q)", t.Name, step, found.ServerName))
	case chain.TCP != nil && (chain.HTTP == nil || found.Protocol != listen.HTTP1 && found.Protocol != listen.HTTP2):
		d.relayTCP(chain.TCP, nil)
	case chain.HTTP != nil:
		d.serveVersion(found.Protocol)
	}
}

// clusterFor gives a cluster, that of unknown destinations by the name if that is all there is.
func (p *Proxy) clusterFor(d *downstream, name string) *cluster.Cluster {
	if name == wire.PassthroughCluster && (d.forward || d.fixed != "") {
		return p.clusters.Outside(hostPort(d.name))
	}
	return p.clusters.Get(name)
}
