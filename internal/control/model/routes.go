package model

import (
	"cmp"
	"strings"
	"time"
)

// RouteSet is a set of routes for hosts: a VirtualService, a route of the Gateway API, or an Ingress.
type RouteSet struct {
	Ref       Ref
	Namespace string
	// Hosts in full ("reviews.default.svc.cluster.local", "*.example.com", "*"). There are none where a route of the Gateway API is
	// attached to a listener of whose hosts others have all.
	Hosts    []string
	ExportTo Visibility
	// Mesh says that sidecars use it; Gateways names the gateways that do ("namespace/name").
	Mesh     bool
	Gateways []GatewayRef
	HTTP     []HTTPRoute
	TCP      []TCPRoute
	UDP      []UDPRoute
	TLS      []TLSRoute
	// ByPrecedence sorts HTTP matches by the Gateway API's precedence rather than by their order in the object.
	ByPrecedence bool
	Created      time.Time
}

// CompareAge orders sets for one host: by age, then by name.
func (s *RouteSet) CompareAge(o *RouteSet) int {
	return cmp.Or(s.Created.Compare(o.Created), s.Ref.CompareName(o.Ref), cmp.Compare(s.Ref.Kind, o.Ref.Kind))
}

// CompareIn orders sets for one host as proxies of a namespace take them: those that are nearer to it first, and then by age.
func (s *RouteSet) CompareIn(namespace string, o *RouteSet) int {
	return cmp.Or(cmp.Compare(s.ExportTo.Distance(s.Namespace, namespace), o.ExportTo.Distance(o.Namespace, namespace)), s.CompareAge(o))
}

// GatewayRef names a gateway; Section (Gateway API listener name) and Port narrow it when set. Kind is "Gateway.istio",
// "Gateway.k8s", "ListenerSet" or "Ingress", because the two kinds of Gateway may share a name.
type GatewayRef struct {
	Kind, Namespace, Name, Section string
	Port                           uint16
}

// Names reports whether the reference is to a server of a gateway. Istio's own Gateway is "Gateway" as an object.
func (r GatewayRef) Names(g *Gateway, s *Server) bool {
	return r.Name == g.Ref.Name && r.Namespace == g.Ref.Namespace && strings.TrimSuffix(r.Kind, ".istio") == strings.TrimSuffix(g.Ref.Kind, ".istio") &&
		(r.Section == "" || r.Section == s.Name) && (r.Port == 0 || r.Port == s.Port)
}

// StringMatch is a condition on a string. The zero value matches anything.
type StringMatch struct {
	Exact, Prefix, Regex string // at most one is set, unless IsExact: exact match of the empty string
	IsExact              bool
	// SegmentPrefix makes Prefix match at a path segment's end only (Gateway API's PathPrefix, Ingress's Prefix).
	SegmentPrefix bool
	IgnoreCase    bool
	// Present asks for presence only.
	Present bool
}

// IsZero reports whether the condition matches anything.
func (m StringMatch) IsZero() bool { return m == StringMatch{} || m == StringMatch{IgnoreCase: true} }

// HTTPRoute is one rule: any of Matches (none: everything), then one action. Precedence is the order of the list.
type HTTPRoute struct {
	Name    string
	Field   string // path in the object: "spec.http[0]"
	Matches []HTTPMatch
	// Last is for what no other rule for the host takes, whichever object that is in: an Ingress's default backend.
	Last bool
	// Object that Field is in, where it is not the set's own: a VirtualService that the set's delegates to.
	Object Ref

	Destinations []WeightedDestination
	Redirect     *Redirect
	Direct       *DirectResponse

	Rewrite  *Rewrite
	Timeout  time.Duration // 0 for none
	Retries  *Retries      // nil for the mesh's default, Attempts 0 for none
	Fault    *Fault
	CORS     *CORS
	Session  *Session
	Mirrors  []Mirror
	Request  HeaderChange
	Response HeaderChange
}

