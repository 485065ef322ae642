package conf

import (
	"strconv"
	"time"
)

// RouteTable is a compiled RouteConfiguration.
type RouteTable struct {
	Name    string
	Version string
	Hosts   []*VirtualHost
	// IgnorePort leaves the port of the request's authority out of the comparison with domains.
	IgnorePort bool
	// Request and Response are changed for every request that a route of the table takes, after the virtual host's.
	Request, Response HeaderChange
	// SpecificLast applies header changes from the table inwards, so that the most specific one has the last word; otherwise the
	// table's is the last.
	SpecificLast bool
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
	// AttemptCount tells the upstream which attempt it sees (x-envoy-attempt-count), AttemptCountBack the client how many there were.
	AttemptCount, AttemptCountBack bool
	// LimitRules describe requests for limits, where routes say nothing.
	LimitRules []LimitRule
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
	// Session keeps clients at their endpoints, where the listener has the filter; nil does not.
	Session *Session `json:",omitempty"`
	// Limits replace the listener's of that name; nil turns one off. RBAC does so with policies.
	Limits map[string]*LocalLimit
	RBAC   map[string][]*RBAC
	// Decorator is the operation name for traces.
	Decorator string
}

// Match is a request match; all parts must hold. The zero value matches everything.
type Match struct {
	Path          StringMatch // on the path without query
	CaseSensitive bool        // of Path; true unless the user said otherwise
	Template      string      // the URI template that Path was made of, for explanations
	// PathSeparatedPrefix matches a prefix at a segment boundary only.
	PathSeparatedPrefix bool
	Headers             []HeaderMatch // pseudo-headers included: ":method", ":authority", ":scheme"
	Query               []QueryMatch
	Cookies             []CookieMatch `json:",omitempty"`
	// GRPC matches calls of gRPC only.
	GRPC bool
	// Presented and Validated ask whether the client has shown a certificate, and a valid one; nil asks nothing.
	Presented, Validated *bool
	// Fraction of requests that match, in millionths; 0 means all, and Never that none does.
	Fraction uint32
	Never    bool
}

// HeaderMatch is a condition on a header field. A field that occurs several times is compared as one, joined by commas.
type HeaderMatch struct {
	Name    string
	Value   StringMatch // Kind Any means that presence is enough
	Present bool        // with Kind Any: wanted presence
	Invert  bool
	// MissingAsEmpty compares an absent field as the empty string.
	MissingAsEmpty bool
	// Range, when not nil, is what a decimal number in place of Value has to be in.
	Range *Range
}

// Range is that of whole numbers from Start to before End.
type Range struct{ Start, End int64 }

// contains reports whether s is a whole decimal number within the range.
func (r *Range) contains(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && r.Start <= n && n < r.End
}

// Match reports whether the field, as found, fulfils the condition. As in Envoy, a condition on the value of an absent field fails
// even when inverted, unless MissingAsEmpty is set.
func (m *HeaderMatch) Match(value string, present bool) bool {
	present = present || m.MissingAsEmpty
	if m.Range != nil {
		return present && m.Range.contains(value) != m.Invert
	}
	if m.Value.Kind == Any {
		return (present == m.Present) != m.Invert
	}
	if !present {
		return false
	}
	return m.Value.Match(value) != m.Invert
}

// QueryMatch is a condition on the first value of a query parameter, as it is written: percent-encoding is not undone.
type QueryMatch struct {
	Name   string
	Value  StringMatch // Kind Any means presence
	Absent bool        `json:",omitempty"` // the parameter must not be there
}

// Match reports whether the parameter, as found, fulfils the condition.
func (m *QueryMatch) Match(value string, present bool) bool {
	return present != m.Absent && m.Value.Match(value)
}

// CookieMatch is a condition on the first value of a cookie. One that is absent does not fulfil it, and so does where Invert is set.
// Source: envoy.config.route.v3.CookieMatcher.
type CookieMatch struct {
	Name   string
	Value  StringMatch
	Invert bool
}

// Match reports whether the cookie, as found, fulfils the condition.
func (m *CookieMatch) Match(value string, present bool) bool {
	return (present && m.Value.Match(value)) != m.Invert
}

