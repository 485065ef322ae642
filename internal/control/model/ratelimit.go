package model

import "time"

// RateLimit limits requests to workloads, each proxy by itself, or as a service says.
type RateLimit struct {
	Ref       Ref
	Namespace string            // "" for the mesh
	Selector  map[string]string // nil for all
	Rules     []RateLimitRule
	// Service is nil where each proxy counts.
	Service *RateLimitService
	Status  uint32 // of refused requests
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
	Keys []RateLimitKey
	// Entries describe requests to a service, which knows the limit.
	Entries  []RateLimitEntry
	Requests uint32
	Per      time.Duration
	Burst    uint32
	DryRun   bool
}

// RateLimitService is who is asked, and about what.
type RateLimitService struct {
	Host    string // in full
	Port    uint16
	Domain  string
	Timeout time.Duration // 0 for the proxy's default
	// Deny refuses requests of which the service says nothing.
	Deny bool
}

// RateLimitEntry is a part of a description: Value, or what From gives where Value is empty.
type RateLimitEntry struct {
	Key, Value string
	From       RateLimitKey
}

// RateLimitKey is a header, a query parameter, or, without either, the client's address, of which V4 and V6 bits count.
type RateLimitKey struct {
	Header, Query string
	V4, V6        uint32
}
