// Package model is the mesh in the control plane's own words: services, routes, destinations, gateways, policies and workloads,
// keyed by host, whichever objects (Istio, Gateway API, Ingress, core Kubernetes) they were written as.
//
// Package compile makes a Mesh from objects; package generate turns it, for one node, into xDS messages. A Mesh is immutable once
// compiled; parts that did not change are shared between successive ones. Only the standard library is imported here.
package model

import (
	"iter"
	"net/netip"
	"reflect"
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
}

// WorkloadPort is a port on which a workload accepts connections.
type WorkloadPort struct {
	Number   uint16
	Protocol Protocol
	// ServiceHost of the service that leads there, for metrics; the first by name when there are several. ServicePort is its port.
	ServiceHost string
	ServicePort uint16
}

// ClientTLS gives what the service asks of its clients at a port; nil for nothing.
func (s *Service) ClientTLS(port uint16) *ClientTLS {
	if t := s.TLS[port]; t != nil {
		return t
	}
	return s.TLS[0]
}

// KeyPair is a certificate with its key, as PEM.
type KeyPair struct{ Certificate, Key []byte }

// Gateway is a set of ports that gateway workloads open: a Gateway, a ListenerSet, or what an Ingress asks for.
type Gateway struct {
	Ref Ref
	// Selector picks gateway workloads by label; SelectorNamespace restricts it to one namespace ("" for any).
	Selector          map[string]string
	SelectorNamespace string
	Servers           []Server
	// HTTP3 serves HTTP/3 too at the ports of servers that terminate HTTPS.
	HTTP3 bool
	// ProxyProtocol says that what stands in front of the gateway sends PROXY protocol headers.
	ProxyProtocol ProxyProtocol
	// Client is what the gateway shows to backends whose BackendTLSPolicy has it speak TLS; nil for nothing.
	Client  *KeyPair
	Created time.Time
}

// ProxyProtocol is what a gateway expects at the beginning of connections.
type ProxyProtocol uint8

// The expectations: none, a header, or perhaps a header.
const (
	NoProxyProtocol ProxyProtocol = iota
	RequiredProxyProtocol
	OptionalProxyProtocol
)

// Server is one port of a gateway.
type Server struct {
	Port     uint16
	Name     string
	Protocol Protocol
	Bind     string
	// Hosts as "namespace/host" parts: Namespace "" or "*" for any, "." was replaced by the gateway's own.
	Hosts         []GatewayHost
	HTTPSRedirect bool
	TLS           *ServerTLS
	// Others are, for a listener of the Gateway API, the hosts of all listeners that its Gateway and ListenerSets have at the port, its
	// own among them, each of which has its requests to itself. There are none where it is the only one.
	Others []string
}

// TerminatesHTTPS reports whether requests come to the server through TLS that ends here, with a certificate that any client takes.
func (s *Server) TerminatesHTTPS() bool {
	return s.Protocol == HTTPS && s.TLS != nil && s.TLS.Mode != TLSPassthrough && s.TLS.Mode != TLSIstioMutual
}

// GatewayHost is a host that a server takes, and the namespace that route sets for it must be in ("" for any).
type GatewayHost struct{ Namespace, Host string }

// ServerTLS is a gateway's TLS.
type ServerTLS struct {
	Mode        TLSMode
	Certificate []byte // PEM
	Key         []byte // PEM
	// More certificates, of which clients are shown the one that they can take.
	More []KeyPair
	CA   []byte // PEM, for Mutual and OptionalMutual
	CRL  []byte // PEM; empty for none
	// SANs are the names that clients' certificates need one of; empty for any. CipherSuites are OpenSSL's names, for TLS 1.2; empty
	// for the default.
	SANs, CipherSuites []string
	// CertificateHashes (hexadecimal) and KeyHashes (base64) are SHA-256 of the certificates and public keys of the clients that are let
	// in; both empty for any.
	CertificateHashes, KeyHashes []string
	// AnyClient asks clients for a certificate and takes any, or none: it is for whoever is behind to judge it.
	AnyClient  bool
	MinVersion uint16
	MaxVersion uint16
}

// AsksTheSame reports whether two servers that end TLS ask the same of clients and speak the same with them, whatever certificates they
// show.
func AsksTheSame(a, b *Server) bool {
	x, y := *a.TLS, *b.TLS
	for _, t := range []*ServerTLS{&x, &y} {
		t.Certificate, t.Key, t.More = nil, nil, nil
	}
	return a.Protocol == HTTPS && b.Protocol == HTTPS && reflect.DeepEqual(x, y)
}

