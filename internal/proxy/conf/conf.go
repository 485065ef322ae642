// Package conf is the proxy's configuration in the form in which the request path reads it: immutable, complete, with every
// matcher compiled. Package decode makes it from xDS messages and is the only place where it is validated; package live
// publishes it; everything on the request path only reads it.
//
// Nothing here may be changed after it was handed to live. A changed resource is a new value.
package conf

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// Snapshot is everything that the request path may look up, published as a whole behind one atomic pointer.
type Snapshot struct {
	// Outbound holds what was resolved by name so far: key wire.ListenerName ("reviews:9080", "10.78.1.2:9080"). A name that
	// the mesh does not know is present with a nil Target, so that it is not asked for again.
	Outbound map[string]*Target
	// Inbound is the listener for connections made to the workload; nil until the first configuration has come.
	Inbound *Listener
	// Unknown says where connections and requests of the workload go whose destination the mesh does not know; nil where the control
	// plane does not say. It has one cluster.
	Unknown *TCP
	// Concurrency is the number of cores that the proxy may use at a time: less than 0 for all, 0 where nobody says.
	Concurrency int
	// Gateways are the listeners that a gateway binds.
	Gateways []*Listener
	// Opened are the listeners that a sidecar binds beside those of its bootstrap file, as Listener.Opens has them.
	Opened []*Listener `json:",omitempty"`
	// RouteTables by name, for listeners whose HTTP chains name one (gateways).
	RouteTables map[string]*RouteTable
	// Clusters by name: all that any target, inbound chain or route table here refers to.
	Clusters map[string]*Cluster
}

// Target is an outbound destination, followed from its listener to its clusters: every name in it is in Snapshot.Clusters.
type Target struct {
	Name     string
	Listener *Listener
	// Routes is the route table of the listener's HTTP chain; nil when it has none.
	Routes *RouteTable
}

// Listener is a set of filter chains. Source: envoy.config.listener.v3.Listener.
type Listener struct {
	Name string
	// Concurrency as in Snapshot.
	Concurrency int
	// Opens, of a sidecar's wire.OutboundListener, are the addresses at which the proxy is to listen. They have no chains: "outbound" ones
	// mean what the target of their address does, "inbound" ones what Snapshot.Inbound says of their port.
	Opens []*Listener `json:",omitempty"`
	// Address to bind, for gateways; the zero AddrPort for captured traffic.
	Address netip.AddrPort
	// QUIC says that the address is a UDP port, for HTTP/3: every chain has TLS and HTTP.
	QUIC bool
	// Datagrams says what becomes of what comes to a UDP port that is not for HTTP/3; there are no chains then.
	Datagrams *Datagrams `json:",omitempty"`
	// Chains in the order of the message; the most specific match wins, see route.Chain.
	Chains []*Chain
	// Default serves connections that no chain matches; nil closes them.
	Default *Chain
	// ProxyProtocol has a header of the PROXY protocol read from each connection before anything else; nil does not look for one.
	ProxyProtocol *ProxyProtocol
	// TrafficDirection is "outbound", "inbound" or "gateway" for logs and metrics.
	Direction string
}

// ProxyProtocol is how a listener takes the header of the PROXY protocol. Source:
// envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol.
type ProxyProtocol struct {
	// Optional takes connections without a header as they are; otherwise they are closed.
	Optional bool
	// Disallowed are versions that are refused.
	Disallowed [3]bool
}

// Chain says what to do with a connection: TLS, then HTTP or TCP. An outbound target that leaves the protocol open has both
// HTTP and TCP set: HTTP is used when the client's first bytes are an HTTP/1 request line or the preface of HTTP/2, TCP otherwise.
type Chain struct {
	Name string
	// Object and Field are what a rule for TCP or TLS was made of, as in Route; empty for other chains.
	Object, Field string
	Match         ChainMatch
	// TLS to terminate; nil for plaintext (or TLS that is passed through).
	TLS  *DownstreamTLS
	HTTP *HTTP
	TCP  *TCP
	// Gates limit the connections; outbound chains and those of HTTP/3 have none.
	Gates []Gate
}

// ChainMatch selects a chain. Empty fields match anything. Source: envoy.config.listener.v3.FilterChainMatch.
type ChainMatch struct {
	DestinationPort uint16         // 0 for any
	Destination     []netip.Prefix // original destination
	ServerNames     []string       // SNI: exact or "*.suffix"
	Transport       Transport
	ALPN            []string
	SourcePrefixes  []netip.Prefix // of the client, as a PROXY protocol header says it if there is one
	DirectPrefixes  []netip.Prefix // of the direct peer
}

