package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Endpoints gives the endpoints of the cluster of that name, those that are not ready included and marked.
func (g *Generator) Endpoints(name string) (proto.Message, bool) {
	_, port, subset, host, ok := wire.ParseCluster(name)
	var b *view.Backend
	switch {
	case ok && wire.OutboundCluster(port, subset, host) == name:
		b, ok = g.view.Backend(port, subset, host)
	case ok && wire.DatagramCluster(port, host) == name:
		b, ok = g.view.DatagramBackend(port, host)
	default:
		return nil, false
	}
	if !ok || g.discovery(b) != clusterv3.Cluster_EDS {
		return nil, false
	}
	return g.assignment(name, b), true
}

// dnsEndpoints are the endpoints of a cluster whose addresses are names: those declared, or else the service's own host.
func (g *Generator) dnsEndpoints(name string, b *view.Backend) *endpointv3.ClusterLoadAssignment {
	s := b.Service
	if s.ExternalName != "" {
		return g.localities(name, []*model.Endpoint{{Address: s.ExternalName, Ready: true}}, b)
	}
	if len(g.mesh.Endpoints(s)) == 0 && !index.IsWildcard(s.Host) {
		return g.localities(name, []*model.Endpoint{{Address: s.Host, Ready: true}}, b)
	}
	return g.assignment(name, b)
}

func (g *Generator) assignment(name string, b *view.Backend) *endpointv3.ClusterLoadAssignment {
	return g.localities(name, g.endpointsOf(b), b)
}

// endpointsOf gives the instances of a backend.
func (g *Generator) endpointsOf(b *view.Backend) []*model.Endpoint {
	if b.Pinned != nil {
		return []*model.Endpoint{b.Pinned}
	}
	all := g.mesh.Endpoints(b.Service)
	if b.Service.Resolution == model.DNS || b.Service.Resolution == model.DNSRoundRobin {
		all = g.known(all, b)
	}
	if b.Subset == nil {
		return all
	}
	var out []*model.Endpoint
	for _, e := range all {
		if model.Selects(b.Subset.Labels, e.Labels) {
			out = append(out, e)
		}
	}
	return out
}

// known puts the endpoints of the mesh's own services in place of their names, which name servers outside of the cluster do not know.
func (g *Generator) known(all []*model.Endpoint, b *view.Backend) []*model.Endpoint {
	var out []*model.Endpoint
	for i, e := range all {
		s := g.ours(e.Address)
		if s == nil {
			if out != nil {
				out = append(out, e)
			}
			continue
		}
		if out == nil {
			out = append(make([]*model.Endpoint, 0, len(all)), all[:i]...)
		}
		port := b.PortOf(e)
		for _, own := range g.mesh.Endpoints(s) {
			at := *own
			at.Ports, at.Weight = map[uint16]uint16{b.Port.Number: cmp.Or(own.Ports[port], port)}, e.Weight
			at.Labels = e.Labels // subsets are of the entry's endpoints
			out = append(out, &at)
		}
	}
	if out == nil {
		return all
	}
	return out
}

// ours is the service of the cluster that the address of an endpoint names; nil for none.
func (g *Generator) ours(address string) *model.Service {
	if !strings.HasSuffix(address, ".svc."+g.mesh.Settings().ClusterDomain) {
		return nil
	}
	s := g.view.Service(address)
	if s == nil || s.Resolution != model.Static {
		return nil
	}
	return s
}

func (g *Generator) isOurs(e *model.Endpoint) bool { return g.ours(e.Address) != nil }

