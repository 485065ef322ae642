package serve

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/rpc"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/printable"
	"github.com/weftmesh/weft/internal/wire"
)

// caller is who is at the other end, as the connection proves it.
type caller struct {
	identity.Peer
	address string
	// certificate is its serial number, and expires its end.
	certificate string
	expires     time.Time
}

// authenticate takes the caller's identity from its certificate, which the handshake has verified.
func (s *Server) authenticate(p rpc.Peer) (caller, error) {
	if len(p.Certificates) == 0 {
		return caller{}, status.Error(codes.Unauthenticated, "discovery needs a client certificate of the mesh")
	}
	leaf := p.Certificates[0]
	who, err := identity.PeerFromCertificate(leaf)
	if err != nil {
		return caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	if who.TrustDomain != s.options.TrustDomain {
		return caller{}, status.Errorf(codes.PermissionDenied, "%s is not of trust domain %q", who.ID, s.options.TrustDomain)
	}
	return caller{Peer: who, address: p.Address.String(), certificate: string(leaf.SerialNumber.Bytes()), expires: leaf.NotAfter}, nil
}

// claim is what a client says of itself in its first request.
type claim struct {
	id        string
	role      wire.Role
	name      string // pod or process
	namespace string
	account   string
	labels    map[string]string
	locality  string // region/zone/subzone
	proxyless bool
	classic   bool // an Envoy
	secrets   string
}

// readClaim reads a node as our proxies and Istio's agents write it; a plain gRPC client has less.
func readClaim(n *corev3.Node) claim {
	fields := n.GetMetadata().GetFields()
	text := func(key string) string { return fields[key].GetStringValue() }
	c := claim{id: n.GetId(), role: wire.Sidecar, name: text("NAME"), namespace: text("NAMESPACE"), account: text("SERVICE_ACCOUNT"),
		labels: map[string]string{}}
	c.proxyless = strings.HasPrefix(n.GetUserAgentName(), "gRPC") || text("GENERATOR") == "grpc"
	c.classic, c.secrets = n.GetUserAgentName() == "envoy", text(wire.SDSDirField)
	if l := n.GetLocality(); l.GetRegion() != "" || l.GetZone() != "" {
		c.locality = strings.TrimRight(l.GetRegion()+"/"+l.GetZone()+"/"+l.GetSubZone(), "/")
	}
	// The id is role~ip~name.namespace~domain.
	if parts := strings.Split(n.GetId(), "~"); len(parts) == 4 {
		if parts[0] == string(wire.Gateway) {
			c.role = wire.Gateway
		}
		name, namespace, ok := cutLast(parts[2])
		if ok && c.name == "" {
			c.name = name
		}
		if ok && c.namespace == "" {
			c.namespace = namespace
		}
	}
	if text("ROLE") == string(wire.Gateway) {
		c.role = wire.Gateway
	}
	for k, v := range fields["LABELS"].GetStructValue().GetFields() {
		c.labels[k] = v.GetStringValue()
	}
	return c
}

// cutLast splits "name.namespace"; names may have dots, namespaces not.
func cutLast(s string) (name, namespace string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i <= 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// What a client may say of itself is bounded, since it is kept as long as the stream is there, and its id for a while after.
const (
	maxPart   = 253           // bytes of a part of the id, a name or a place: as long as a DNS name
	maxID     = 4*maxPart + 3 // four parts and what is between them
	maxPath   = 4096          // bytes of a folder
	maxLabels = 16 << 10      // bytes of all labels
)

// fits says what of the claim is too long to be kept, or not to be shown.
func (c claim) fits() error {
	switch {
	case c.id == "":
		return status.Error(codes.InvalidArgument, "node.id is required in the first request of a stream")
	case len(c.id) > maxID || slices.ContainsFunc(strings.Split(c.id, "~"), func(part string) bool { return len(part) > maxPart }):
		return status.Errorf(codes.InvalidArgument, "node.id has %d bytes: no part of it (role~ip~name.namespace~domain) may have more than %d", len(c.id), maxPart)
	case printable.Text(c.id) != c.id:
		return status.Errorf(codes.InvalidArgument, "node.id %q has control characters", c.id)
	case len(c.name) > maxPart:
		return status.Errorf(codes.InvalidArgument, "NAME in node.metadata has %d bytes, and may have %d", len(c.name), maxPart)
	case printable.Text(c.name) != c.name:
		return status.Errorf(codes.InvalidArgument, "NAME %q in node.metadata has control characters", c.name)
	case len(c.locality) > 3*maxPart:
		return status.Errorf(codes.InvalidArgument, "node.locality has %d bytes, and may have %d", len(c.locality), 3*maxPart)
	case len(c.secrets) > maxPath:
		return status.Errorf(codes.InvalidArgument, "%s in node.metadata has %d bytes, and may have %d", wire.SDSDirField, len(c.secrets), maxPath)
	}
	size := 0
	for k, v := range c.labels {
		size += len(k) + len(v)
	}
	if size > maxLabels {
		return status.Errorf(codes.InvalidArgument, "LABELS in node.metadata have %d bytes, and may have %d", size, maxLabels)
	}
	return nil
}

// check compares the claim with what the certificate proves.
func (c claim) check(who caller) error {
	if err := c.fits(); err != nil {
		return err
	}
	if c.namespace != "" && c.namespace != who.Namespace {
		return status.Errorf(codes.PermissionDenied, "node %q claims namespace %q, but its certificate is for %s", c.id, c.namespace[:min(len(c.namespace), maxPart)], who.ID)
	}
	if c.account != "" && c.account != who.ServiceAccount {
		return status.Errorf(codes.PermissionDenied, "node %q claims service account %q, but its certificate is for %s", c.id, c.account[:min(len(c.account), maxPart)], who.ID)
	}
	return nil
}

// foreign says of a client that claims the name of a workload which runs under another account than its certificate's. A name that the
// mesh does not know is nobody's yet: sidecars connect before their pods are reported. mesh is nil before the first one.
func (c claim) foreign(who caller, mesh *model.Mesh) error {
	if mesh == nil || c.name == "" {
		return nil
	}
	w := mesh.Workloads.Get(who.Namespace + "/" + c.name)
	if w == nil || w.ServiceAccount == "" || w.ServiceAccount == who.ServiceAccount {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "node %q claims to be %s/%s, which runs as service account %q, but its certificate is for %s",
		c.id, who.Namespace, c.name, w.ServiceAccount, who.ID)
}

// node says what the client is in a mesh. Namespace and account are the certificate's. Labels and ports are those of the workload of
// that name when the mesh knows it and it runs under that account. Otherwise a sidecar is believed its labels, which decide only
// about itself; a gateway is not, because its labels decide whose TLS keys it gets.
func (c claim) node(who caller, mesh *model.Mesh) generate.Node {
	n := generate.Node{Role: c.role, Name: c.name, Namespace: who.Namespace, ServiceAccount: who.ServiceAccount, Proxyless: c.proxyless,
		Classic: c.classic, SecretsDir: c.secrets, Locality: c.locality} // it decides about the order of endpoints only
	w := mesh.Workloads.Get(who.Namespace + "/" + c.name)
	switch {
	case w != nil && (w.ServiceAccount == who.ServiceAccount || w.ServiceAccount == ""): // others are turned away: see foreign
		n.Labels, n.Ports, n.ProxyProtocol = w.Labels, w.Ports, w.ProxyProtocol
		n.Locality = cmp.Or(w.Locality, c.locality)
		if c.role == wire.Gateway {
			n.Targets = w.Targets
		}
	case c.role == wire.Sidecar:
		n.Labels = c.labels
	}
	return n
}

// unplaced says why a gateway gets no listeners, though Gateways may select the labels that it claims; empty where the mesh knows it.
func (c claim) unplaced(n generate.Node, mesh *model.Mesh) string {
	if n.Role != wire.Gateway || len(n.Labels) > 0 {
		return ""
	}
	w := mesh.Workloads.Get(n.Namespace + "/" + c.name)
	if w == nil {
		return fmt.Sprintf("the gateway gets no listeners: no Pod or WorkloadEntry %s/%s says which labels it has", n.Namespace, c.name)
	}
	return fmt.Sprintf("the gateway gets no listeners: %s/%s has no labels for Gateways to select", n.Namespace, c.name)
}

// sameNode reports whether a node is still what it was.
func sameNode(a, b generate.Node) bool {
	if !maps.Equal(a.Labels, b.Labels) || !slices.Equal(a.Ports, b.Ports) || !slices.Equal(a.Targets, b.Targets) {
		return false
	}
	a.Labels, b.Labels, a.Ports, b.Ports, a.Targets, b.Targets = nil, nil, nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}
