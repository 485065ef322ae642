package proxy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// captured serves a connection of our workload that was redirected to us.
func (p *Proxy) captured(a listen.Accepted) {
	d := p.newConnection(a, downstream.Outbound)
	if !a.Redirected {
		// Somebody called the port itself; connecting "there" would call it again.
		d.turnAway(failure.Unroutable, "accept", errors.New("connection was not redirected here"))
		return
	}
	d.Address = wire.ListenerName(a.Destination.Addr().String(), a.Destination.Port())
	target, err := p.config.Resolve(p.ctx, d.Address)
	if err != nil {
		d.turnAway(failure.NoConfig, "resolve "+a.Destination.String(), err)
		return
	}
	d.ByAddress = target
	d.serveOutbound(target)
}

// explicit serves an outbound listener that stands for one service.
func (p *Proxy) explicit(destination string) func(listen.Accepted) {
	return func(a listen.Accepted) {
		d := p.newConnection(a, downstream.Outbound)
		host, port := message.HostPort(destination)
		d.Fixed = wire.ListenerName(host, port)
		d.Destination = netip.AddrPortFrom(a.Destination.Addr(), port)
		target, err := p.config.Resolve(p.ctx, d.Fixed)
		if err != nil {
			d.turnAway(failure.NoConfig, "resolve "+d.Fixed, err)
			return
		}
		d.ByAddress, d.Name = target, d.Fixed
		d.serveOutbound(target)
	}
}

// called serves a connection to an address that our workload's Sidecar has us listen at. Nothing is behind the address but what the mesh
// has there.
func (p *Proxy) called(a listen.Accepted, at netip.AddrPort) {
	d := p.newConnection(a, downstream.Outbound)
	d.Destination, d.Own = at, true
	d.Address = wire.ListenerName(at.Addr().String(), at.Port())
	target, err := p.config.Resolve(p.ctx, d.Address)
	if err != nil {
		d.turnAway(failure.NoConfig, "resolve "+d.Address, err)
		return
	}
	d.ByAddress = target
	d.serveOutbound(target)
}

// forwarder serves the listener of a forward proxy (HTTP_PROXY).
func (p *Proxy) forwarder(a listen.Accepted) {
	d := p.newConnection(a, downstream.Outbound)
	d.Tunnel, d.Destination, d.App = d.tunnel, netip.AddrPort{}, netip.AddrPort{}
	d.serveDetected(nil)
}

// serveOutbound finds the protocol as far as the target leaves it open, and serves it.
func (d *connection) serveOutbound(target *conf.Target) {
	http, tcp, byName := d.Protocols(target)
	switch {
	case byName: // chains by server name: the ClientHello comes first
		d.relayByName(target)
	case http && tcp == nil:
		d.serveDetected(nil)
	case !http && tcp == nil:
		d.turnAway(failure.NoChain, "route", fmt.Errorf("%s: no route is for connections to %s", target.Name, d.Destination))
	case !http:
		d.relayTCP(tcp, nil)
	default:
		d.serveDetected(d.newStream(tcp))
	}
}

// serveDetected serves HTTP if that is what comes, and relays anything else to s, which may be nil.
func (d *connection) serveDetected(s *stream) {
	var open func() (*upstream.Conn, error)
	if s != nil {
		open = s.openEarly
		defer s.release()
	}
	found, err := d.p.detect(d.conn, d.Destination.String(), open)
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
	if up := s.opened; up != nil {
		s.opened = nil
		return up, nil
	}
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
	if up == nil {
		up, s.opened = s.opened, nil
	}
	if up != nil {
		s.up = up
		s.to.Host.Begin()
	}
}

// relayByName routes TLS that is passed through by the name in its ClientHello.
func (d *connection) relayByName(t *conf.Target) {
	found, err := d.p.detect(d.conn, "", nil)
	d.conn = found.conn
	if err != nil {
		d.unheard(err)
		return
	}
	d.SNI = found.ServerName
	info := route.ConnInfo{Destination: d.Destination, Source: d.Remote.Addr(), ServerName: found.ServerName, ALPN: found.ALPN,
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

// tunnel prepares what follows a CONNECT to the target of that name. The upstream is connected at once wherever bytes may be relayed; HTTP
// in the tunnel is routed request by request, and TLS that is routed by its server name when that is known.
func (d *connection) tunnel(name string, target *conf.Target) *downstream.Tunnel {
	_, port := message.HostPort(name)
	inner := &connection{p: d.p, track: &track.Conn{Outbound: true}, Client: downstream.Client{Mesh: d.Mesh,
		Direction: downstream.Outbound, Remote: d.Remote, Direct: d.Direct, Local: d.Local, Fixed: name, Name: name, ByAddress: target,
		Destination: netip.AddrPortFrom(d.Local.Addr(), port), Port: port}}
	t := &downstream.Tunnel{Drop: func() {}}
	http, tcp, byName := inner.Protocols(target)
	var s *stream
	if tcp != nil && !byName {
		s = inner.newStream(tcp)
		t.Drop = s.release
		s.opened, t.Err = s.openEarly()
		t.Cluster, t.To = s.cluster, s.to
	}
	t.Serve = func(c conn.Conn) {
		carried, end := listen.Within(c)
		defer end()
		inner.accepted, inner.conn = carried, c
		switch {
		case s == nil:
			inner.serveOutbound(target)
		case http:
			inner.serveDetected(s)
		default:
			s.early(nil)
			inner.relayTCP(tcp, s)
		}
	}
	return t
}
