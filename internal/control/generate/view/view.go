// Package view is a mesh as one node sees it: which of its services, route sets, rules and gateways exist for the node, what a name that
// the node's applications use means there, and which of several rules counts for a destination. It makes no messages; what is looked at
// is noted by the index.Reader that it reads through.
package view

import (
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
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
	// Targets are the workload's, for gateways.
	Targets []model.Target
	// Proxyless says that the client is gRPC's own xDS client, which reads a smaller part of Envoy's messages.
	Proxyless bool
	// Classic says that the client is an Envoy: it gets the classical configuration. SecretsDir is where it has its certificates as
	// files; empty where a cluster of its own serves them.
	Classic    bool
	SecretsDir string
}

// View is what a node sees of a mesh. It keeps nothing between calls and is safe for concurrent use.
type View struct {
	mesh *index.Reader
	node *Node
}

// New gives a node's view through a reader, which from then on chooses as the node does among several services of one host. The node
// must not change afterwards.
func New(mesh *index.Reader, node *Node) *View {
	v := &View{mesh: mesh, node: node}
	mesh.Choose(v.choose)
	return v
}

// Visible reports whether a service is exported to the node.
func (v *View) Visible(s *model.Service) bool {
	return s.ExportTo.VisibleFrom(s.Namespace, v.node.Namespace)
}

// choose gives which of the services of a host the node uses. Gateways do not prefer those of their own namespace.
func (v *View) choose(s *model.Service) *model.Service {
	namespace := v.node.Namespace
	if v.node.Role == wire.Gateway {
		return s.ForGateway(namespace)
	}
	return s.For(namespace, func(o *model.Service) bool { return v.ReachesSome(o) })
}

// Service finds the service of a full host that the node may see: exact, or else the longest wildcard. Of an alias that is the service
// that it stands for.
func (v *View) Service(host string) *model.Service {
	return v.service(host, func(*model.Service) bool { return true })
}

// Named is Service for a name that the node's applications use: what the node's Sidecar hides does not exist for them, and hides nothing.
func (v *View) Named(host string) *model.Service { return v.service(host, v.ReachesSome) }

// At is Named of the services that exist for the node at a port.
func (v *View) At(host string, port uint16) *model.Service {
	return v.service(host, func(s *model.Service) bool { return s.Port(port) != nil && v.Reaches(s, port) })
}

func (v *View) service(host string, is func(*model.Service) bool) *model.Service {
	for named := range v.mesh.ServicesFor(host) {
		if !v.Visible(named) {
			continue
		}
		if s := v.Behind(named); is(s) {
			return s
		}
	}
	return nil
}

// Backing finds the service of a cluster name's host, and the endpoint when the name pins one.
func (v *View) Backing(host string) (*model.Service, *model.Endpoint) {
	if s := v.mesh.Service(host); s != nil {
		if !v.Visible(s) {
			return nil, nil
		}
		return v.Behind(s), nil
	}
	_, parent, ok := strings.Cut(host, ".")
	if !ok {
		return nil, nil
	}
	s := v.mesh.Service(parent)
	if s == nil || !s.Headless || !v.Visible(s) {
		return nil, nil
	}
	for _, e := range v.mesh.Endpoints(s) {
		if a, err := netip.ParseAddr(e.Address); err == nil && PinnedHost(a, parent) == host {
			return s, e
		}
	}
	return nil, nil
}

// Behind is the service that an ExternalName stands for as a further name; any other service, and one whose name leads out of the mesh
// or around in circles, is itself.
func (v *View) Behind(s *model.Service) *model.Service {
	a := s
	for range maxAliases {
		if a.ExternalName == "" {
			return a
		}
		next := v.mesh.Service(a.ExternalName)
		if next == nil || !v.Visible(next) {
			break
		}
		a = next
	}
	return s
}

// maxAliases is how many aliases may follow one another.
const maxAliases = 8

// PinnedHost names one endpoint of a headless service in cluster names, as "10-77-0-5.mysql.default.svc.cluster.local".
func PinnedHost(a netip.Addr, host string) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String()) + "." + host
}
