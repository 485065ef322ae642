package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/wire"
)

// arrived serves a connection to our workload that was redirected to us.
func (p *Proxy) arrived(a listen.Accepted) {
	d := p.newConnection(a, downstream.Inbound)
	if !a.Redirected {
		d.turnAway(failure.Unroutable, "accept", errors.New("connection was not redirected here"))
		return
	}
	d.serveInbound()
}

// mapped serves an inbound listener that stands for one port of the workload.
func (p *Proxy) mapped(m wire.PortMap, app netip.AddrPort) func(listen.Accepted) {
	return func(a listen.Accepted) {
		d := p.newConnection(a, downstream.Inbound)
		d.App = app
		if d.Port = m.Port; d.Port == 0 {
			d.Port = app.Port()
		}
		d.Destination = netip.AddrPortFrom(a.Destination.Addr(), d.Port)
		d.serveInbound()
	}
}

func (d *connection) serveInbound() {
	d.newest = func() *conf.Listener { return d.p.config.Snapshot().Inbound }
	l := d.newest()
	if l == nil {
		d.turnAway(failure.NoConfig, "accept", errors.New("no inbound configuration yet"))
		return
	}
	d.serveListener(l)
}

// serveListener chooses the chain for what the connection turns out to be, terminates TLS and serves.
func (d *connection) serveListener(l *conf.Listener) {
	d.p.entered.Add(1)
	d.accepted.AtEnd(func() { d.p.entered.Add(-1) })
	d.p.arrivedAt.Store(d.p.opt.Now().UnixNano())
	if !d.announced(l.ProxyProtocol) {
		return
	}
	d.info = route.ConnInfo{Destination: d.Destination, Source: d.Remote.Addr(), Direct: d.Direct.Addr(), Transport: conf.RawTransport}
	var s *stream
	if raw, _ := route.Chain(l, &d.info); raw != nil && raw.TCP != nil && raw.TLS == nil {
		s = d.newStream(raw.TCP) // plaintext whose server may speak first is possible
		defer s.release()
	}
	found, err := d.look(l, s)
	if err != nil {
		if s != nil && s.err != nil {
			s.record()
		} else {
			d.unheard(err)
		}
		return
	}
	defer found.drop()
	d.conn, d.SNI = found.conn, found.ServerName
	d.learn(found.Sniffed)
	chain, step := route.Chain(l, &d.info)
	if chain == nil {
		d.turnAway(failure.NoChain, "accept", unmatched(step, found.Sniffed))
		return
	}
	if !d.pass(chain) || chain.TLS != nil && !d.terminate(chain) {
		return
	}
	d.listener, d.chain, d.HTTP3 = l, chain, d.OffersHTTP3()
	d.serveChain(chain, s, &found)
}

// silenceAt is how long a client of a gateway's listener may say nothing: no longer than for a handshake where nothing but TLS is
// taken, for its handshake has begun when it has connected.
func silenceAt(l *conf.Listener) time.Duration {
	for _, c := range l.Chains {
		if c.TLS == nil && c.Match.Transport != conf.TLSTransport {
			return defaultIdle
		}
	}
	return handshakeTime
}

// look sniffs unless nothing depends on it.
func (d *connection) look(l *conf.Listener, s *stream) (detected, error) {
	if s == nil {
		heard := d.unheardYet(silenceAt(l))
		s, c, err := listen.Sniff(d.conn, silenceAt(l), talkTime)
		if e := heard(); err == nil {
			err = e
		}
		return detected{Sniffed: s, conn: c}, err
	}
	if !sniffs(l, d.Destination.Port()) {
		return detected{conn: d.conn}, nil
	}
	return d.p.detect(d.conn, "inbound "+d.Destination.String(), s.openEarly)
}

// unheardYet has a connection on which nothing was said end as idle ones do, when the proxy drains or is short of something. What it
// gives ends that.
func (d *connection) unheardYet(silence time.Duration) (heard func() error) {
	d.track.Conn, d.track.Idle = d.conn, silence
	d.track.Enter(track.Idle, d.p.opt.Now())
	d.p.tracker.Add(d.track)
	return func() error {
		d.p.tracker.Remove(d.track)
		return d.conn.SetReadDeadline(time.Time{}) // a sweep may have set it
	}
}

// sniffs reports whether any chain for the port asks about the first bytes.
func sniffs(l *conf.Listener, port uint16) bool {
	return slices.ContainsFunc(l.Chains, func(c *conf.Chain) bool {
		m := &c.Match
		return (m.DestinationPort == 0 || m.DestinationPort == port) &&
			(m.Transport != conf.AnyTransport || len(m.ALPN) > 0 || len(m.ServerNames) > 0)
	})
}

// learn completes what chains are matched by. For plaintext the application protocol has the names that Envoy's http_inspector
// gives.
func (d *connection) learn(s listen.Sniffed) {
	switch s.Protocol {
	case listen.TLS:
		d.info.Transport, d.info.ServerName, d.info.ALPN = conf.TLSTransport, s.ServerName, s.ALPN
	case listen.HTTP1:
		d.info.ALPN = []string{"http/1.1"}
	case listen.HTTP2:
		d.info.ALPN = []string{"h2c"}
	}
}

func unmatched(step route.ChainStep, s listen.Sniffed) error {
	switch {
	case s.Protocol == listen.Silent:
		return errors.New("the client said nothing")
	case s.Protocol != listen.TLS && step == route.ByTransport:
		return errors.New("plaintext is refused here: mutual TLS is required (PeerAuthentication STRICT)")
	case s.Protocol != listen.TLS && step == route.ByServerName:
		return errors.New("TLS is wanted here, and plaintext came")
	case step == route.ByServerName && s.ServerName == "":
		return errors.New("the client names no server (SNI), and none is for clients that do not")
	case step == route.ByServerName:
		return fmt.Errorf("no server here is named %q", s.ServerName)
	case step == route.ByALPN && len(s.ALPN) > 0:
		return fmt.Errorf("none of the protocols that the client offers (ALPN %s) is served here", strings.Join(s.ALPN, ", "))
	}
	return fmt.Errorf("no filter chain matches the connection's %s", step)
}

