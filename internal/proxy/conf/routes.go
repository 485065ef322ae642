package conf

import "time"

// RouteTable is a compiled RouteConfiguration.
type RouteTable struct {
	Name    string
	Version string
	Hosts   []*VirtualHost
	// IgnorePort leaves the port of the request's authority out of the comparison with domains.
	IgnorePort bool
	// Request and Response are changed for every request that a route of the table takes, after the virtual host's.
	Request, Response HeaderChange
	// Index is made by Seal; nil means that the hosts are searched one by one.
	Index *HostIndex
}

// VirtualHost is a set of routes for some authorities. Domains: exact ("reviews:9080", "reviews"), "*.suffix", "prefix.*" or
// "*"; exact before suffix before prefix before "*", longer before shorter (RouteConfiguration's documented order).
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []*Route
	HeaderChange
	Response HeaderChange
	// Index is made by RouteTable.Seal for hosts with many routes; nil means that they are tried one by one.
	Index *RouteIndex
}

// Route is one match and what to do with it. Exactly one of Forward, Redirect, Direct is set.
type Route struct {
	// Name is how messages, logs and explain call it ("reviews.default/http[0]/match[1]").
	Name  string
	Match Match
	// Object is the configuration object the route comes from ("VirtualService/default/reviews"), for explanations.
	Object string
	// Field is the place in Object ("spec.http[0].match[1]"); empty when unknown.
	Field string

	Forward  *Forward
	Redirect *Redirect
	Direct   *Direct

	Request  HeaderChange
	Response HeaderChange
	// Fault and CORS apply where the listener has the filter; nil for none.
	Fault *Fault
	CORS  *CORS
	// Decorator is the operation name for traces.
	Decorator string
}

// Match is a request match; all parts must hold. The zero value matches everything.
type Match struct {
	Path          StringMatch // on the path without query
	CaseSensitive bool        // of Path; true unless the user said otherwise
	// PathSeparatedPrefix matches a prefix at a segment boundary only.
	PathSeparatedPrefix bool
	Headers             []HeaderMatch // pseudo-headers included: ":method", ":authority", ":scheme"
	Query               []QueryMatch
	// Fraction of requests that match, in millionths; 0 means all.
	Fraction uint32
}

// HeaderMatch is a condition on a header field. A field that occurs several times is compared as one, joined by commas.
type HeaderMatch struct {
	Name    string
	Value   StringMatch // Kind Any means that presence is enough
	Present bool        // with Kind Any: wanted presence
	Invert  bool
	// MissingAsEmpty compares an absent field as the empty string.
	MissingAsEmpty bool
}

// Match reports whether the field, as found, fulfils the condition. As in Envoy, a condition on the value of an absent field fails
// even when inverted, unless MissingAsEmpty is set.
func (m *HeaderMatch) Match(value string, present bool) bool {
	if m.Value.Kind == Any {
		return (present == m.Present) != m.Invert
	}
	if !present && !m.MissingAsEmpty {
		return false
	}
	return m.Value.Match(value) != m.Invert
}

// QueryMatch is a condition on a query parameter.
type QueryMatch struct {
	Name  string
	Value StringMatch // Kind Any means presence
}

// Forward sends the request upstream.
type Forward struct {
	Clusters    []WeightedCluster // at least one
	TotalWeight uint32
	Timeout     time.Duration // whole request including retries; 0 for none
	IdleTimeout time.Duration
	Retry       *Retry
	Mirrors     []Mirror
	// PrefixRewrite replaces the matched prefix (or the whole path of an exact match); RegexRewrite substitutes on the path;
	// PathRewrite replaces the whole path.
	PrefixRewrite string
	PathRewrite   string
	RegexRewrite  *RegexRewrite
	HostRewrite   string
	Hash          []HashPolicy
	// UpgradeWebSocket allows HTTP upgrades on this route.
	Upgrades bool
}

// RegexRewrite substitutes every match of Pattern; Substitution uses \1 as in RE2's own notation.
type RegexRewrite struct {
	Pattern      StringMatch // Kind Regex
	Substitution string
}

