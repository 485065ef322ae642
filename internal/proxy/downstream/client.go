// Package downstream is what a proxy knows of a client and its connection, and what the mesh knows of where that leads.
package downstream

import (
	"context"
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/record"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Direction is which way a connection came in.
type Direction uint8

// The directions.
const (
	Outbound Direction = iota // from our own workload
	Inbound                   // to it
	Gateway                   // from outside the mesh
)

// Mesh is what the connections of clients have in common: what can be asked of the mesh about their requests.
type Mesh struct {
	Config interface {
		// Snapshot is the current configuration; never nil.
		Snapshot() *conf.Snapshot
		// Resolve gives the target of a listener name; nil when the mesh does not know it.
		Resolve(ctx context.Context, name string) (*conf.Target, error)
	}
	Clusters *cluster.Set
	Book     *record.Book
	// RegistryOnly refuses destinations that the mesh does not know instead of passing them through.
	RegistryOnly bool

	ctx context.Context // of Open
}

// Open comes before the first client: ctx ends with the last.
func (m *Mesh) Open(ctx context.Context) { m.ctx = ctx }

// Client is what is known of a client's connection, and what its requests need of that. One goroutine owns it.
type Client struct {
	Mesh *Mesh

	// Set once, before the first request.
	Direction Direction
	// Remote is the client: the peer, or whom that names in a PROXY protocol header. Direct is the peer.
	Remote, Direct netip.AddrPort
	Local          netip.AddrPort
	// Destination is where the client was going; App, inbound, the address of the workload's own port.
	Destination, App netip.AddrPort
	// Port is, inbound, the one that policies name.
	Port    uint16
	Peer    identity.Peer
	PeerURI string // SPIFFE; empty for plaintext
	XFCC    string // what the application is told of the peer's certificate
	SNI     string
	Secure  bool
	// Own says that the connection was made to an address of ours, behind which there is nobody else.
	Own bool
	// Fixed is the destination by name of an explicit outbound listener.
	Fixed string
	// Tunnel prepares, on the forward proxy's listener, what follows CONNECT to a name; nil elsewhere.
	Tunnel func(name string, target *conf.Target) *Tunnel
	// Address is the name by which ByAddress was resolved; empty where there is none.
	Address string

	// HTTP is the connection manager in force; nil outbound, where it is the target's.
	HTTP  *conf.HTTP
	HTTP3 bool // the client may come by HTTP/3 too
	// ByAddress is, outbound, what the destination address resolved to; nil when the mesh does not know it.
	ByAddress *conf.Target

	// Name is the listener name that the last request asked for, by its authority.
	Name      string
	authority string
	// asked is, on an explicit outbound listener, the last authority, and askedLocal whether it names us.
	asked      string
	askedLocal bool
	// edges are, inbound, the series of this client's requests by cluster and protocol.
	edges []inboundEdge

	remoteAs string // see remoteText
}

// Tunnel is what CONNECT has asked for. Where bytes may be relayed its upstream is connected already.
type Tunnel struct {
	Serve   func(c conn.Conn) // carries what the client sends and gets; either this or Drop is called, unless Err is set
	Drop    func()
	Err     error // why there is none
	Cluster *cluster.Cluster
	To      *cluster.Endpoint
}

type inboundEdge struct {
	cluster  *conf.Cluster
	protocol string
	edge     *telemetry.Edge
}

// Scheme is that of requests whose client names none.
func (d *Client) Scheme() string {
	if d.Secure && d.Direction == Gateway {
		return "https"
	}
	return "http"
}

// ListenerName gives the name by which the mesh knows what a request asks for: the host that the client names with the port
// it connects to.
func (d *Client) ListenerName(authority string) string {
	if authority == d.authority && d.Name != "" {
		return d.Name
	}
	host, port := message.HostPort(authority)
	if d.Tunnel == nil {
		port = d.Destination.Port()
	} else if port == 0 {
		port = 80
	}
	d.authority = strings.Clone(authority)
	d.Name = wire.ListenerName(strings.TrimSuffix(strings.Clone(host), "."), port)
	return d.Name
}

// InMesh reports whether the client may be told what happened inside the mesh: our own workload, or a proven peer.
func (d *Client) InMesh() bool { return d.Direction == Outbound || d.PeerURI != "" }

// Connecting is the context for connecting to an endpoint on the client's behalf.
func (d *Client) Connecting(to *cluster.Endpoint) context.Context {
	return to.OnBehalf(d.Mesh.ctx, d.Remote, d.Destination)
}

// AtAddress is what the connection's address means now: a connection may be kept for longer than a configuration.
func (d *Client) AtAddress() *conf.Target {
	if d.Address != "" {
		if t, err := d.Mesh.Config.Resolve(d.Mesh.ctx, d.Address); err == nil {
			d.ByAddress = t
		}
	}
	return d.ByAddress
}

// Protocols says what a target may carry. One that the mesh does not know may be anything.
func (d *Client) Protocols(t *conf.Target) (http bool, tcp *conf.TCP, byName bool) {
	if t == nil {
		return true, d.Passthrough(), false
	}
	for _, c := range t.Listener.Chains {
		http = http || c.HTTP != nil
		byName = byName || len(c.Match.ServerNames) > 0
	}
	if c := t.Listener.Default; c != nil {
		http = http || c.HTTP != nil
	}
	if c, _ := route.Chain(t.Listener, &route.ConnInfo{Destination: d.Destination, Source: d.Remote.Addr(), Transport: conf.RawTransport}); c != nil {
		tcp = c.TCP
	}
	return http || t.Routes != nil, tcp, byName
}

// Passthrough is the chain of destinations that the mesh does not know: what the control plane says, or else the bootstrap file. From an
// address of our own nothing passes on: it would come back.
func (d *Client) Passthrough() *conf.TCP {
	if d.Own {
		return &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: wire.BlackHoleCluster, Weight: 1}}, TotalWeight: 1}
	}
	if t := d.Mesh.Config.Snapshot().Unknown; t != nil && len(t.Clusters) > 0 {
		return t
	}
	cluster := wire.PassthroughCluster
	if d.Mesh.RegistryOnly {
		cluster = wire.BlackHoleCluster
	}
	return &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: cluster, Weight: 1}}, TotalWeight: 1}
}

