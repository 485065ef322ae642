package model

import "time"

// RateLimit limits requests to workloads, each proxy by itself.
type RateLimit struct {
	Ref       Ref
	Namespace string            // "" for the mesh
	Selector  map[string]string // nil for all
	Rules     []RateLimitRule
	Status    uint32 // of refused requests
	// Report tells clients what is left.
	Report  bool
	Created time.Time
}

// RateLimitRule is a limit for the requests that match.
type RateLimitRule struct {
	Name           string
	Methods, Paths []string // Paths may end in "*"
	Headers        []NamedMatch
	// Keys give each value a limit of its own.
	Keys     []RateLimitKey
	Requests uint32
	Per      time.Duration
	Burst    uint32
	DryRun   bool
}

// RateLimitKey is a header, a query parameter, or, without either, the client's address, of which V4 and V6 bits count.
type RateLimitKey struct {
	Header, Query string
	V4, V6        uint32
}
