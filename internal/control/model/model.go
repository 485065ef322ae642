// Package model is the mesh in the control plane's own words: services, routes, destinations, gateways, policies and workloads,
// keyed by host, whichever objects (Istio, Gateway API, Ingress, core Kubernetes) they were written as.
//
// Package compile makes a Mesh from objects; package generate turns it, for one node, into xDS messages. A Mesh is immutable once
// compiled; parts that did not change are shared between successive ones. Only the standard library is imported here.
package model

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Mesh is one compiled state.
type Mesh struct {
	Settings Settings
	// Services by canonical host ("reviews.default.svc.cluster.local", "www.googleapis.com", "*.example.com").
	Services Table[string, *Service]
	// ByAddress finds the hosts of services by a virtual address, and by an endpoint's address for headless services.
	ByAddress Table[netip.Addr, []string]
	// ByNetwork finds the hosts of services by a range of addresses; the longest range that holds an address counts, and single
	// addresses before it.
	ByNetwork Table[netip.Prefix, []string]
	// RouteSets are routes for hosts, in order of precedence (oldest first, then namespace/name).
	RouteSets []*RouteSet
	// Destinations by host as written in full ("reviews.default.svc.cluster.local" or "*.local"); several namespaces may
	// have one for the same host.
	Destinations Table[string, []*Destination]
	Gateways     []*Gateway
	// Workloads by namespace/name: pods, local processes, WorkloadEntries.
	Workloads Table[string, *Workload]

	PeerAuthentications []*PeerAuthentication
	// OtherPeers, while Changing, are the PeerAuthentications at the other end of a change that is on its way through the mesh: workloads
	// take what either takes, and who calls them goes by PeerAuthentications.
	OtherPeers []*PeerAuthentication
	Changing   bool

	AuthorizationPolicies []*AuthorizationPolicy
	RateLimits            []*RateLimit // oldest first
	Sidecars              []*Sidecar   // oldest first
	ProxyConfigs          []*ProxyConfig
}

// Ref names the object that something was compiled from, for names, explanations and findings.
type Ref struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String gives "Kind/namespace/name".
func (r Ref) String() string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// CompareName orders objects of one age: by "namespace/name" in alphabetical order, as the Gateway API has it.
func (r Ref) CompareName(o Ref) int {
	if r.Namespace == o.Namespace {
		return strings.Compare(r.Name, o.Name)
	}
	return strings.Compare(r.Namespace+"/", o.Namespace+"/")
}

// Protocol of a port.
type Protocol string

// The protocols. Auto means undeclared: the proxy looks at the first bytes.
const (
	Auto  Protocol = "auto"
	HTTP  Protocol = "http"
	HTTP2 Protocol = "http2"
	GRPC  Protocol = "grpc"
	// GRPCWeb is gRPC for the application, and for clients that or gRPC-Web.
	GRPCWeb Protocol = "grpc-web"
	HTTPS   Protocol = "https"
	TLS     Protocol = "tls"
	TCP     Protocol = "tcp"
	// UDP is for datagrams. Its ports have numbers of their own.
	UDP Protocol = "udp"
)

// IsHTTP reports whether requests are routed on this protocol.
func (p Protocol) IsHTTP() bool { return p == HTTP || p.IsHTTP2() }

// IsHTTP2 reports whether who speaks this protocol is spoken to in HTTP/2.
func (p Protocol) IsHTTP2() bool { return p == HTTP2 || p == GRPC || p == GRPCWeb }