// Mirror copies a share of the requests elsewhere and ignores the answers.
type Mirror struct {
	Cluster  string
	Fraction uint32 // millionths
	// KeepHost sends the authority as it is; otherwise "-shadow" is appended to the host, as Envoy does.
	KeepHost bool
}

// HashPolicy computes the key of consistent hashing. Exactly one part is set.
type HashPolicy struct {
	Header, Query, Cookie string
	// CookieGenerate gives clients without the cookie one, for CookieTTL; 0 ends with the browser's session.
	CookieGenerate   bool
	CookieTTL        time.Duration
	CookiePath       string
	CookieAttributes []HeaderValue
	SourceIP         bool
	Terminal         bool
}

// Retry says when a failed attempt is made again. Source: envoy.config.route.v3.RetryPolicy.
type Retry struct {
	On          RetryOn
	StatusCodes []int // for OnStatus
	Attempts    uint32
	PerTry      time.Duration // 0 for the route's timeout
	BackOff     time.Duration // base; 25 ms by default
	MaxBackOff  time.Duration // 10 times the base by default
	// OtherHosts tries endpoints first that have not failed this request.
	OtherHosts bool
	// OtherLocalities does the same for localities of other priorities.
	OtherLocalities bool
}

// RetryOn is a set of conditions.
type RetryOn uint32

// The conditions, by Envoy's names.
const (
	On5xx RetryOn = 1 << iota
	OnGatewayError
	OnReset
	OnConnectFailure
	OnRefusedStream
	OnRetriable4xx
	OnStatus // retriable-status-codes
	OnResetBeforeRequest
	OnGRPCCancelled
	OnGRPCDeadline
	OnGRPCInternal
	OnGRPCExhausted
	OnGRPCUnavailable
)

// Redirect answers with a Location.
type Redirect struct {
	Status        int // 301, 302, 303, 307, 308
	Scheme, Host  string
	Port          uint16 // 0 keeps it
	Path          string // replaces path; the query is kept unless StripQuery
	PrefixRewrite string
	RegexRewrite  *RegexRewrite
	StripQuery    bool
}

// Direct answers without an upstream.
type Direct struct {
	Status int
	Body   []byte
}

// Fault delays or aborts a share of the requests.
type Fault struct {
	Delay         time.Duration
	DelayFraction uint32 // millionths
	AbortStatus   int
	AbortGRPC     int // gRPC status; used when AbortStatus is 0 and AbortFraction is not
	AbortFraction uint32
}

// HeaderChange edits fields: removed first, then set, then added. Values may hold Envoy's command operators (%REQ(x)%), which
// decode has checked.
type HeaderChange struct {
	Remove []string
	Set    []HeaderValue
	Add    []HeaderValue
	// Host replaces the authority when not empty (Istio writes it as a set of "Host").
	Host string
}

// HeaderValue is a field to write.
type HeaderValue struct{ Name, Value string }

// RBAC is one policy set. Source: envoy.config.rbac.v3.RBAC. Rules with Allow: a request needs one matching policy; with Deny:
// none may match.
type RBAC struct {
	Action   Action
	Policies []RBACPolicy // in name order
	// Shadow only logs what it would have done.
	Shadow bool
}

// Action of an RBAC.
type Action uint8

// The actions.
const (
	Allow Action = iota
	Deny
	LogOnly
)

// RBACPolicy matches when one Permission and one Principal match.
type RBACPolicy struct {
	Name        string // names namespace, object and rule: "ns[default]-policy[ratings]-rule[0]"
	Permissions []*Rule
	Principals  []*Rule
}

// Rule is a condition tree. Exactly one field is set.
type Rule struct {
	Any bool
	And []*Rule
	Or  []*Rule
	Not *Rule
	// Principal is matched against the peer's SPIFFE URI; it fails without an authenticated peer.
	Principal *StringMatch
	// Authenticated matches any peer with a certificate of the mesh.
	Authenticated bool
	Header        *HeaderMatch
	Path          *StringMatch
	SourceIP      *Prefix // direct peer
	RemoteIP      *Prefix // trusted client address
	DestinationIP *Prefix
	Port          uint16
	SNI           *StringMatch
}