// TLSMode says who encrypts and who proves what.
type TLSMode uint8

// The modes. Unset lets the mesh decide (mutual TLS where the endpoint has a sidecar).
const (
	TLSUnset TLSMode = iota
	TLSDisable
	TLSSimple
	TLSMutual
	TLSIstioMutual
	TLSPassthrough
	// TLSOptionalMutual verifies the certificates of clients that show one.
	TLSOptionalMutual
	// TLSAutoPassthrough sends connections to the service that the server name spells out.
	TLSAutoPassthrough
)

// Destination is a DestinationRule.
type Destination struct {
	Ref      Ref
	Host     string // canonical; may start with "*."
	ExportTo Visibility
	// Selector restricts it to clients in its own namespace with these labels; nil for any.
	Selector map[string]string
	// HealthCheck is nil where nobody asks for one.
	HealthCheck *HealthCheck
	Policy      TrafficPolicy
	Subsets     []Subset
	Created     time.Time
}

// Subset is a part of a service's endpoints.
type Subset struct {
	Name   string
	Labels map[string]string
	Policy *TrafficPolicy // nil inherits
}

// TrafficPolicy says how a destination is reached. Nil parts inherit.
type TrafficPolicy struct {
	Balancing *Balancing
	Pool      *ConnectionPool
	Outlier   *Outlier
	TLS       *ClientTLS
	// ProxyProtocol is the version of the header that connections begin with; 0 for none.
	ProxyProtocol uint8
	RetryBudget   *RetryBudget
	Tunnel        *Tunnel
	Ports         map[uint16]*TrafficPolicy // port-level settings replace the whole policy for that port, as in Istio
}

// Tunnel says that who is behind a destination is a proxy, which is asked to connect to Target ("host:port") for relayed connections:
// by CONNECT, or by a POST whose bodies carry the bytes.
type Tunnel struct {
	Target string
	Post   bool
}

// IsZero reports whether a policy says nothing.
func (p *TrafficPolicy) IsZero() bool {
	return p.Balancing == nil && p.Pool == nil && p.Outlier == nil && p.TLS == nil && p.ProxyProtocol == 0 && p.RetryBudget == nil && p.Tunnel == nil && len(p.Ports) == 0
}

// Balancing is a load-balancing policy. Nil parts and an empty Simple leave the choice to the mesh.
type Balancing struct {
	// Simple is "ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH", "PEAK_EWMA" or "PROBING".
	Simple   string
	Hash     *ConsistentHash
	Locality *LocalitySetting
	Warmup   *Warmup
}

// ConsistentHash sends equal keys to the same endpoint. One of Header, Query, Cookie, SourceIP is set.
type ConsistentHash struct {
	Header, Query, Cookie string
	CookieTTL             *time.Duration // nil: clients bring the cookie; 0: until the browser closes
	CookiePath            string
	CookieAttributes      [][2]string
	SourceIP              bool
	Maglev                bool
	TableSize             uint64 // of Maglev; 0 for the default
	RingSize              uint64 // at least; 0 for the default
}

// LocalitySetting is how localities share the load.
type LocalitySetting struct {
	Disabled         bool
	Distribute       []Distribution
	Failover         [][2]string // from region to region
	FailoverPriority []string    // labels, or "label=value"
}

// Distribution gives, to clients in From, the weights of localities. All are "region/zone/subzone", where a star may stand last.
type Distribution struct {
	From string
	To   map[string]uint32
}

// LocalityMatches reports whether a locality, or a narrower pattern, is within a pattern.
func LocalityMatches(pattern, locality string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(locality, "/")
	for i, w := range want {
		if w == "*" {
			return true
		}
		if i >= len(got) || got[i] != w {
			return false
		}
	}
	return true
}

// Labels that tell a locality.
const (
	RegionLabel  = "topology.kubernetes.io/region"
	ZoneLabel    = "topology.kubernetes.io/zone"
	SubzoneLabel = "topology.istio.io/subzone"
)

// HealthCheck lets clients ask endpoints every Interval whether they are well: by a GET of Path, by gRPC's health service, or by
// connecting.
type HealthCheck struct {
	Path     string // for HTTP
	GRPC     bool
	Service  string // for GRPC; may be empty
	Interval time.Duration
}

// Warmup lets new endpoints start with a part of the load.
type Warmup struct {
	Duration       time.Duration
	MinimumPercent float64
	Aggression     float64
}