// Service is something that has a host name.
type Service struct {
	Ref       Ref
	Host      string // canonical, lower case
	Namespace string
	Name      string // short name; the host for external ones
	Addresses []netip.Addr
	// Allocated is an address that the mesh itself gave a service without any, for sidecars that answer DNS; zero for none.
	Allocated netip.Addr
	// Networks are ranges of addresses, each of which means the service as one of Addresses does.
	Networks []netip.Prefix
	Headless bool
	// External services are not in the mesh (ServiceEntry location MESH_EXTERNAL): no mutual TLS.
	External   bool
	Resolution Resolution
	Ports      []Port
	// UDP are the ports for datagrams, which gateways alone send to.
	UDP       []Port
	Labels    map[string]string
	ExportTo  Visibility
	Endpoints []*Endpoint
	// ExternalName is set for Kubernetes services that are an alias.
	ExternalName string
	// TLS is what the service asks of its clients (BackendTLSPolicy), by port; 0 is for those not named. A DestinationRule's goes first.
	TLS map[uint16]*ClientTLS
	// Near prefers the endpoints that are nearest to the client (Kubernetes' trafficDistribution).
	Near bool
	// SANs are names of which a server's certificate needs one, where the client's DestinationRule names none.
	SANs    []string
	Created time.Time
	// Others are what objects of other namespaces say of the host, one for each namespace, the oldest first; nil as a rule. See For.
	Others []*Service
}

// All gives the service and the others of its host.
func (s *Service) All() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		if s == nil || !yield(s) {
			return
		}
		for _, o := range s.Others {
			if !yield(o) {
				return
			}
		}
	}
}

// For gives, of a service and the others of its host, the one that the host means to clients of a namespace, as in Istio: what the
// namespace says itself, else a Kubernetes service, else what is exported to the namespace by name, else what is for all; the oldest of
// these. Sees, unless it is nil, leaves out more than what is not visible there. Where nothing is left, it is the first.
func (s *Service) For(namespace string, sees func(*Service) bool) *Service {
	return s.pick(namespace, sees, true)
}

// ForGateway is For of a gateway, which does not prefer what its own namespace says.
func (s *Service) ForGateway(namespace string) *Service { return s.pick(namespace, nil, false) }

func (s *Service) pick(namespace string, sees func(*Service) bool, ownFirst bool) *Service {
	if s == nil || len(s.Others) == 0 {
		return s
	}
	best, most := s, -1
	for c := range s.All() {
		if !c.ExportTo.VisibleFrom(c.Namespace, namespace) || sees != nil && !sees(c) {
			continue
		}
		rank := 0
		switch {
		case ownFirst && c.Namespace == namespace:
			rank = 3
		case c.Ref.Kind == "Service":
			rank = 2
		case c.ExportTo.Private || len(c.ExportTo.Namespaces) > 0 && !slices.Contains(c.ExportTo.Namespaces, "*"):
			rank = 1
		}
		if rank > most {
			best, most = c, rank
		}
	}
	return best
}

// Port of a service.
type Port struct {
	Number   uint16
	Name     string
	Protocol Protocol
}

// VirtualAddresses are those by which sidecars that answer DNS know the service.
func (s *Service) VirtualAddresses() []netip.Addr {
	if s.Allocated.IsValid() {
		return append(slices.Clip(s.Addresses), s.Allocated)
	}
	return s.Addresses
}

// Port gives the port of that number, or nil.
func (s *Service) Port(number uint16) *Port {
	for i := range s.Ports {
		if s.Ports[i].Number == number {
			return &s.Ports[i]
		}
	}
	return nil
}

// UDPPort gives the port for datagrams of that number, or nil.
func (s *Service) UDPPort(number uint16) *Port {
	for i := range s.UDP {
		if s.UDP[i].Number == number {
			return &s.UDP[i]
		}
	}
	return nil
}

// Resolution is how a service's endpoints are found.
type Resolution uint8

// The resolutions. None passes connections to where they were going. ByHost looks up the host that a request or a ClientHello names; the
// service's own is a wildcard that covers it.
const (
	Static Resolution = iota
	DNS
	DNSRoundRobin
	None
	ByHost
)

// Visibility is an exportTo list. The zero value exports to all.
type Visibility struct {
	Private    bool     // only the own namespace
	Namespaces []string // only these; empty for all
}

// VisibleFrom reports whether something of namespace owner may be used in namespace ns.
func (v Visibility) VisibleFrom(owner, ns string) bool {
	if v.Private {
		return owner == ns
	}
	if len(v.Namespaces) == 0 {
		return true
	}
	for _, n := range v.Namespaces {
		if n == ns || n == "*" {
			return true
		}
	}
	return false
}