// Transport is what the first bytes of a connection turned out to be.
type Transport uint8

// The transports a chain may ask for.
const (
	AnyTransport Transport = iota
	RawTransport           // not TLS
	TLSTransport           // a TLS ClientHello
)

// DownstreamTLS is the TLS that a listener terminates.
type DownstreamTLS struct {
	// Workload uses the workload's own certificate and the mesh's roots.
	Workload bool
	// Certificates, for gateways with credentials: PEM pairs already parsed by decode into DER chains are kept opaque here.
	Certificates []KeyPair
	// RequireClient refuses clients without a certificate of the mesh (Workload) or of ClientCA.
	RequireClient bool
	ClientCA      []byte // PEM; for gateways in MUTUAL mode
	// AnyClient asks clients for a certificate and does not verify it: it proves nothing, and only whoever is behind may judge it.
	AnyClient bool
	// CRL holds revocation lists in PEM, one of each authority of ClientCA; empty lets in whom the chain proves. SANs are the names
	// that a client's certificate needs one of; empty accepts any.
	CRL  []byte
	SANs []StringMatch
	// CertificateHashes and KeyHashes are SHA-256 of the certificates and of the public keys (SubjectPublicKeyInfo) of the clients that
	// are let in; one of either list does. Both empty let in any.
	CertificateHashes, KeyHashes [][sha256.Size]byte
	ALPN                         []string
	MinVersion                   uint16 // crypto/tls constant; 0 for the default
	MaxVersion                   uint16
	CipherSuites                 []uint16
}

// KeyPair is a certificate chain and its key, both PEM.
type KeyPair struct{ Certificate, Key []byte }

// HTTP is the HTTP connection manager of a chain.
type HTTP struct {
	StatPrefix string
	// RouteName names a table in Snapshot.RouteTables (gateways) or the target's own; Routes holds an inline one (inbound).
	RouteName string
	Routes    *RouteTable
	// RBAC is evaluated in order before anything else; the first denial wins.
	RBAC []*RBAC
	// Fault says that fault injection of routes applies.
	Fault bool
	// CORS says that what routes allow other origins applies, Sessions that they may keep clients at their endpoints.
	CORS     bool
	Sessions bool `json:",omitempty"`
	// GRPCWeb has gRPC-Web, which browsers speak, translated to gRPC. Source: envoy.extensions.filters.http.grpc_web.v3.GrpcWeb.
	GRPCWeb bool
	// Limits are evaluated in order after the policies.
	Limits []*LocalLimit
	// GlobalLimits come after them.
	GlobalLimits []*GlobalLimit
	// TraceSampling is the share of requests without a sampling decision that get one, 0 to 1.
	TraceSampling float64
	// ForwardClientCert is what inbound chains tell the application about the peer (x-forwarded-client-cert).
	ForwardClientCert ClientCertMode
	// UseRemoteAddress is set where the peer is not the mesh (gateways): x-forwarded-for is appended, internal headers removed.
	UseRemoteAddress bool
	IdleTimeout      time.Duration // 0 for the default of one hour
	// StreamIdle is how long a body may stand still, unless the route has a time of its own: 0 for the default of five minutes, from
	// which gRPC is free, negative for no limit.
	StreamIdle     time.Duration
	MaxHeaderBytes int // 0 for the default of 60 KiB
	ServerName     string
	// Upgrades allows HTTP upgrades (WebSocket) on routes that say nothing of them.
	Upgrades bool
	// NormalizePath makes paths canonical before anything reads them; EscapedSlashes and MergeSlashes go further (route.Canonical).
	NormalizePath, MergeSlashes bool
	EscapedSlashes              EscapedSlashes `json:",omitempty"`
	// Discreet leaves out the fields of Envoy's that say what the router did: the time that the upstream took and has left, and what was
	// rewritten. How many attempts there are is for the virtual host to say. Source: envoy.extensions.filters.http.router.v3.Router.
	Discreet bool `json:",omitempty"`
	// KeepServer leaves the server field of responses as the upstream wrote it.
	KeepServer bool
	// Underscores says what becomes of requests with names of fields that have underscores, which some servers take for dashes.
	Underscores UnderscoreAction `json:",omitempty"`
	// AccessLogs take the place of the bootstrap file's; none leaves that.
	AccessLogs []AccessLog
}