// Forward sends the request upstream.
type Forward struct {
	// Clusters has at least one, unless ClusterHeader names the request's field that names the cluster.
	Clusters      []WeightedCluster
	TotalWeight   uint32
	ClusterHeader string
	// UnknownStatus is the answer where there is no such cluster; 0 stands for 503.
	UnknownStatus int
	Timeout       time.Duration // whole request including retries; 0 for none
	IdleTimeout   time.Duration
	Retry         *Retry
	High          bool // priority, by which the cluster's limits are chosen
	Mirrors       []Mirror
	// PrefixRewrite replaces the matched prefix (or the whole path of an exact match); RegexRewrite substitutes on the path;
	// PathRewrite replaces the whole path.
	PrefixRewrite string
	PathRewrite   string
	RegexRewrite  *RegexRewrite
	// HostRewrite is the upstream's authority. HostRewriteHeader names a field of the request that holds it, HostRewriteRegex makes
	// it of the path. AppendHost adds the client's to x-forwarded-host where it changes.
	HostRewrite       string
	HostRewriteHeader string
	HostRewriteRegex  *RegexRewrite
	AppendHost        bool
	// MaxGRPCTimeout bounds what clients of gRPC may ask for; 0 for none. GRPCTimeoutOffset is taken off it where something is left.
	MaxGRPCTimeout, GRPCTimeoutOffset time.Duration
	Hash                              []HashPolicy
	// LimitRules describe requests for limits, HostLimits has those of the virtual host do so as well.
	LimitRules []LimitRule
	HostLimits bool
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
	// PerTryIdle is how long an attempt may go without a byte; 0 for no limit.
	PerTryIdle time.Duration
	// Hedge makes another attempt when PerTry has passed without giving up the first: the first good answer counts.
	Hedge bool
	// Headers of a response that asks for a retry, for OnHeaders: one has to match. RequestHeaders of requests that may be retried:
	// one has to match, if there are any.
	Headers, RequestHeaders []HeaderMatch
	// RateLimited waits as long as the upstream says; nil for the back-off.
	RateLimited *RateLimited
}

// RateLimited reads from a response when to come back. Source: envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff.
type RateLimited struct {
	Headers []ResetHeader // the first that has a value counts
	Max     time.Duration // a longer wait counts as none
}

// ResetHeader names a field with seconds to wait, or with a Unix time.
type ResetHeader struct {
	Name string
	Unix bool
}

// RetryOn is a set of conditions.
type RetryOn uint32

// The conditions, by Envoy's names and one of our own.
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
	OnHeaders     // retriable-headers
	OnRateLimited // envoy-ratelimited
	OnSafeReset   // safe-reset: OnReset for requests that ask for nothing to be done
)

// Session says where a client keeps the address of the endpoint that answered it, in base64: in a cookie or in a header, of which one is
// named. Source: envoy.extensions.filters.http.stateful_session.v3.StatefulSession.
type Session struct {
	Cookie, Path string
	TTL          time.Duration // of the cookie; 0 until the browser closes
	Header       string
	// Strict refuses requests whose endpoint is not there any more; otherwise another one answers.
	Strict bool
}

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
// decode has checked; they and the conditions of Default and Replace see the fields as they are after the removal.
type HeaderChange struct {
	Remove []string
	Set    []HeaderValue
	Add    []HeaderValue
	// Default is added where the field is absent, Replace set where it is present.
	Default, Replace []HeaderValue
	// Host replaces the authority when not empty (Istio writes it as a set of "Host").
	Host string
}

// Fields reports whether any field is changed; the authority is none.
func (c *HeaderChange) Fields() bool {
	return len(c.Remove)+len(c.Set)+len(c.Add)+len(c.Default)+len(c.Replace) > 0
}

// HeaderValue is a field to write.
type HeaderValue struct {
	Name, Value string
	KeepEmpty   bool `json:",omitempty"` // writes the field even if the operators of Value give nothing
}

// RBAC is one policy set. Source: envoy.config.rbac.v3.RBAC. Rules with Allow: a request needs one matching policy; with Deny:
// none may match.
type RBAC struct {
	Action   Action
	Policies []RBACPolicy // in name order
	// Shadow only logs what it would have done.
	Shadow bool
	// Filter is the name by which routes replace it; empty for those that they cannot.
	Filter string `json:",omitempty"`
}

// Policies gives the policies for requests that r takes, which may be nil. It allocates only where r replaces some.
func (h *HTTP) Policies(r *Route) []*RBAC {
	if r == nil || len(r.RBAC) == 0 {
		return h.RBAC
	}
	var out []*RBAC
	last := ""
	for _, set := range h.RBAC {
		own, replaced := r.RBAC[set.Filter]
		switch {
		case !replaced || set.Filter == "":
			out = append(out, set)
		case set.Filter != last: // a filter has up to two sets
			out = append(out, own...)
		}
		last = set.Filter
	}
	return out
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