// Distance orders what is exported to namespace ns, as in Istio: 0 for what is of ns itself and names it, 1 for what others export to it by
// name, 2 for what is for all.
func (v Visibility) Distance(owner, ns string) int {
	switch {
	case v.Private || owner == ns && slices.Contains(v.Namespaces, ns):
		return 0
	case slices.Contains(v.Namespaces, ns):
		return 1
	}
	return 2
}

// Endpoint is one instance of a service.
type Endpoint struct {
	Address string // IP address; with Resolution DNS, also a name; with Static, also "unix:///path"
	// Ports maps a service port's number to the instance's port.
	Ports map[uint16]uint16
	// UDP does so for ports for datagrams.
	UDP            map[uint16]uint16
	Labels         map[string]string
	Namespace      string
	ServiceAccount string
	Workload       string // owner (Deployment name)
	Instance       string // pod name
	Ready          bool
	// Mesh says that a sidecar is in front of it, so that mutual TLS is possible.
	Mesh bool
	// Proxyless says that it is a server of gRPC's own xDS library, without a sidecar: it takes mutual TLS where that is demanded, and
	// nothing else then.
	Proxyless bool
	Weight    uint32 // 0 counts as 1
	Locality  string // region/zone/subzone
}

// Account is a service account of a namespace.
type Account struct{ Namespace, Name string }

// Accounts are those that the service's endpoints run under, ready or not, sorted: all that a server of it may be.
func (s *Service) Accounts() []Account {
	var all []Account
	for _, e := range s.Endpoints {
		a := Account{e.Namespace, e.ServiceAccount}
		if a.Name != "" && (len(all) == 0 || all[len(all)-1] != a) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Account) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return slices.Compact(all)
}

// Workload is a running instance, known by its own name rather than by a service.
type Workload struct {
	Namespace, Name string
	Owner           string // Deployment
	Labels          map[string]string
	Locality        string // region/zone/subzone
	ServiceAccount  string
	Addresses       []netip.Addr
	Gateway         bool
	Ready           bool
	// Bare says that its owner wants no proxy beside it: what it sends goes past the mesh.
	Bare bool
	// ProxyProtocol is what all ports of a gateway expect; a Gateway object may say otherwise for its own.
	ProxyProtocol ProxyProtocol
	// Ports that the manifest or a service declares, with the protocol of the service port that leads there.
	Ports []WorkloadPort
	// Targets are where ports of its Services lead that have another number here; gateways listen there for servers that
	// name the Services' ports. Services that keep out of it (PortTranslationLabel) have none.
	Targets []Target
}

// PortTranslationLabel on a Service or ServiceEntry, with any value, says that gateways behind it do not take its ports for their own, as in
// Istio: a server is reached there by the target port that it names itself.
const PortTranslationLabel = "experimental.istio.io/disable-gateway-port-translation"

// Address is the first of its addresses; the zero Addr when none is known.
func (w *Workload) Address() netip.Addr {
	if len(w.Addresses) == 0 {
		return netip.Addr{}
	}
	return w.Addresses[0]
}

// WorkloadPort is a port on which a workload accepts connections.
type WorkloadPort struct {
	Number   uint16
	Protocol Protocol
	// ServiceHost of the service that leads there, for metrics; the first by name when there are several. ServicePort is its port.
	ServiceHost string
	ServicePort uint16
}

// Target says to which port of a workload a Service's leads.
type Target struct {
	Port   uint16 // of the Service
	UDP    bool   // rather than TCP
	Number uint16 // of the workload
}

// TargetPort is the port of a workload at which it listens for a server that names a port: the same where targets do not say otherwise.
func TargetPort(targets []Target, port uint16, udp bool) uint16 {
	for _, t := range targets {
		if t.Port == port && t.UDP == udp {
			return t.Number
		}
	}
	return port
}