// Cluster gives a cluster, that of unknown destinations by the name if that is all there is.
func (d *Client) Cluster(name string) *cluster.Cluster {
	if name == wire.PassthroughCluster && (d.Tunnel != nil || d.Fixed != "") {
		return d.Mesh.Clusters.Outside(message.HostPort(d.Name))
	}
	return d.Mesh.Clusters.Get(name)
}

// OffersHTTP3 reports whether a gateway's port of that number is bound for HTTP/3 too.
func (d *Client) OffersHTTP3() bool {
	if d.Direction != Gateway || !d.Secure {
		return false
	}
	for _, l := range d.Mesh.Config.Snapshot().Gateways {
		if l.QUIC && l.Address.Port() == d.Port {
			return true
		}
	}
	return false
}

// LocalName reports whether the client names nobody but us. The answer for the last authority is kept.
func (d *Client) LocalName(authority string) bool {
	if authority != d.asked || authority == "" {
		host, _ := message.HostPort(authority)
		d.asked, d.askedLocal = strings.Clone(authority), isLocal(host)
	}
	return d.askedLocal
}

func isLocal(host string) bool {
	if host == "" {
		return false
	}
	if c := host[0]; c != 'l' && c != 'L' && c != ':' && (c < '0' || c > '9') {
		return false // no address begins so, nor does localhost
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsLoopback() || a.IsUnspecified())
}

// RemoteText is the client's address as text, made once for a connection.
func (d *Client) RemoteText() string {
	if d.remoteAs == "" {
		d.remoteAs = d.Remote.Addr().Unmap().WithZone("").String()
	}
	return d.remoteAs
}

// ClientScheme is what the client used towards the outermost proxy.
func (d *Client) ClientScheme(r *message.Request) string {
	if d.HTTP != nil && d.HTTP.UseRemoteAddress {
		return d.Scheme()
	}
	if v, ok := r.Header.Get("X-Forwarded-Proto"); ok && v == "https" {
		return v
	}
	return r.Scheme
}

// InboundEdge gives the series of the destination's side for this client.
func (d *Client) InboundEdge(c *conf.Cluster, protocol string) *telemetry.Edge {
	for i := range d.edges {
		if d.edges[i].cluster == c && d.edges[i].protocol == protocol {
			return d.edges[i].edge
		}
	}
	e := d.Mesh.Book.Destination(&d.Peer, d.PeerURI, c, protocol)
	if len(d.edges) >= maxEdges {
		d.edges = d.edges[:0] // clusters are remade when their configuration changes
	}
	d.edges = append(d.edges, inboundEdge{c, protocol, e})
	return e
}

const maxEdges = 8
