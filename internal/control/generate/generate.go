// Package generate makes Envoy's xDS v3 messages from the model, for one node. It is pure: the same mesh and the same node give the
// same messages, byte for byte when marshalled deterministically.
//
// Every resource is found by its name alone, so that a client subscribes to what it uses:
//
//	listener    "reviews:9080"              host and port as the client wrote them, or an address and port; wire.ListenerName
//	            wire.InboundListener        what a sidecar does with connections to its workload
//	            wire.GatewayListenerName    a gateway's port; gateways ask for all of theirs by wildcard
//	route       wire.RouteName              the canonical host and port; wire.GatewayRouteName for gateways
//	cluster     wire.OutboundCluster, wire.InboundCluster, and the three that need no service
//	endpoints   the name of their cluster
//	DNS table   "reviews.default"           the name that was asked for, without final dot
//
// How Istio's objects become these messages follows Istio's own documentation and behaviour, so that the same YAML does the same.
package generate

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// The type URLs of the resources, as they stand in discovery requests.
const (
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointsType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	DNSType       = "type.googleapis.com/envoy.data.dns.v3.DnsTable"
)

// Node is what matters of a client: everything a resource may depend on besides the mesh.
type Node struct {
	Role           wire.Role
	Name           string // pod or process instance
	Namespace      string
	ServiceAccount string
	Labels         map[string]string
	Locality       string              // region/zone/subzone
	ProxyProtocol  model.ProxyProtocol // for gateways
	// Ports on which the workload accepts connections; for sidecars.
	Ports []model.WorkloadPort
	// Proxyless says that the client is gRPC's own xDS client, which reads a smaller part of Envoy's messages.
	Proxyless bool
}

// Index is a mesh prepared for generation. It is immutable and safe for concurrent use.
type Index struct {
	mesh *model.Mesh
	// sets are the route sets of sidecars by host without wildcard; in the order of precedence.
	sets map[string][]*model.RouteSet
	// wildcardSets and wildcardServices are hosts with a wildcard, the longest first.
	wildcardSets     []wildcardSet
	wildcardServices []*model.Service
	// bySource is what decides about a route somewhere, byWorkload about a destination.
	bySource, byWorkload reads
}

type wildcardSet struct {
	host string
	sets []*model.RouteSet
}

// NewIndex prepares a mesh, which must not change afterwards.
func NewIndex(mesh *model.Mesh) *Index {
	x := &Index{mesh: mesh, sets: map[string][]*model.RouteSet{}}
	wild := map[string][]*model.RouteSet{}
	x.byWorkload.policy(&model.TrafficPolicy{Outlier: mesh.Settings.Outlier, Balancing: &model.Balancing{Locality: mesh.Settings.Locality}})
	for _, list := range mesh.Destinations.All() {
		for _, d := range list {
			x.byWorkload.destination(d)
		}
	}
	for _, s := range mesh.RouteSets {
		x.bySource.sources(s)
		if !s.Mesh {
			continue
		}
		for _, h := range s.Hosts {
			if isWildcard(h) {
				wild[h] = append(wild[h], s)
			} else {
				x.sets[h] = append(x.sets[h], s)
			}
		}
	}
	for h, sets := range wild {
		x.wildcardSets = append(x.wildcardSets, wildcardSet{h, sets})
	}
	slices.SortFunc(x.wildcardSets, func(a, b wildcardSet) int { return longerFirst(a.host, b.host) })
	for h, s := range mesh.Services.All() {
		x.byWorkload.locality = x.byWorkload.locality || s.Near
		if isWildcard(h) {
			x.wildcardServices = append(x.wildcardServices, s)
		}
	}
	slices.SortFunc(x.wildcardServices, func(a, b *model.Service) int { return longerFirst(a.Host, b.Host) })
	return x
}

func longerFirst(a, b string) int {
	if len(a) != len(b) {
		return len(b) - len(a)
	}
	return strings.Compare(a, b)
}

// reads says what of a client decides about resources: labels by their keys, and the locality.
type reads struct {
	labels   map[string]bool
	locality bool
}

