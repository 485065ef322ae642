package proxy

import (
	"net/netip"
	"strings"
	"unsafe"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
)

// record counts and logs what happened.
func (x *exchange) record() {
	a := telemetry.Answer{Code: x.status, Flags: x.flags(), GRPC: x.grpc}
	if e := x.edge(); e != nil {
		e.Request(a, x.end.Sub(x.start), x.received, x.sent)
	}
	if x.p.access == nil {
		return
	}
	if x.entry.Start.IsZero() {
		x.prepareEntry()
	}
	x.finishEntry(a)
	x.p.access.Write(&x.entry)
}

// flags are the response flags: of the failure, and of an injected delay.
func (x *exchange) flags() string {
	switch {
	case x.err == nil && x.fault.Delay > 0:
		return "DI"
	case x.err == nil:
		return "-"
	case x.fault.Delay > 0 && x.err.kind == injected:
		return "DI,FI"
	}
	return x.err.Flag()
}

// prepareEntry takes what the heads say.
func (x *exchange) prepareEntry() {
	if x.p.access == nil {
		return
	}
	e, h := &x.entry, &x.req.Header
	e.Start, e.Method, e.Path, e.Authority = x.start, x.req.Method, x.req.Path, x.req.Authority
	if x.req.Proto != 0 {
		e.Protocol = x.req.Proto.String()
	}
	e.ForwardedFor, _ = h.Get("X-Forwarded-For")
	e.UserAgent, _ = h.Get("User-Agent")
	e.RequestID, _ = h.Get("X-Request-Id")
	if x.res.Status == 101 { // the log comes after the connection has become another's
		for _, s := range []*string{&e.Method, &e.Path, &e.Authority, &e.ForwardedFor, &e.UserAgent, &e.RequestID} {
			*s = strings.Clone(*s)
		}
	}
}

func (x *exchange) finishEntry(a telemetry.Answer) {
	e := &x.entry
	e.Code, e.Flags, e.Received, e.Sent = a.Code, a.Flags, x.received, x.sent
	e.Duration, e.UpstreamTime = x.end.Sub(x.start), x.upstreamTime
	e.Remote, e.Local, e.ServerName, e.Peer = x.d.remote, x.d.destination, x.d.sni, x.d.peerURI
	e.Details = "via_upstream"
	if x.matched.Route != nil {
		if e.Route = x.matched.Route.Name; x.matched.Route.Forward == nil {
			e.Details = "direct_response"
		}
	}
	if x.cluster != nil {
		e.Cluster = x.cluster.conf.Name
	}
	if x.to != nil {
		e.UpstreamHost = x.to.raw.Address
	}
	e.UpstreamLocal = x.upLocal
	if e.Reason = x.reason(); x.err != nil {
		e.Details = x.err.Details()
		if x.err.kind == tlsFailed {
			e.TransportFailure = x.err.Error()
		}
	} else if x.verdict.ShadowDenied {
		e.Reason = "dry run: would be denied by policy " + x.verdict.ShadowPolicy
	}
}

// edge gives the series that count this request.
func (x *exchange) edge() *telemetry.Edge {
	protocol := "http"
	if x.grpc != "" {
		protocol = "grpc"
	}
	if x.d.direction == inbound {
		return x.d.inboundEdge(x.clusterConf(), protocol)
	}
	if x.to == nil {
		return x.p.sourceEdge(x.clusterConf(), nil, protocol)
	}
	slot := &x.to.httpEdge
	if protocol == "grpc" {
		slot = &x.to.grpcEdge
	}
	if e := slot.Load(); e != nil {
		return e
	}
	e := x.p.sourceEdge(x.cluster.conf, x.to, protocol)
	slot.Store(e)
	return e
}

func (x *exchange) clusterConf() *conf.Cluster {
	if x.cluster == nil {
		return nil
	}
	return x.cluster.conf
}

// sourceEdge makes the series of the source's side. c and to may be nil when the request did not get that far.
func (p *Proxy) sourceEdge(c *conf.Cluster, to *endpoint, protocol string) *telemetry.Edge {
	k := telemetry.EdgeKey{Reporter: telemetry.FromSource, Source: p.self(), Protocol: protocol, Security: "unknown"}
	describeService(&k, c)
	if to != nil {
		e := to.host.Endpoint
		k.Destination = telemetry.Workload{Workload: e.Workload, Namespace: e.WorkloadNamespace, App: e.App, Version: e.Version,
			Service: e.CanonicalService, Revision: e.Revision, Cluster: p.opt.Bootstrap.Node.Cluster}
		k.Security = "none"
		if to.raw.Source != nil {
			k.Security = "mutual_tls"
			k.Destination.Principal = p.principal(e)
		}
	}
	return p.metrics.Edge(k)
}

