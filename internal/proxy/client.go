package proxy

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/route"
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

// client is what is known of a client's connection, and what its requests need of that. One goroutine owns it.
type client struct {
	p *carrier

	// Set once, before the first request.
	direction direction
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
	// fixed is the destination by name of an explicit outbound listener.
	fixed string
	// tunnel serves, on the forward proxy's listener, what follows CONNECT to a name; nil elsewhere.
	tunnel func(c conn.Conn, name string, target *conf.Target)
	// address is the name by which byAddress was resolved; empty where there is none.
	address string

	// http is the connection manager in force; nil outbound, where it is the target's.
	http  *conf.HTTP
	http3 bool // the client may come by HTTP/3 too
	// byAddress is, outbound, what the destination address resolved to; nil when the mesh does not know it.
	byAddress *conf.Target

	// The last authority and the listener name it stands for.
	authority, name string
	// asked is, on an explicit outbound listener, the last authority, and askedLocal whether it names us.
	asked      string
	askedLocal bool
	// edges are, inbound, the series of this client's requests by cluster and protocol.
	edges []inboundEdge

	remoteAs string // see remoteText
}

type inboundEdge struct {
	cluster  *conf.Cluster
	protocol string
	edge     *telemetry.Edge
}

func (d *client) scheme() string {
	if d.secure && d.direction == gateway {
		return "https"
	}
	return "http"
}

// listenerName gives the name by which the mesh knows what a request asks for: the host that the client names with the port
// it connects to.
func (d *client) listenerName(authority string) string {
	if authority == d.authority && d.name != "" {
		return d.name
	}
	host, port := hostPort(authority)
	if d.tunnel == nil {
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
func (d *client) inMesh() bool { return d.direction == outbound || d.peerURI != "" }

// connecting is the context for connecting to an endpoint on the client's behalf.
func (d *client) connecting(to *cluster.Endpoint) context.Context {
	return to.OnBehalf(d.p.ctx, d.remote, d.destination)
}

// atAddress is what the connection's address means now: a connection may be kept for longer than a configuration.
func (d *client) atAddress() *conf.Target {
	if d.address != "" {
		if t, err := d.p.Config.Resolve(d.p.ctx, d.address); err == nil {
			d.byAddress = t
		}
	}
	return d.byAddress
}

// protocols says what a target may carry. One that the mesh does not know may be anything.
func (d *client) protocols(t *conf.Target) (http bool, tcp *conf.TCP, byName bool) {
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
func (d *client) passthrough() *conf.TCP {
	if t := d.p.Config.Snapshot().Unknown; t != nil && len(t.Clusters) > 0 {
		return t
	}
	cluster := wire.PassthroughCluster
	if d.p.RegistryOnly {
		cluster = wire.BlackHoleCluster
	}
	return &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: cluster, Weight: 1}}, TotalWeight: 1}
}

// cluster gives a cluster, that of unknown destinations by the name if that is all there is.
func (d *client) cluster(name string) *cluster.Cluster {
	if name == wire.PassthroughCluster && (d.tunnel != nil || d.fixed != "") {
		return d.p.Clusters.Outside(hostPort(d.name))
	}
	return d.p.Clusters.Get(name)
}

// offersHTTP3 reports whether a gateway's port of that number is bound for HTTP/3 too.
func (d *client) offersHTTP3() bool {
	if d.direction != gateway || !d.secure {
		return false
	}
	for _, l := range d.p.Config.Snapshot().Gateways {
		if l.QUIC && l.Address.Port() == d.port {
			return true
		}
	}
	return false
}

// advertise tells the client that HTTP/3 is to be had at the port that it uses (RFC 7838): whatever maps a public port to ours does
// so for UDP too.
func (x *exchange) advertise() {
	if !x.d.http3 || !x.d.offersHTTP3() {
		return
	}
	_, port := hostPort(x.req.Authority)
	if port == 0 {
		port = 443
	}
	x.res.Header.Set("Alt-Svc", `h3=":`+strconv.Itoa(int(port))+`"; ma=86400`)
}
