package proxy

import (
	"strings"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
)

// edge gives the series that count this request.
func (x *exchange) edge() *telemetry.Edge {
	protocol := "http"
	if x.isGRPC || x.grpc != "" {
		protocol = "grpc"
	}
	if x.d.direction == inbound {
		return x.d.inboundEdge(x.clusterConf(), protocol)
	}
	if x.to == nil {
		return x.p.sourceEdge(x.clusterConf(), nil, protocol)
	}
	slot := &x.to.HTTPEdge
	if protocol == "grpc" {
		slot = &x.to.GRPCEdge
	}
	if e := slot.Load(); e != nil {
		return e
	}
	e := x.p.sourceEdge(x.cluster.Conf, x.to, protocol)
	slot.Store(e)
	return e
}

func (x *exchange) clusterConf() *conf.Cluster {
	if x.cluster == nil {
		return nil
	}
	return x.cluster.Conf
}

// sourceEdge makes the series of the source's side. c and to may be nil when the request did not get that far.
func (p *Proxy) sourceEdge(c *conf.Cluster, to *cluster.Endpoint, protocol string) *telemetry.Edge {
	k := telemetry.EdgeKey{Reporter: telemetry.FromSource, Source: p.self(), Protocol: protocol, Security: "unknown"}
	describeService(&k, c)
	if to != nil {
		e := to.Host.Endpoint
		k.Destination = telemetry.Workload{Workload: e.Workload, Namespace: e.WorkloadNamespace, App: e.App, Version: e.Version,
			Service: e.CanonicalService, Revision: e.Revision, Cluster: p.opt.Bootstrap.Node.Cluster}
		k.Security = "none"
		if to.Raw.Source != nil {
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