// principal of an endpoint whose certificate was verified: its service account in our own trust domain.
func (p *Proxy) principal(e *conf.Endpoint) string {
	if e.ServiceAccount == "" {
		return ""
	}
	if strings.HasPrefix(e.ServiceAccount, "spiffe://") {
		return e.ServiceAccount
	}
	return identity.ID{TrustDomain: p.opt.Bootstrap.TrustDomain, Namespace: e.WorkloadNamespace, ServiceAccount: e.ServiceAccount}.String()
}

func describeService(k *telemetry.EdgeKey, c *conf.Cluster) {
	if c == nil {
		return
	}
	k.Host, k.ServiceName, k.ServiceNamespace = c.ServiceHost, c.ServiceName, c.ServiceNamespace
	if k.ServiceName == "" {
		k.ServiceName = c.Name
	}
}

// inboundEdge gives the series of the destination's side for this client.
func (d *downstream) inboundEdge(c *conf.Cluster, protocol string) *telemetry.Edge {
	for i := range d.edges {
		if d.edges[i].cluster == c && d.edges[i].protocol == protocol {
			return d.edges[i].edge
		}
	}
	k := telemetry.EdgeKey{Reporter: telemetry.FromDestination, Destination: d.p.self(), Protocol: protocol, Security: "none"}
	if d.peerURI != "" {
		k.Security = "mutual_tls"
		k.Source = telemetry.Workload{Workload: d.peer.Workload, Namespace: d.peer.Namespace, Principal: d.peerURI, App: d.peer.App,
			Version: d.peer.Version, Service: d.peer.Service, Revision: d.peer.Revision, Cluster: d.peer.Cluster}
	}
	if c != nil && c.ServiceHost != "" {
		describeService(&k, c)
	} else if s := k.Destination.Service; s != "" {
		k.Host, k.ServiceName, k.ServiceNamespace = s+"."+k.Destination.Namespace+".svc.cluster.local", s, k.Destination.Namespace
	}
	e := d.p.metrics.Edge(k)
	if len(d.edges) >= maxEdges {
		d.edges = d.edges[:0] // clusters are remade when their configuration changes
	}
	d.edges = append(d.edges, inboundEdge{c, protocol, e})
	return e
}

const maxEdges = 8

// self is our own workload: as the certificate says, else as the bootstrap does.
func (p *Proxy) self() telemetry.Workload {
	n := &p.opt.Bootstrap.Node
	if m := p.source.Current(); m != nil && !m.Self.ID.IsZero() && m.Self.Workload != "" {
		s := m.Self
		return telemetry.Workload{Workload: s.Workload, Namespace: s.Namespace, Principal: s.ID.String(), App: s.App,
			Version: s.Version, Service: s.Service, Revision: s.Revision, Cluster: s.Cluster}
	}
	service := n.Labels["service.istio.io/canonical-name"]
	if service == "" {
		if service = n.Labels["app"]; service == "" {
			service = n.Workload
		}
	}
	id := identity.ID{TrustDomain: p.opt.Bootstrap.TrustDomain, Namespace: n.Namespace, ServiceAccount: n.ServiceAccount}
	return telemetry.Workload{Workload: n.Workload, Namespace: n.Namespace, Principal: id.String(), App: n.Labels["app"],
		Version: n.Labels["version"], Service: service, Revision: n.Labels["version"], Cluster: n.Cluster}
}

// setID gives the request an id (a random UUID, RFC 9562 section 5.4) unless it has one. traceparent and its kin are the
// application's and stay as they are.
func (x *exchange) setID() {
	if v, ok := x.req.Header.Get("X-Request-Id"); ok && v != "" {
		return
	}
	const digits = "0123456789abcdef"
	hi, lo := x.p.random64(), x.p.random64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 1<<63
	n := 0
	for _, word := range [2]uint64{hi, lo} {
		for shift := 60; shift >= 0; shift -= 4 {
			if n == 8 || n == 13 || n == 18 || n == 23 {
				x.id[n] = '-'
				n++
			}
			x.id[n] = digits[word>>shift&15]
			n++
		}
	}
	x.req.Header.Set("X-Request-Id", unsafe.String(&x.id[0], len(x.id)))
}

// logTCP writes the line of a relayed connection.
func (p *Proxy) logTCP(e *telemetry.Entry, d *downstream, upstreamHost string, local netip.AddrPort) {
	if p.access == nil {
		return
	}
	e.Remote, e.Local, e.ServerName, e.Peer = d.remote, d.destination, d.sni, d.peerURI
	e.UpstreamHost, e.UpstreamLocal = upstreamHost, local
	p.access.Write(e)
}
