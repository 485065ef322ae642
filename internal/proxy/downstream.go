package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/listen"
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

// downstream is what is known of a client's connection. One goroutine owns it, but for the fields that say otherwise.
type downstream struct {
	// Set once, before the first request.
	p         *Proxy
	direction direction
	conn      conn.Conn
	remote    netip.AddrPort
	local     netip.AddrPort
	// destination is where the client was going; app, inbound, the address of the workload's own port.
	destination, app netip.AddrPort
	// port is, inbound, the one that policies name.
	port    uint16
	peer    identity.Peer
	peerURI string // SPIFFE; empty for plaintext
	xfcc    string // what the application is told of the peer's certificate
	sni     string
	secure  bool
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
	// byAddress is, outbound, what the destination address resolved to; nil when the mesh does not know it.
	byAddress *conf.Target
	// address is the name by which it was resolved; empty where there is none.
	address string

	// The last authority and the listener name it stands for.
	authority, name string
	// edges are, inbound, the series of this client's requests by cluster and protocol.
	edges []inboundEdge

	track tracked
}

type inboundEdge struct {
	cluster  *conf.Cluster
	protocol string
	edge     *telemetry.Edge
}

// phase is what a tracked connection is doing.
type phase int64

const (
	idle     phase = iota // between requests
	heading               // reading a request's head
	busy                  // exchanging, or relaying bytes
	awaiting              // an upstream's answer
	watched               // awaiting, and a watch looks whether the client is there still
)

const (
	phaseBits = 3
	phaseMask = 1<<phaseBits - 1
)

// tracked is a connection as the sweep sees it: what it is doing, and since when.
type tracked struct {
	conn  conn.Conn
	idle  time.Duration
	dir   direction
	state atomic.Int64 // Unix milliseconds << phaseBits | phase

	client *caller // that of HTTP connections
	wait   patient
}

func (t *tracked) enter(ph phase, now time.Time) {
	t.state.Store(now.UnixMilli()<<phaseBits | int64(ph))
}

func (t *tracked) since() (phase, time.Time) {
	return parseState(t.state.Load())
}

func parseState(v int64) (phase, time.Time) {
	return phase(v & phaseMask), time.UnixMilli(v >> phaseBits)
}

// tracker ends connections that are idle, or take too long over a request's head, for all of a proxy: a deadline per request
// on each would cost more than the request's parsing.
type tracker struct {
	mu   sync.Mutex
	open map[*tracked]struct{}
}

func (t *tracker) add(c *tracked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*tracked]struct{}{}
	}
	t.open[c] = struct{}{}
}

func (t *tracker) remove(c *tracked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

const (
	// defaultIdle is Envoy's idle time-out of downstream connections.
	defaultIdle = time.Hour
	// headTime is how long a client may take over a request's head.
	headTime = 30 * time.Second
)

var longAgo = time.Unix(1, 0)

// sweep interrupts the reads of connections whose time has passed, and of idle ones that drain.
func (t *tracker) sweep(now time.Time, drains func(direction) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		state := c.state.Load()
		ph, since := parseState(state)
		if ph == awaiting && now.Sub(since) > watchAfter {
			c.consider(state)
		}
		if ph == idle && (drains(c.dir) || now.Sub(since) > c.idle) || ph == heading && now.Sub(since) > headTime {
			c.conn.SetReadDeadline(longAgo)
		}
	}
}

// counts gives the open connections and how many of them are not idle.
func (t *tracker) counts() (open, working int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, _ := c.since(); ph != idle {
			working++
		}
	}
	return len(t.open), working
}

func (p *Proxy) newDownstream(a listen.Accepted, dir direction) *downstream {
	return &downstream{p: p, direction: dir, conn: a.Conn, remote: a.Conn.RemoteAddr(), local: a.Conn.LocalAddr(),
		destination: a.Destination, app: a.Destination, port: a.Destination.Port()}
}

func (d *downstream) secured(s listen.Secured) {
	d.conn, d.peer, d.secure = s.Conn, s.Peer, true
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

// serveHTTP serves requests until the connection ends. It leaves the closing of the transport to the caller.
func (d *downstream) serveHTTP() {
	c := &caller{Conn: d.conn}
	d.conn, d.track.client = c, c
	s := http1.NewServerConn(c, d.scheme(), d.limits())
	d.track.conn, d.track.idle, d.track.dir = d.conn, defaultIdle, d.direction
	if d.http != nil && d.http.IdleTimeout > 0 {
		d.track.idle = d.http.IdleTimeout
	}
	d.track.enter(idle, d.p.opt.Now())
	d.p.tracker.add(&d.track)
	defer d.p.tracker.remove(&d.track)
	for d.serveOne(s) {
	}
}

func (d *downstream) limits() *http1.Limits {
	if d.http == nil || d.http.MaxHeaderBytes == 0 {
		return http1.DefaultLimits()
	}
	l := *http1.DefaultLimits()
	l.HeadBytes = d.http.MaxHeaderBytes
	return &l
}

// serveOne serves one request and reports whether another may follow.
func (d *downstream) serveOne(s *http1.ServerConn) bool {
	if err := s.WaitRequest(); err != nil && !d.spokeLate(err) {
		return false // idle for too long, draining, or gone
	}
	if !d.renew() {
		s.Shut()
		return false
	}
	x := d.p.begin(d, s)
	err := s.ReadRequest(&x.req)
	if err != nil {
		var bad *http1.Error
		if !errors.As(err, &bad) {
			d.p.discard(x)
			return false // gone, or too slow: there is nobody to answer
		}
		x.refuse(bad)
		d.p.discard(x)
		s.Shut()
		return false
	}
	d.track.enter(busy, x.start)
	x.run()
	if x.hijacked {
		d.p.discard(x)
		return false
	}
	reuse := s.EndExchange()
	d.track.enter(idle, x.end)
	d.p.discard(x)
	if !reuse {
		s.Shut()
	}
	return reuse
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
	d.listener, d.chain, d.http = l, chain, chain.HTTP
	return true
}

// spokeLate reports whether the client sent something just as it was given up: that is served still.
func (d *downstream) spokeLate(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || conn.Quiet(d.conn) {
		return false
	}
	return d.conn.SetReadDeadline(time.Time{}) == nil
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
