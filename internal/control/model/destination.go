package model

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// ClientTLS gives what the service asks of its clients at a port; nil for nothing.
func (s *Service) ClientTLS(port uint16) *ClientTLS {
	if t := s.TLS[port]; t != nil {
		return t
	}
	return s.TLS[0]
}

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

// Client is who uses a DestinationRule, as far as rules tell clients apart.
type Client struct {
	Namespace string
	Labels    map[string]string
}

// Rules gives the DestinationRules that count for a client of a service, which is in namespace service: those of the client's namespace, else
// of the service's, else of the root one; within one, those of the most specific host. In the root namespace what is not exported from it goes
// first, and the rest, which is for the whole mesh, last, as in Istio. Of several the first one's policy counts, and the subsets of all. lists
// are those for the service's host and for wildcards that cover it, the most specific first.
func (c *Client) Rules(root, service string, lists iter.Seq[[]*Destination]) []*Destination {
	namespaces := []string{c.Namespace, service, root}
	if c.Namespace == root {
		namespaces = namespaces[1:]
		if list := c.rulesIn(root, lists, func(d *Destination) bool { return d.ExportTo.Private || d.Selector != nil }); len(list) > 0 {
			return list
		}
	}
	for _, namespace := range namespaces {
		if list := c.rulesIn(namespace, lists, func(*Destination) bool { return true }); len(list) > 0 {
			return list
		}
	}
	return nil
}

// rulesIn gives those of one namespace, among the rules that may count.
func (c *Client) rulesIn(namespace string, lists iter.Seq[[]*Destination], may func(*Destination) bool) []*Destination {
	for list := range lists {
		// A rule that selects this client counts instead of those for all.
		selected := false
		sees := func(d *Destination) bool {
			return d.Ref.Namespace == namespace && d.ExportTo.VisibleFrom(namespace, c.Namespace) && may(d)
		}
		for _, d := range list {
			selected = selected || d.Selector != nil && sees(d) && c.SelectedBy(d)
		}
		counts := func(d *Destination) bool { return sees(d) && (d.Selector != nil) == selected && c.SelectedBy(d) }
		if i := slices.IndexFunc(list, counts); i >= 0 {
			of := list[i : i+1 : i+1] // most often the only one
			for _, d := range list[i+1:] {
				if counts(d) {
					of = append(of, d)
				}
			}
			return of
		}
	}
	return nil
}

// SelectedBy reports whether a rule's selector, where it has one, picks the client.
func (c *Client) SelectedBy(d *Destination) bool {
	if d.Selector == nil {
		return true
	}
	if d.Ref.Namespace != c.Namespace {
		return false
	}
	for k, v := range d.Selector {
		if got, ok := c.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
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