// EscapedSlashes is what is done about paths with slashes that are escaped ("%2F", "%5C").
// Source: HttpConnectionManager.PathWithEscapedSlashesAction.
type EscapedSlashes uint8

// The actions.
const (
	KeepEscaped EscapedSlashes = iota
	RefuseEscaped
	RedirectUnescaped // clients are sent to the path without them
	Unescape
)

// UnderscoreAction is what is done about underscores in names of fields.
// Source: envoy.config.core.v3.HttpProtocolOptions.HeadersWithUnderscoresAction.
type UnderscoreAction uint8

// The actions.
const (
	AllowUnderscores UnderscoreAction = iota
	RefuseUnderscores
	DropUnderscores
)

// ClientCertMode is the treatment of x-forwarded-client-cert.
type ClientCertMode uint8

// The treatments.
const (
	SanitizeClientCert ClientCertMode = iota
	AppendClientCert
	SanitizeSetClientCert
)

// TCP relays bytes to one of its clusters. Source: envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
type TCP struct {
	StatPrefix  string
	Clusters    []WeightedCluster // at least one
	TotalWeight uint32
	IdleTimeout time.Duration // 0 for the default of one hour
	MaxDuration time.Duration // of a connection; 0 for none
	RBAC        []*RBAC
	// HashSource makes the client's address the key of consistent hashing.
	HashSource bool
	AccessLogs []AccessLog // as in HTTP
	// Tunnel is what the endpoints, which are proxies then, are asked for before bytes are relayed; nil for nothing.
	Tunnel *Tunnel `json:",omitempty"`
}

// Datagrams relays what comes to a UDP port. Source: envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.
type Datagrams struct {
	StatPrefix  string
	Clusters    []WeightedCluster // at least one
	TotalWeight uint32
	IdleTimeout time.Duration // of a session; 0 for the default of one minute
	// RBAC is evaluated at the first datagram of a session, and when the configuration changes.
	RBAC []*RBAC
	// HashSource makes the client's address the key of consistent hashing.
	HashSource bool
	AccessLogs []AccessLog // as in HTTP
}

// Tunnel asks a proxy to connect to Target ("host:port"). Source:
// envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig.
type Tunnel struct {
	Target string
	// Post has the bytes carried in the bodies of a POST of Path and its response; otherwise the request is CONNECT.
	Post    bool
	Path    string `json:",omitempty"`
	Headers HeaderChange
}

// Method is that of the request.
func (t *Tunnel) Method() string {
	if t.Post {
		return "POST"
	}
	return "CONNECT"
}

// WeightedCluster is one choice of a split. HTTP splits may change headers.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
	HeaderChange
	Response HeaderChange
}

// Cluster is a set of endpoints and the policy for choosing and reaching one. Source: envoy.config.cluster.v3.Cluster with its
// ClusterLoadAssignment.
type Cluster struct {
	Name string
	// Version changes whenever the content changes, endpoints included. Equal versions mean equal content.
	Version   string
	Discovery Discovery
	// PortOverride is the port to connect to instead of the client's, for OriginalDst; 0 for none.
	PortOverride uint16
	// EndpointsName is the endpoint resource to follow, for EDS.
	EndpointsName string
	Policy        Balancing
	Balance       BalanceOptions
	// Host, Service facts for metrics: from the cluster's istio metadata.
	ServiceHost, ServiceName, ServiceNamespace string
	Port                                       uint16
	Subset                                     string
	Refused                                    string `json:",omitempty"` // why it has no endpoints, for people; empty where it may have some
	Localities                                 []Locality
	Total                                      int // endpoints in all localities
	ConnectTimeout                             time.Duration
	// Transports: the first whose Match an endpoint's metadata has is used; the last one always matches.
	Transports []TransportMatch
	Limits
	High                     Limits // for the requests of routes whose priority is HIGH, which have connections of their own
	MaxRequestsPerConnection uint32
	HTTP2                    HTTP2Limits
	Outlier                  *Outlier
	ErrorCodes               []int         `json:",omitempty"` // that outlier detection takes for errors, sorted; none means those from 500 on
	IdleTimeout              time.Duration // pooled connections; 0 for the default
	Speaks                   Version       // of HTTP, as requests are sent
	PanicThreshold           float64       // healthy share (0 to 1) below which all endpoints are used
	// Overprovisioning is the factor in percent by which a priority may lose endpoints before load leaves it; 0 means 140.
	Overprovisioning uint32
	// LocalityWeighted spreads load over localities by their weights; otherwise endpoints alone count.
	LocalityWeighted bool
	SlowStart        *SlowStart
	HealthChecks     []HealthCheck
	// MaxConnectionDuration ends pooled connections after their next response; 0 for never.
	MaxConnectionDuration time.Duration
	// KeepAlive is TCP's own probing of connections; nil leaves it to the system.
	KeepAlive *KeepAlive
	DNS       DNS // for StrictDNS and LogicalDNS
}