// ConnectionPool holds limits; zero means none.
type ConnectionPool struct {
	MaxConnections           uint32
	ConnectTimeout           time.Duration
	MaxConnectionDuration    time.Duration
	TCPIdleTimeout           time.Duration
	KeepAlive                *KeepAlive
	MaxPending               uint32
	MaxRequests              uint32
	MaxRequestsPerConnection uint32
	MaxStreams               uint32 // at a time on a connection of HTTP/2
	PingAfter, PingTimeout   time.Duration
	MaxRetries               *uint32
	IdleTimeout              time.Duration
	// UpgradeHTTP2 speaks HTTP/2 to ports of HTTP, ClientProtocol to every port what the client speaks; the latter goes first.
	UpgradeHTTP2, ClientProtocol bool
	// KeepHTTP1 speaks HTTP/1.1 to ports that are declared as HTTP and no more, whatever the client speaks or the mesh wishes. It does
	// not count beside ClientProtocol.
	KeepHTTP1 bool
}

// RetryBudget bounds the retries under way by a percentage of the requests under way, and allows Min in any case. Nil takes Istio's
// defaults, 20 and 3.
type RetryBudget struct {
	Percent *float64
	Min     *uint32
}

// KeepAlive is TCP's. Zero values are the system's.
type KeepAlive struct {
	Probes         uint32
	Idle, Interval time.Duration
}

// Outlier is outlier detection.
type Outlier struct {
	Consecutive5xx     *uint32
	ConsecutiveGateway *uint32
	ConsecutiveLocal   *uint32
	SplitLocalOrigin   bool
	Interval           time.Duration
	BaseEjection       time.Duration
	MaxEjectionPercent uint32
	MinHealthPercent   uint32
	// ErrorCodes are the statuses of responses that count as errors, in place of those from 500 on; empty for these.
	ErrorCodes []uint32
}

// ClientTLS is the TLS towards a destination.
type ClientTLS struct {
	Mode             TLSMode
	SNI              string
	SANs             []string
	CA               []byte // PEM; empty for the system's roots
	CRL              []byte // PEM, with CA; empty for none
	Certificate, Key []byte
	SkipVerify       bool
	// Refuse has connections fail, and says why: what is needed to verify the server, or to prove who the client is, is not to be had.
	Refuse string
}

// PeerAuthentication says which connections an inbound side takes.
type PeerAuthentication struct {
	Ref       Ref
	Namespace string            // "" for the mesh (it was in the root namespace, without selector)
	Selector  map[string]string // nil for the whole namespace
	Mode      MTLSMode
	Ports     map[uint16]MTLSMode
	Created   time.Time
}

// MTLSMode is a PeerAuthentication mode.
type MTLSMode uint8

// The modes. Unset inherits; the mesh's default is Permissive.
const (
	MTLSUnset MTLSMode = iota
	MTLSPermissive
	MTLSStrict
	MTLSDisable
)

// AuthorizationPolicy allows or denies requests to workloads.
type AuthorizationPolicy struct {
	Ref       Ref
	Namespace string // "" for the mesh
	Selector  map[string]string
	Action    AuthAction
	DryRun    bool
	// Rules: none with Allow means "allow nothing"; none with Deny means the policy never matches.
	Rules   []AuthRule
	Created time.Time
}

// AuthAction of a policy.
type AuthAction uint8

// The actions, evaluated in the order Deny, Allow; Audit only logs.
const (
	AuthAllow AuthAction = iota
	AuthDeny
	AuthAudit
)

// AuthRule matches when one of From, one of To and all of When match; an empty list matches anything.
type AuthRule struct {
	From []AuthSource
	To   []AuthOperation
	When []AuthCondition
}

// AuthSource is a set of conditions on the peer; all non-empty lists must match, each by one of its values. Values follow Istio:
// "*" any, "abc*" prefix, "*abc" suffix, else exact. Addresses are CIDRs.
type AuthSource struct {
	Principals, NotPrincipals           []string
	Namespaces, NotNamespaces           []string
	ServiceAccounts, NotServiceAccounts []string // "namespace/name"
	IPBlocks, NotIPBlocks               []netip.Prefix
	RemoteIPBlocks, NotRemoteIPBlocks   []netip.Prefix
}

// AuthOperation is a set of conditions on the request.
type AuthOperation struct {
	Hosts, NotHosts     []string
	Ports, NotPorts     []uint16
	Methods, NotMethods []string
	Paths, NotPaths     []string // Istio's value forms, or templates with {*} and {**}
}

// AuthCondition is a "when" entry: Key is one of Istio's attributes (source.principal, request.headers[x], destination.port, ...).
type AuthCondition struct {
	Key               string
	Values, NotValues []string
}
