package record

import (
	"strings"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
)

// Source makes the series of the source's side. c and to may be nil when the request did not get that far.
func (b *Book) Source(c *conf.Cluster, to *cluster.Endpoint, protocol string) *telemetry.Edge {
	k := telemetry.EdgeKey{Reporter: telemetry.FromSource, Source: b.self(), Protocol: protocol, Security: "unknown"}
	describeService(&k, c)
	if to != nil {
		e := to.Host.Endpoint
		k.Destination = telemetry.Workload{Workload: e.Workload, Namespace: e.WorkloadNamespace, App: e.App, Version: e.Version,
			Service: e.CanonicalService, Revision: e.Revision, Cluster: b.o.Bootstrap.Node.Cluster}
		k.Security = "none"
		if to.Raw.Source != nil {
			k.Security = "mutual_tls"
			k.Destination.Principal = b.principal(e)
		}
	}
	return b.o.Metrics.Edge(k)
}

// principal of an endpoint whose certificate was verified: its service account in our own trust domain.
func (b *Book) principal(e *conf.Endpoint) string {
	if e.ServiceAccount == "" {
		return ""
	}
	if strings.HasPrefix(e.ServiceAccount, "spiffe://") {
		return e.ServiceAccount
	}
	return identity.ID{TrustDomain: b.o.Bootstrap.TrustDomain, Namespace: e.WorkloadNamespace, ServiceAccount: e.ServiceAccount}.String()
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

// Destination makes the series of the destination's side. peer is who calls, uri its SPIFFE identity, empty for plaintext; c may be nil.
func (b *Book) Destination(peer *identity.Peer, uri string, c *conf.Cluster, protocol string) *telemetry.Edge {
	k := telemetry.EdgeKey{Reporter: telemetry.FromDestination, Destination: b.self(), Protocol: protocol, Security: "none"}
	if uri != "" {
		k.Security = "mutual_tls"
		k.Source = telemetry.Workload{Workload: peer.Workload, Namespace: peer.Namespace, Principal: uri, App: peer.App,
			Version: peer.Version, Service: peer.Service, Revision: peer.Revision, Cluster: peer.Cluster}
	}
	if c != nil && c.ServiceHost != "" {
		describeService(&k, c)
	} else if s := k.Destination.Service; s != "" {
		k.Host, k.ServiceName, k.ServiceNamespace = s+"."+k.Destination.Namespace+".svc.cluster.local", s, k.Destination.Namespace
	}
	return b.o.Metrics.Edge(k)
}

// self is our own workload: as the certificate says, else as the bootstrap does.
func (b *Book) self() telemetry.Workload {
	n := &b.o.Bootstrap.Node
	if m := b.o.Source.Current(); m != nil && !m.Self.ID.IsZero() && m.Self.Workload != "" {
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
	id := identity.ID{TrustDomain: b.o.Bootstrap.TrustDomain, Namespace: n.Namespace, ServiceAccount: n.ServiceAccount}
	return telemetry.Workload{Workload: n.Workload, Namespace: n.Namespace, Principal: id.String(), App: n.Labels["app"],
		Version: n.Labels["version"], Service: service, Revision: n.Labels["version"], Cluster: n.Cluster}
}