func (r *reads) keys(labels map[string]string) {
	for k := range labels {
		r.label(k)
	}
}

func (r *reads) label(key string) {
	if r.labels == nil {
		r.labels = map[string]bool{}
	}
	r.labels[key] = true
}

// destination notes what a rule reads.
func (r *reads) destination(d *model.Destination) {
	r.keys(d.Selector)
	r.policy(&d.Policy)
	for i := range d.Subsets {
		if p := d.Subsets[i].Policy; p != nil {
			r.policy(p)
		}
	}
}

func (r *reads) policy(p *model.TrafficPolicy) {
	r.locality = r.locality || p.Outlier != nil
	if p.Balancing != nil && p.Balancing.Locality != nil {
		r.locality = true
		for _, k := range p.Balancing.Locality.FailoverPriority {
			if key, _, fixed := strings.Cut(k, "="); !fixed {
				r.label(key)
			}
		}
	}
	for _, own := range p.Ports {
		r.policy(own)
	}
}

// sources notes the labels that conditions of routes read.
func (r *reads) sources(s *model.RouteSet) {
	for i := range s.HTTP {
		for j := range s.HTTP[i].Matches {
			r.keys(s.HTTP[i].Matches[j].SourceLabels)
		}
	}
	for i := range s.TCP {
		for j := range s.TCP[i].Matches {
			r.keys(s.TCP[i].Matches[j].SourceLabels)
		}
	}
	for i := range s.TLS {
		for j := range s.TLS[i].Matches {
			r.keys(s.TLS[i].Matches[j].SourceLabels)
		}
	}
}

// of gives what a node has of it.
func (r *reads) of(n *Node) string {
	var b strings.Builder
	if r.locality {
		b.WriteString("|" + n.Locality)
	}
	for _, k := range slices.Sorted(maps.Keys(r.labels)) {
		if v, ok := n.Labels[k]; ok {
			b.WriteString("|" + k + "=" + v)
		}
	}
	return b.String()
}

// Generator gives the resources of one node in one mesh. It keeps nothing between calls and is safe for concurrent use.
type Generator struct {
	*Index
	node  Node
	scope *model.Sidecar // nil for none
}

// New prepares a mesh for a single node.
func New(mesh *model.Mesh, node Node) *Generator { return NewIndex(mesh).For(node) }

// For gives the generator of a node.
func (x *Index) For(node Node) *Generator {
	return &Generator{Index: x, node: node, scope: x.scopeOf(&node)}
}

// Resource gives the resource of that type and name; false when there is none, or the type is unknown.
func (g *Generator) Resource(typeURL, name string) (proto.Message, bool) {
	switch typeURL {
	case ListenerType:
		return g.Listener(name)
	case RouteType:
		return g.Route(name)
	case ClusterType:
		return g.Cluster(name)
	case EndpointsType:
		return g.Endpoints(name)
	case DNSType:
		return g.DNS(name)
	}
	return nil, false
}

// Class gives a key: nodes with equal keys get equal resources of that type and name from this Index. It is empty where only the
// node itself gets the resource.
func (g *Generator) Class(typeURL, name string) string {
	if g.node.Role == wire.Gateway && (typeURL == ListenerType || typeURL == RouteType) {
		return ""
	}
	if name == wire.InboundListener || name == wire.OutboundListener || typeURL == ClusterType && strings.HasPrefix(name, "inbound|") {
		return ""
	}
	class := g.node.Namespace
	if g.scope != nil {
		class += "|sidecar=" + g.scope.Ref.Namespace + "/" + g.scope.Ref.Name
	}
	if g.node.Proxyless {
		class += "|proxyless"
	}
	class += g.byWorkload.of(&g.node)
	if typeURL == ListenerType || typeURL == RouteType {
		class += "|" + g.bySource.of(&g.node)
	}
	return class
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }

// wildcardCovers reports whether a host with a wildcard ("*", "*.example.com") covers a host.
func wildcardCovers(wildcard, host string) bool {
	suffix := wildcard[1:]
	return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// subsetOf reports whether all labels of the selector are among those given.
func subsetOf(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
