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
// The mesh is read through an index.Reader alone, which notes what was looked at: a resource is made again when something of that
// changed, and only then. A service's Endpoints field is off limits for the same reason (Reader.Endpoints gives them), which a test
// watches. What is read of the node has to be in its Class.
//
// How Istio's objects become these messages follows Istio's own documentation and behaviour, so that the same YAML does the same.
package generate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate/cluster"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
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
type Node = view.Node

// Index is a mesh prepared for generation. It is immutable and safe for concurrent use.
type Index struct{ *index.Index }

// NewIndex prepares a mesh, which must not change afterwards.
func NewIndex(mesh *model.Mesh) Index { return Index{index.New(mesh)} }

// Next prepares the mesh that follows, at the cost of what the delta names.
func (x Index) Next(mesh *model.Mesh, d model.Delta) Index { return Index{x.Index.Next(mesh, d)} }

// Generator gives the resources of one node in one mesh. It keeps nothing between calls and is safe for concurrent use.
type Generator struct {
	mesh *index.Reader
	node *Node
	// view and clusters read through mesh.
	view     *view.View
	clusters *cluster.Generator
	// forSource, forWorkload and forReplica, which gateways have, are the classes of the node, see Class.
	forSource, forWorkload, forReplica string
	bound                              *Bound // nil for none
}

// New prepares a mesh for a single node.
func New(mesh *model.Mesh, node Node) *Generator { return NewIndex(mesh).For(node) }

// For gives the generator of a node.
func (x Index) For(node Node) *Generator {
	g := &Generator{node: &node}
	g.readThrough(x.Read())
	g.forWorkload, g.forSource = g.class(false), g.class(true)
	if node.Role == wire.Gateway {
		g.forReplica = g.forSource + g.replica()
	}
	return g
}

// Traced is Resource, and tells besides what it looked at in the mesh. While a delta names nothing of that, the resource stays as it is.
func (g *Generator) Traced(typeURL, name string) (m proto.Message, ok bool, seen []index.Key) {
	t := g.tracing()
	m, ok = t.Resource(typeURL, name)
	return m, ok, t.mesh.Seen()
}

// TracedNames is to Names what Traced is to Resource.
func (g *Generator) TracedNames(typeURL string) (names []string, seen []index.Key) {
	t := g.tracing()
	names = t.Names(typeURL)
	return names, t.mesh.Seen()
}

func (g *Generator) tracing() *Generator {
	t := *g
	t.readThrough(g.mesh.Index().Trace())
	return &t
}

func (g *Generator) readThrough(mesh *index.Reader) {
	g.mesh, g.view = mesh, view.New(mesh, g.node)
	g.clusters = cluster.New(mesh, g.node, g.view)
}

// Resource gives the resource of that type and name; false when there is none, or the type is unknown.
func (g *Generator) Resource(typeURL, name string) (proto.Message, bool) {
	switch {
	case g.node.Proxyless:
		return g.proxylessResource(typeURL, name)
	case g.node.Classic:
		return g.classicResource(typeURL, name)
	}
	return g.resource(typeURL, name)
}

func (g *Generator) resource(typeURL, name string) (proto.Message, bool) {
	switch typeURL {
	case ListenerType:
		return g.Listener(name)
	case RouteType:
		return g.Route(name)
	case ClusterType:
		return g.clusters.Cluster(name)
	case EndpointsType:
		return g.clusters.Endpoints(name)
	case DNSType:
		return g.clusters.DNS(name)
	}
	return nil, false
}

// Hidden says why a service of the mesh does not exist for the node, at any of its ports; empty where it does.
func (g *Generator) Hidden(s *model.Service) string {
	scope := g.view.Sidecar()
	switch {
	case !g.view.Visible(s):
		return "the service is not exported to namespace " + g.node.Namespace
	case scope == nil || g.view.ReachesSome(s):
		return ""
	}
	return scope.Ref.String() + " does not import it"
}

// Unruled says which route set names a host that the node does not know at a port; empty where none does.
func (g *Generator) Unruled(host string, port uint16) string {
	if s := g.view.Unruled(host, port); s != nil {
		return s.Ref.String()
	}
	return ""
}

// Class gives a key: nodes with equal keys get equal resources of that type and name from this Index. It is empty where only the
// node itself gets the resource. The name "*" is for Names.
func (g *Generator) Class(typeURL, name string) string {
	switch {
	case name == "*" && g.view.OpensUnnamed():
		return ""
	case g.node.Role == wire.Gateway && (name == "*" || typeURL == RouteType):
		return g.forReplica
	case name == "*":
		return g.forSource + g.inboundPorts()
	case g.node.Role == wire.Gateway && typeURL == ListenerType,
		name == wire.InboundListener || name == wire.OutboundListener || strings.HasPrefix(name, wire.GRPCServerListenerPrefix),
		typeURL == ClusterType && strings.HasPrefix(name, "inbound|"):
		return ""
	case typeURL == ListenerType || typeURL == RouteType:
		return g.forSource
	}
	return g.forWorkload
}

// replica is what else decides about a gateway, but for its name: what its replicas have in common.
func (g *Generator) replica() string {
	b := fmt.Appendf(nil, "|%d", g.node.ProxyProtocol)
	for _, k := range slices.Sorted(maps.Keys(g.node.Labels)) {
		b = append(strconv.AppendQuote(append(b, '|'), k), '=')
		b = strconv.AppendQuote(b, g.node.Labels[k])
	}
	for _, p := range g.node.Ports {
		b = fmt.Appendf(b, "|%d:%q:%q:%d", p.Number, p.Protocol, p.ServiceHost, p.ServicePort)
	}
	return string(b)
}

// inboundPorts are the numbers of a workload's ports, each of which has a cluster.
func (g *Generator) inboundPorts() string {
	var b []byte
	for _, p := range g.view.Ports() {
		b = strconv.AppendUint(append(b, '|'), uint64(p.Number), 10)
	}
	return string(b)
}

func (g *Generator) class(sources bool) string {
	class := string(g.node.Role) + "|" + g.node.Namespace
	if s := g.view.Sidecar(); s != nil {
		class += "|sidecar=" + s.Ref.Namespace + "/" + s.Ref.Name
	}
	if g.node.Proxyless {
		class += "|proxyless"
	}
	if g.node.Classic {
		class += "|classic|" + g.node.SecretsDir
	}
	return class + g.mesh.Index().Class(g.node.Labels, g.node.Locality, sources)
}
