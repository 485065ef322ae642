package proxy

import (
	"reflect"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// connection is a client's connection that is served. One goroutine owns it, but for the fields that say otherwise.
type connection struct {
	downstream.Client
	// Set once, before the first request.
	p        *Proxy
	accepted listen.Accepted
	conn     conn.Conn
	alpn     string // what was agreed on in the TLS handshake
	// Listener and chain are where the connection manager is from, info what the chain was matched by, and newest gives the listener
	// as it is configured now.
	listener *conf.Listener
	chain    *conf.Chain
	info     route.ConnInfo
	newest   func() *conf.Listener

	// track is the connection's, whatever number of streams it has.
	track *track.Conn
}

func (p *Proxy) newConnection(a listen.Accepted, dir downstream.Direction) *connection {
	return &connection{p: p, accepted: a, conn: a.Conn, track: &track.Conn{Outbound: dir == downstream.Outbound}, Client: downstream.Client{Mesh: p.carrier.Mesh,
		Direction: dir, Remote: a.Conn.RemoteAddr(), Direct: a.Conn.RemoteAddr(), Local: a.Conn.LocalAddr(),
		Destination: a.Destination, App: a.Destination, Port: a.Destination.Port()}}
}

func (d *connection) secured(s listen.Secured) {
	d.conn, d.Peer, d.Secure, d.alpn = s.Conn, s.Peer, true, s.ALPN
	if s.ServerName != "" {
		d.SNI = s.ServerName
	}
	if !s.Peer.ID.IsZero() {
		d.PeerURI = s.Peer.ID.String()
	}
}

// renew brings a kept connection to the newest configuration of its listener, so that a policy holds from the next request on. It
// is false when the connection would not be taken in any more as it is: plaintext where mutual TLS is required now, other
// certificates, a gateway's port that was given up.
func (d *connection) renew() bool {
	if d.newest == nil {
		return true
	}
	l := d.newest()
	if l == d.listener {
		return true
	}
	if l == nil {
		return false
	}
	chain, _ := route.Chain(l, &d.info)
	if chain == nil || chain.HTTP == nil || !reflect.DeepEqual(chain.TLS, d.chain.TLS) {
		return false
	}
	d.listener, d.chain, d.HTTP, d.HTTP3 = l, chain, chain.HTTP, d.OffersHTTP3()
	return true
}