// Limits are the circuit breakers of a cluster for one priority of requests; 0 is none.
type Limits struct {
	MaxConnections uint32
	MaxPending     uint32
	MaxRequests    uint32
	MaxRetries     uint32
	RetryBudget    *RetryBudget // takes the place of MaxRetries
}

// RetryBudget bounds the retries under way by a share (0 to 1) of the requests under way, and allows Min in any case.
type RetryBudget struct {
	Share float64
	Min   uint32
}

// HTTP2Limits are those of connections on which requests are multiplexed. Zero values are the proxy's own.
type HTTP2Limits struct {
	MaxStreams             uint32
	KeepAlive, PingTimeout time.Duration // how long a connection may be silent before it is asked, and the answer may take
}

// BalanceOptions tune a policy. Zero values mean Envoy's defaults.
type BalanceOptions struct {
	Choices          uint32 // endpoints that LeastRequest, PeakEWMA compare (2)
	MinRing, MaxRing uint64 // entries of a RingHash (1024, 8 Mi)
	Table            uint64 // entries of a Maglev table, a prime (65537)
}

// SlowStart lets new endpoints begin with a part of their weight. Source: envoy.extensions.load_balancing_policies.common.v3.
type SlowStart struct {
	Window     time.Duration
	Aggression float64 // 1 is linear
	MinWeight  float64 // 0 to 1
}

// HealthCheck asks endpoints whether they are well. Source: envoy.config.core.v3.HealthCheck. Exactly one of HTTP, GRPC, TCP is set.
type HealthCheck struct {
	Timeout, Interval, InitialJitter, IntervalJitter time.Duration
	JitterPercent                                    uint32 // of Interval
	// NoTraffic is the interval while no request has used the cluster; Unhealthy, UnhealthyEdge, HealthyEdge that of an endpoint
	// in that state or just changed to it. Zero means Interval.
	NoTraffic, Unhealthy, UnhealthyEdge, HealthyEdge time.Duration
	UnhealthyThreshold, HealthyThreshold             uint32
	HTTP                                             *HTTPCheck
	GRPC                                             *GRPCCheck
	TCP                                              *TCPCheck
}

// HTTPCheck is a request whose status tells.
type HTTPCheck struct {
	Host, Path, Method  string
	Expected, Retriable []StatusRange // Expected empty: 200
}

// StatusRange is half open.
type StatusRange struct{ Start, End int }

// GRPCCheck is grpc.health.v1.Health/Check.
type GRPCCheck struct{ Service, Authority string }

// TCPCheck connects, sends, and waits until all of Receive have come, in order; both may be empty.
type TCPCheck struct {
	Send    []byte
	Receive [][]byte
}

// KeepAlive is TCP's. Zero values are the system's.
type KeepAlive struct {
	Probes         uint32
	Idle, Interval time.Duration
}

// Version is how the version of HTTP is chosen in which a cluster's endpoints are spoken to.
type Version uint8

// The ways of choosing.
const (
	HTTP1    Version = iota
	HTTP2            // also without TLS, by prior knowledge
	AsClient         // the version of the request
	ByALPN           // what an endpoint chooses in the TLS handshake; HTTP/1.1 without
)

// Discovery is where a cluster's endpoints come from.
type Discovery uint8

// The kinds of discovery.
const (
	Static      Discovery = iota // listed in the cluster
	EDS                          // a resource of their own
	StrictDNS                    // each endpoint's name is resolved, all addresses are used
	OriginalDst                  // wherever the client was connecting to
	LogicalDNS                   // an endpoint's name stands for its first address, which new connections use
	ByHost                       // the host that a request or a ClientHello names, which the service's own wildcard covers
)

// DNS is how the names of endpoints are resolved.
type DNS struct {
	Family  Family
	Refresh time.Duration // between lookups, where the answer does not decide
	// RespectTTL lets the answer decide.
	RespectTTL bool
	Jitter     time.Duration // is added, at most
	// FailureBase and FailureMax bound the growing time after failures; zero leaves it to the proxy.
	FailureBase, FailureMax time.Duration
}

// Family says which addresses of a name are used.
type Family uint8