func (g *Generator) localities(name string, endpoints []*model.Endpoint, b *view.Backend) *endpointv3.ClusterLoadAssignment {
	names := g.discovery(b) != clusterv3.Cluster_EDS // only clusters that are resolved have endpoints with names
	byGroup := map[group]*endpointv3.LocalityLbEndpoints{}
	prefer := g.preference(b.Service, &b.Policy)
	seen := map[string]bool{}
	var last described
	for _, e := range endpoints {
		port := b.PortOf(e)
		key := wire.EndpointName(e.Address, port)
		if _, err := netip.ParseAddr(e.Address); e.Address == "" || seen[key] || err != nil && names == message.IsUnix(e.Address) || g.node.Proxyless && message.IsUnix(e.Address) {
			continue
		}
		seen[key] = true
		of := group{locality: e.Locality}
		if prefer != nil {
			of.priority = prefer(e)
		}
		l := byGroup[of]
		if l == nil {
			l = &endpointv3.LocalityLbEndpoints{Locality: message.Locality(e.Locality), Priority: of.priority}
			byGroup[of] = l
		}
		l.LbEndpoints = append(l.LbEndpoints, g.endpoint(e, port, b, &last))
	}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, k := range slices.SortedFunc(maps.Keys(byGroup), func(a, b group) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.locality, b.locality))
	}) {
		l := byGroup[k]
		slices.SortFunc(l.LbEndpoints, message.ByAddress)
		out.Endpoints = append(out.Endpoints, l)
	}
	sumWeights(out.Endpoints)
	closeGaps(out.Endpoints)
	if p := b.Policy.Balancing; p != nil && p.Locality != nil && !p.Locality.Disabled {
		if to := g.distribution(p.Locality); to != nil {
			out.Endpoints = weigh(to, out.Endpoints)
		}
	}
	return out
}

func (g *Generator) endpoint(e *model.Endpoint, port uint16, b *view.Backend, last *described) *endpointv3.LbEndpoint {
	health := corev3.HealthStatus_HEALTHY
	if !e.Ready {
		health = corev3.HealthStatus_UNHEALTHY
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: message.EndpointAddress(e.Address, port)}},
		HealthStatus:        health,
		Metadata:            g.endpointMetadata(e, port, b, last),
		LoadBalancingWeight: message.Weight(e.Weight),
	}
}

// described is what the endpoint before said of itself: the next one's is mostly the same.
type described struct {
	workload string
	istio    *structpb.Struct
	app      text
	version  text
	account  text
}

func (d *described) as(workload string) *structpb.Struct {
	if d.istio == nil || d.workload != workload {
		d.workload, d.istio = workload, message.Texts("workload", workload)
	}
	return d.istio
}

// instance says who an endpoint is; nil where nothing is known.
func (d *described) instance(e *model.Endpoint) *structpb.Struct {
	var name text
	fields := map[string]*structpb.Value{}
	for _, f := range []struct {
		name, value string
		last        *text
	}{{"instance", e.Instance, &name}, {"app", e.Labels["app"], &d.app}, {"version", e.Labels["version"], &d.version}, {"serviceAccount", e.ServiceAccount, &d.account}} {
		if f.value != "" {
			fields[f.name] = f.last.as(f.value)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &structpb.Struct{Fields: fields}
}

// text is one that messages share.
type text struct{ value *structpb.Value }

func (t *text) as(s string) *structpb.Value {
	if t.value == nil || t.value.GetStringValue() != s {
		t.value = structpb.NewStringValue(s)
	}
	return t.value
}

// endpointMetadata says whether mutual TLS is to be had, and who the instance is, for the client's metrics.
func (g *Generator) endpointMetadata(e *model.Endpoint, port uint16, b *view.Backend, last *described) *corev3.Metadata {
	m := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	if !b.UDP && !b.Service.External && g.takesMutualTLS(e, port) {
		m.FilterMetadata["envoy.transport_socket_match"] = message.ViaMutualTLS
	}
	canonical := cmp.Or(e.Labels["service.istio.io/canonical-name"], e.Labels["app.kubernetes.io/name"], e.Labels["app"], e.Workload)
	revision := cmp.Or(e.Labels["service.istio.io/canonical-revision"], e.Labels["app.kubernetes.io/version"], e.Labels["version"], "latest")
	if e.Workload != "" {
		m.FilterMetadata["istio"] = last.as(e.Workload + ";" + e.Namespace + ";" + canonical + ";" + revision + ";")
	}
	if w := last.instance(e); w != nil {
		m.FilterMetadata["weft"] = w
	}
	if len(m.FilterMetadata) == 0 {
		return nil
	}
	return m
}
