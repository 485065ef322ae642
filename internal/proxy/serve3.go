package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/http3"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// quic makes the server of HTTP/3 of a gateway's listener.
func (p *Proxy) quic(name string) bind.PacketServer {
	newest := func() *conf.Listener { return p.gatewayListener(name) }
	t, gate := p.traffic.get(name), p.guard.QUICGate()
	return http3.New(http3.Options{
		Log: p.log, DrainTime: p.opt.DrainTime, Closing: func() bool { return p.closing(false) },
		Full: gate.Refuses,
		TLS: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			l := newest()
			if l == nil {
				return nil, fmt.Errorf("listener %s is gone", name)
			}
			info := quicInfo(l, addrPortOf(hello.Conn.LocalAddr()), addrPortOf(hello.Conn.RemoteAddr()), hello.ServerName)
			chain, _ := route.Chain(l, &info)
			if chain == nil || chain.TLS == nil {
				return nil, fmt.Errorf("no filter chain is for server name %q", hello.ServerName)
			}
			return p.tls.get(p, chain.TLS)
		},
		Enter: func(c *http3.Conn) (any, error) {
			d, err := p.enterQUIC(c, newest)
			if err != nil {
				return nil, err
			}
			if !gate.Enter() {
				return nil, errors.New("there are as many connections as may be, or memory is short")
			}
			t.total.Add(1)
			t.active.Add(1)
			p.entered.Add(1)
			p.arrivedAt.Store(p.opt.Now().UnixNano())
			p.tracker.Add(d.track)
			return d, nil
		},
		Leave: func(d any) {
			p.tracker.Remove(d.(*connection).track)
			gate.Leave()
			t.active.Add(-1)
			p.entered.Add(-1)
		},
		Handle: func(d any, s *http3.Stream) { d.(*connection).serveStream3(s) },
	})
}

func (p *Proxy) gatewayListener(name string) *conf.Listener {
	for _, l := range p.config.Snapshot().Gateways {
		if l.Name == name {
			return l
		}
	}
	return nil
}

func addrPortOf(a interface{ String() string }) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func quicInfo(l *conf.Listener, local, remote netip.AddrPort, serverName string) route.ConnInfo {
	return route.ConnInfo{Destination: netip.AddrPortFrom(local.Addr(), l.Address.Port()), Source: remote.Addr(), Direct: remote.Addr(),
		Transport: conf.TLSTransport, ServerName: serverName, ALPN: []string{http3.NextProto}}
}

// enterQUIC takes a connection in, after its handshake.
func (p *Proxy) enterQUIC(c *http3.Conn, newest func() *conf.Listener) (*connection, error) {
	l := newest()
	if l == nil {
		return nil, errors.New("the listener is gone")
	}
	d := &connection{p: p, track: &track.Conn{Drain: leaves, Slow: c.Slow, Shed: c.Shed}, newest: newest, alpn: http3.NextProto, listener: l, Client: downstream.Client{Mesh: p.carrier.Mesh,
		Direction: downstream.Gateway, Remote: c.Remote, Direct: c.Remote, Local: c.Local, SNI: c.ServerName, Secure: true}}
	d.info = quicInfo(l, c.Local, c.Remote, c.ServerName)
	d.Destination, d.App, d.Port = d.info.Destination, d.info.Destination, d.info.Destination.Port()
	if d.chain, _ = route.Chain(l, &d.info); d.chain == nil || d.chain.HTTP == nil {
		return nil, fmt.Errorf("no filter chain is for server name %q", c.ServerName)
	}
	d.HTTP = d.chain.HTTP
	if peer, err := identity.PeerOf(c.TLS); err == nil && !peer.ID.IsZero() {
		d.Peer, d.PeerURI = peer, peer.ID.String()
	}
	return d, nil
}

// leaves ends no connection: the server of HTTP/3 asks its clients to leave by itself.
func leaves() {}

// serveStream3 serves one request on the goroutine that it came with.
func (d *connection) serveStream3(s *http3.Stream) {
	d.track.Begin(d.p.opt.Now())
	defer func() { d.track.Finish(d.p.opt.Now()) }()
	own := *d // requests of one connection run side by side
	if !own.renew() {
		s.Reset()
		return
	}
	side := &side.Client3{Stream: s}
	x := d.p.carrier.Begin(&own.Client, side)
	h := x.Req.Header
	h.CopyFrom(&s.Request().Header)
	x.Req = *s.Request()
	x.Req.Header = h
	if bad := own.options2().Refusal(s.HeadSize()); bad != nil {
		x.Refuse(failure.Malformed, bad.Status, bad)
	} else {
		x.Carry()
	}
	side.Forget()
	d.p.carrier.Discard(x)
}