// The families. Where one is preferred, the other is used if the name has none of it.
const (
	V6Preferred Family = iota
	V4Only
	V6Only
	V4Preferred
	AllFamilies
)

// Balancing is a load balancing policy.
type Balancing uint8

// The policies.
const (
	RoundRobin Balancing = iota
	LeastRequest
	Random
	RingHash
	Maglev
	PeakEWMA // the lower product of recent latency and requests under way
	Probing  // the lower latency of those that are not loaded more than most (Prequal)
)

// Hashed reports whether the policy chooses by the request's hash.
func (b Balancing) Hashed() bool { return b == RingHash || b == Maglev }

// Locality is a group of endpoints.
type Locality struct {
	Region, Zone, SubZone string
	Priority              uint32
	Weight                uint32
	Endpoints             []*Endpoint
}

// Endpoint is one instance. Address may be a DNS name in StrictDNS and LogicalDNS clusters, and elsewhere a unix socket
// ("unix:///path"), which has no port.
type Endpoint struct {
	Address string
	Host    string // the name that Address was found by; empty for none
	Port    uint16
	Weight  uint32 // at least 1
	Healthy bool
	// Degraded endpoints are healthy, but used only where there are too few that are not.
	Degraded bool
	// Draining endpoints are about to stop: no new work, not counted as failed.
	Draining bool
	// TLSMode is the endpoint's transport metadata ("istio" when a sidecar is in front of it).
	TLSMode string
	// Workload facts for the client side's metrics.
	Workload, WorkloadNamespace, App, Version, ServiceAccount, CanonicalService, Revision, Instance string
	// Addr is Address and Port parsed; the zero value when Address is a name.
	Addr netip.AddrPort
}

// TransportMatch chooses the transport towards an endpoint.
type TransportMatch struct {
	TLSMode string       // required value of Endpoint.TLSMode; empty matches any
	TLS     *UpstreamTLS // nil for plaintext
	// ProxyProtocol is the version of the header that is sent before anything else; 0 for none.
	ProxyProtocol uint8
}

// UpstreamTLS is the TLS that a cluster originates.
type UpstreamTLS struct {
	// Workload presents the workload's certificate and verifies against the mesh's roots and SANs.
	Workload bool
	SNI      string
	ALPN     []string
	// SANs accepted of the server; empty accepts any that the roots vouch for. For Workload they are SPIFFE URIs.
	SANs []StringMatch
	// CA and Certificate, for TLS to the outside: PEM. Empty CA means the system's roots.
	CA          []byte
	Certificate *KeyPair
	// CRL holds revocation lists in PEM, one of each authority of CA; empty takes what the chain proves.
	CRL []byte `json:",omitempty"`
	// SkipVerify accepts any server certificate (only by the user's explicit insecureSkipVerify).
	SkipVerify bool
}

// Outlier ejects endpoints that fail. Source: envoy.config.cluster.v3.OutlierDetection. Decode has filled in Envoy's defaults.
type Outlier struct {
	Consecutive5xx          Threshold
	ConsecutiveGatewayError Threshold
	ConsecutiveLocalOrigin  Threshold
	SplitLocalOrigin        bool
	Interval                time.Duration
	BaseEjection            time.Duration
	MaxEjection             time.Duration
	EjectionJitter          time.Duration // at most
	MaxEjectionPercent      uint32

	SuccessRate, LocalSuccessRate             RateThreshold
	FailurePercentage, LocalFailurePercentage RateThreshold
}

// Threshold is a number of failures in a row, and in how many of a hundred cases it ejects. A zero Count or Enforce is off.
type Threshold struct{ Count, Enforce uint32 }

// RateThreshold compares endpoints by their results of an interval. For success rates Limit is the factor of the standard
// deviation in thousandths, for failure percentages the percentage.
type RateThreshold struct{ MinHosts, MinVolume, Limit, Enforce uint32 }

// Assignment is a cluster's endpoints as they arrive on their own. Source: envoy.config.endpoint.v3.ClusterLoadAssignment.
type Assignment struct {
	Name       string
	Version    string
	Localities []Locality
	Total      int
	// Overprovisioning as in Cluster.
	Overprovisioning uint32
}

// Names answers a name of DNS. Source: envoy.data.dns.v3.DnsTable with one virtual domain.
type Names struct {
	Name      string // as queried, lower case, without final dot
	Addresses []netip.Addr
	Alias     string        // the name that it is a further one for, where it has no addresses; in the message, that of a cluster
	TTL       time.Duration // 0 leaves it to the server
}