// HTTPMatch is a set of conditions that all hold.
type HTTPMatch struct {
	Name           string
	Field          string // path in the object: "spec.http[0].match[1]"
	Path           StringMatch
	Scheme         StringMatch
	Method         StringMatch
	Authority      StringMatch
	Headers        []NamedMatch
	WithoutHeaders []NamedMatch
	Query          []NamedMatch
	Port           uint16
	// SourceLabels and SourceNamespace restrict the proxies that get the match; Gateways the gateways ("mesh" included).
	SourceLabels    map[string]string
	SourceNamespace string
	Gateways        []GatewayRef
	// Mesh: with Gateways set, whether sidecars use the match.
	Mesh bool
	// StatPrefix names the requests in an Envoy's own statistics.
	StatPrefix string
}

// TakesAll reports whether every request that comes to where the match holds fulfils it; nil is such a match.
func (m *HTTPMatch) TakesAll() bool {
	return m == nil || (m.Path.Prefix == "/" || m.Path.IsZero()) && len(m.Headers)+len(m.WithoutHeaders)+len(m.Query) == 0 &&
		m.Method.IsZero() && m.Scheme.IsZero() && m.Authority.IsZero()
}

// NamedMatch is a condition on a header or query parameter.
type NamedMatch struct {
	Name  string
	Match StringMatch
}

// WeightedDestination is one backend. Weight 0 with a single destination counts as all.
type WeightedDestination struct {
	Host   string // in full
	Subset string
	Port   uint16 // 0: the service's only port, or the port of the request
	Weight uint32
	// Invalid says why requests for it get a 500 (Gateway API: unresolved reference); empty when it is good.
	Invalid  string
	Request  HeaderChange
	Response HeaderChange
}

// Redirect answers with a Location. Empty parts keep the request's.
type Redirect struct {
	Code      int
	Scheme    string
	Authority string
	Port      uint16
	// DerivePort: "" keeps, "FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT".
	DerivePort string
	URI        string  // full path
	Prefix     *string // replaces the matched prefix
}

// DirectResponse answers without an upstream.
type DirectResponse struct {
	Status int
	Body   []byte
}

// Rewrite changes path and authority.
type Rewrite struct {
	URI       string  // replaces the matched prefix, or the whole path of an exact or regex match (as Istio)
	FullPath  *string // replaces the whole path (Gateway API)
	Regex     *RegexRewrite
	Authority string
}

// RegexRewrite substitutes on the path.
type RegexRewrite struct{ Match, Rewrite string }

// Retries of a route.
type Retries struct {
	Attempts         uint32
	PerTryTimeout    time.Duration
	RetryOn          string // Envoy's comma-separated conditions and status codes; empty for the default
	BackOff          time.Duration
	RemoteLocalities bool
	// SameHosts lets a retry go to a host that has failed the request; otherwise others come first.
	SameHosts bool
}

// Fault injects failures. Percentages are 0 to 100.
type Fault struct {
	Delay        time.Duration
	DelayPercent float64
	AbortStatus  int
	AbortGRPC    string // gRPC status name, when AbortStatus is 0
	AbortPercent float64
}

// Session keeps a client at the endpoint that answered it first, by what a cookie or a header of that answer says.
type Session struct {
	Name   string
	Header bool          // a header instead of a cookie
	TTL    time.Duration // of the cookie; 0 until the browser closes
}

// CORS is what pages of other origins may do.
type CORS struct {
	Origins                  []StringMatch
	Methods, Headers, Expose []string
	MaxAge                   *time.Duration // whole seconds; nil leaves it to the browser
	Credentials              bool
	// AnswerUnmatched answers preflights of other origins without permission; otherwise they are forwarded.
	AnswerUnmatched bool
}

// Mirror copies a share of the requests.
type Mirror struct {
	Destination WeightedDestination
	Percent     float64
}

// HeaderChange edits header fields.
type HeaderChange struct {
	Set, Add map[string]string
	Remove   []string
}

// TCPRoute is a rule for opaque connections.
type TCPRoute struct {
	Field        string
	Matches      []L4Match
	Destinations []WeightedDestination
}

// UDPRoute is a rule for datagrams.
type UDPRoute struct {
	Field        string
	Destinations []WeightedDestination
}

// TLSRoute is a rule for TLS connections by server name.
type TLSRoute struct {
	Field        string
	Matches      []L4Match
	Destinations []WeightedDestination
}

// L4Match is a set of conditions on a connection.
type L4Match struct {
	SNIHosts           []string
	DestinationSubnets []string
	Port               uint16
	SourceLabels       map[string]string
	SourceNamespace    string
	Gateways           []GatewayRef
	Mesh               bool
}
