package proxy

import (
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// direction is which way a connection came in.
type direction uint8

const (
	outbound direction = iota // from our own workload
	inbound                   // to it
	gateway                   // from outside the mesh
)

// downstream is what is known of a client's connection. One goroutine owns it, but for the fields that say otherwise.
type downstream struct {
	// Set once, before the first request.
	p         *Proxy
	accepted  listen.Accepted
	direction direction
	conn      conn.Conn
	// remote is the client: the peer, or whom that names in a PROXY protocol header. direct is the peer.
	remote, direct netip.AddrPort
	local          netip.AddrPort
	// destination is where the client was going; app, inbound, the address of the workload's own port.
	destination, app netip.AddrPort
	// port is, inbound, the one that policies name.
	port    uint16
	peer    identity.Peer
	peerURI string // SPIFFE; empty for plaintext
	xfcc    string // what the application is told of the peer's certificate
	sni     string
	secure  bool
	alpn    string // what was agreed on in the TLS handshake
	// fixed is the destination by name of an explicit outbound listener; forward is set on the forward proxy's.
	fixed   string
	forward bool
	// http is the connection manager in force; nil outbound, where it is the target's. Listener and chain are where it is from,
	// info what the chain was matched by, and newest gives the listener as it is configured now.
	http     *conf.HTTP
	listener *conf.Listener
	chain    *conf.Chain
	info     route.ConnInfo
	newest   func() *conf.Listener
	http3    bool // the client may come by HTTP/3 too
	// byAddress is, outbound, what the destination address resolved to; nil when the mesh does not know it.
	byAddress *conf.Target
	// address is the name by which it was resolved; empty where there is none.
	address string

	// The last authority and the listener name it stands for.
	authority, name string
	// asked is, on an explicit outbound listener, the last authority, and askedLocal whether it names us.
	asked      string
	askedLocal bool
	// edges are, inbound, the series of this client's requests by cluster and protocol.
	edges []inboundEdge

	remoteAs string // see remoteText

	// track is the connection's, whatever number of streams it has.
	track *track.Conn
}

type inboundEdge struct {
	cluster  *conf.Cluster
	protocol string
	edge     *telemetry.Edge
}

func (p *Proxy) newDownstream(a listen.Accepted, dir direction) *downstream {
	return &downstream{p: p, accepted: a, direction: dir, conn: a.Conn, remote: a.Conn.RemoteAddr(), direct: a.Conn.RemoteAddr(), local: a.Conn.LocalAddr(),
		destination: a.Destination, app: a.Destination, port: a.Destination.Port(), track: &track.Conn{Outbound: dir == outbound}}
}

func (d *downstream) secured(s listen.Secured) {
	d.conn, d.peer, d.secure, d.alpn = s.Conn, s.Peer, true, s.ALPN
	if s.ServerName != "" {
		d.sni = s.ServerName
	}
	if !s.Peer.ID.IsZero() {
		d.peerURI = s.Peer.ID.String()
	}
}

func (d *downstream) scheme() string {
	if d.secure && d.direction == gateway {
		return "https"
	}
	return "http"
}

// renew brings a kept connection to the newest configuration of its listener, so that a policy holds from the next request on. It
// is false when the connection would not be taken in any more as it is: plaintext where mutual TLS is required now, other
// certificates, a gateway's port that was given up.
func (d *downstream) renew() bool {
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
	d.listener, d.chain, d.http, d.http3 = l, chain, chain.HTTP, d.offersHTTP3()
	return true
}

// listenerName gives the name by which the mesh knows what a request asks for: the host that the client names with the port
// it connects to.
func (d *downstream) listenerName(authority string) string {
	if authority == d.authority && d.name != "" {
		return d.name
	}
	host, port := hostPort(authority)
	if !d.forward {
		port = d.destination.Port()
	} else if port == 0 {
		port = 80
	}
	d.authority = strings.Clone(authority)
	d.name = wire.ListenerName(strings.TrimSuffix(strings.Clone(host), "."), port)
	return d.name
}

// hostPort splits an authority; port is 0 when there is none. An IPv6 host loses its brackets.
func hostPort(authority string) (host string, port uint16) {
	host = authority
	if h, p, err := net.SplitHostPort(authority); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			return h, uint16(n)
		}
		return h, 0
	}
	return strings.Trim(host, "[]"), 0
}

// inMesh reports whether the client may be told what happened inside the mesh: our own workload, or a proven peer.
func (d *downstream) inMesh() bool { return d.direction == outbound || d.peerURI != "" }
