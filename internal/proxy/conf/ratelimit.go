package conf

import "time"

// LocalLimit limits requests by buckets that this proxy keeps. Source: envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit.
type LocalLimit struct {
	// Filter is the name by which routes replace it.
	Filter string
	// Key is the same for the same limit in successive versions of a resource: its buckets go on where they were.
	Key string
	// Bucket is for requests that none of Descriptors names, and for those too if AlwaysBucket is set; nil does not limit.
	Bucket       *TokenBucket
	AlwaysBucket bool
	Descriptors  []LimitDescriptor
	// MaxDynamic bounds the values of a descriptor with open entries that have a bucket at a time.
	MaxDynamic int
	// Rules describe requests by the filter's own word; nil takes those of route and virtual host, of Stage.
	Rules       []LimitRule
	Stage       uint32
	VirtualHost HostRules
	// Enabled and Enforced are shares in millionths: of requests that are counted, and of those over the limit that are refused.
	Enabled, Enforced uint32
	// Status of refused requests, and the fields that they get. Unenforced goes with a request that is let through.
	Status     int
	Response   HeaderChange
	Unenforced HeaderChange
	// Report tells clients what is left, by the x-ratelimit fields.
	Report bool
	// Exhausted answers gRPC with RESOURCE_EXHAUSTED rather than UNAVAILABLE.
	Exhausted bool
}

// HostRules says when the rules of the virtual host describe a request.
type HostRules uint8

// The cases: where the route has none, beside the route's, never.
const (
	OverrideHostRules HostRules = iota
	IncludeHostRules
	IgnoreHostRules
)

// TokenBucket holds Max tokens at most and gains Fill of them in each Interval, evenly.
type TokenBucket struct {
	Max, Fill uint32
	Interval  time.Duration
}

// LimitDescriptor is a bucket for the requests that a rule describes by just these entries. An entry without a value is open: each
// value has a bucket.
type LimitDescriptor struct {
	Entries []LimitEntry
	Bucket  TokenBucket
}

// LimitEntry is a part of a description.
type LimitEntry struct{ Key, Value string }

// LimitRule describes requests: by an entry for each action, or not at all if one of them has nothing to say. Source:
// envoy.config.route.v3.RateLimit.
type LimitRule struct {
	Stage   uint32
	Actions []LimitAction
}

// LimitKind is what an action looks at.
type LimitKind uint8

// The kinds of actions.
const (
	LimitGeneric     LimitKind = iota // Value
	LimitHeader                       // the field Name
	LimitQuery                        // the parameter Name
	LimitHeaders                      // Value, if Headers match (or do not, as Expect says)
	LimitParams                       // Value, if Query matches (or does not)
	LimitRemote                       // the client's address, masked to V4 and V6 bits
	LimitSource                       // the service that the client is, as the proxy's own bootstrap names it
	LimitDestination                  // the cluster that the route leads to
)

// LimitAction gives one entry, with Key.
type LimitAction struct {
	Kind       LimitKind
	Key, Value string
	Name       string
	// SkipAbsent leaves out the entry of an absent field, where otherwise nothing is described.
	SkipAbsent bool
	Headers    []HeaderMatch
	Query      []QueryMatch
	Expect     bool
	V4, V6     int
	// Masked writes the address with its mask.
	Masked bool
}

// GlobalLimit limits requests by what a rate-limit service says. Source: envoy.extensions.filters.http.ratelimit.v3.RateLimit.
type GlobalLimit struct {
	Domain string
	// Cluster is where the service is.
	Cluster string
	// Stage is that of the rules of routes by which requests are described to the service.
	Stage uint32
	// Rules describe requests by the filter's own word; nil takes those of route and virtual host.
	Rules []LimitRule
	// Timeout bounds the question. Without an answer a request goes on, or if Deny is set gets ErrorStatus.
	Timeout     time.Duration
	Deny        bool
	ErrorStatus int
	// Enabled is the share of requests that are asked about, in millionths.
	Enabled uint32
	// Status of refused requests and the fields that they get; Mark adds x-envoy-ratelimited.
	Status   int
	Response HeaderChange
	Mark     bool
	// Report and Exhausted are as in LocalLimit.
	Report, Exhausted bool
}