// handshakeTime bounds a TLS handshake.
const handshakeTime = 10 * time.Second

// terminate makes the server's side of the TLS handshake.
func (d *connection) terminate(chain *conf.Chain) bool {
	config, err := d.p.tls.get(d.p, chain.TLS)
	if err != nil {
		d.turnAway(failure.NoConfig, "tls", err)
		return false
	}
	ctx, cancel := context.WithTimeout(d.p.ctx, handshakeTime)
	defer cancel()
	s, err := listen.Terminate(ctx, d.conn, config)
	if err != nil {
		d.turnAway(failure.ClientTLS, "tls", err)
		return false
	}
	d.secured(s)
	if s.Client != nil && d.PeerURI != "" {
		sum := sha256.Sum256(s.Client.Raw)
		d.XFCC = "By=" + d.p.selfURI() + ";Hash=" + hex.EncodeToString(sum[:]) + `;Subject="";URI=` + d.PeerURI
	}
	return true
}

func (p *Proxy) selfURI() string {
	if m := p.source.Current(); m != nil {
		return m.Self.ID.String()
	}
	return ""
}

// serveChain serves HTTP or relays, as the chain and the bytes want it. s, if not nil, may be open already.
func (d *connection) serveChain(chain *conf.Chain, s *stream, found *detected) {
	switch {
	case chain.HTTP != nil:
		found.drop()
		d.HTTP = chain.HTTP
		d.serveVersion(found.Protocol)
	case chain.TCP != nil:
		t := d.newStream(chain.TCP)
		if s != nil && s.tcp == chain.TCP {
			t = s
		}
		if s != nil && found.early != nil && (t == s || sameClusters(t.tcp, s.tcp)) {
			t.cluster, t.to = s.cluster, s.to
			t.held, s.held = s.held, held{}
			t.early(found.early)
			found.early = nil
		}
		d.relayTCP(t.tcp, t)
	}
}

// sameClusters reports whether a connection opened for one chain serves the other: both lead to the same single cluster.
func sameClusters(a, b *conf.TCP) bool {
	return a.Tunnel == nil && b.Tunnel == nil && len(a.Clusters) == 1 && len(b.Clusters) == 1 && a.Clusters[0].Cluster == b.Clusters[0].Cluster
}

// serveVersion serves the version of HTTP that the connection turned out to be: by its first bytes, or by what was agreed on in the
// TLS handshake. Where neither tells, what comes within TLS does.
func (d *connection) serveVersion(p listen.Protocol) {
	if d.Secure {
		switch d.alpn {
		case "h2", wire.ALPNHTTP2:
			p = listen.HTTP2
		case "http/1.1", "http/1.0", wire.ALPNHTTP1:
			p = listen.HTTP1
		default:
			found, err := d.p.detect(d.conn, "", nil)
			if err != nil {
				d.unheard(err)
				return
			}
			d.conn, p = found.conn, found.Protocol
		}
	}
	if p == listen.HTTP2 {
		d.serveHTTP2()
		return
	}
	d.serveHTTP() // a malformed request is answered there
}

// serverTLS keeps the TLS configurations of chains for as long as the chains live.
type serverTLS struct {
	mu     sync.Mutex
	byConf map[*conf.DownstreamTLS]*tls.Config
}

// maxServerTLS is when configurations of chains that are no more are let go.
const maxServerTLS = 256

func (t *serverTLS) get(p *Proxy, d *conf.DownstreamTLS) (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.byConf[d]; c != nil {
		return c, nil
	}
	c, err := listen.Config(d, p.source, p.opt.Now)
	if err != nil {
		return nil, err
	}
	if t.byConf == nil || len(t.byConf) >= maxServerTLS {
		t.byConf = map[*conf.DownstreamTLS]*tls.Config{}
	}
	t.byConf[d] = c
	return c, nil
}

// openedCounted serves a connection to a listener that our workload's Sidecar opens, counted.
func (p *Proxy) openedCounted(name string, a listen.Accepted) {
	p.traffic.get(name).serve(a, func(a listen.Accepted) {
		for _, l := range p.config.Snapshot().Opened {
			if l.Name != name {
				continue
			}
			if l.Direction == "outbound" {
				p.called(a, l.Address)
			} else {
				p.newConnection(a, downstream.Inbound).serveInbound()
			}
			return
		}
		p.newConnection(a, downstream.Outbound).turnAway(failure.NoConfig, "accept", fmt.Errorf("listener %s is gone", name))
	})
}

// enterCounted is enter with the connection counted.
func (p *Proxy) enterCounted(name string, a listen.Accepted) {
	p.traffic.get(name).serve(a, func(a listen.Accepted) { p.enter(name, a) })
}

// enter serves a connection to a gateway, by the listener's newest configuration.
func (p *Proxy) enter(name string, a listen.Accepted) {
	d := p.newConnection(a, downstream.Gateway)
	d.newest = func() *conf.Listener { return p.gatewayListener(name) }
	l := d.newest()
	if l == nil {
		d.turnAway(failure.NoConfig, "accept", fmt.Errorf("listener %s is gone", name))
		return
	}
	if l.Address.Port() != 0 {
		d.Port = l.Address.Port()
		d.Destination = netip.AddrPortFrom(a.Destination.Addr(), d.Port)
	}
	d.serveListener(l)
}
