package model

import (
	"net/netip"
	"time"
)

// Sidecar narrows what workloads see of the mesh, and says what they take in.
type Sidecar struct {
	Ref Ref
	// Namespace of the workloads; "" for all that have no Sidecar of their own (it was in the root namespace).
	Namespace string
	Selector  map[string]string // nil for the whole namespace
	// Egress are the destinations that exist for the workloads; none means all.
	Egress []Egress
	// Ingress, when there are any, are the only ports that are known to be the workloads'.
	Ingress  []Ingress
	Outbound *OutboundPolicy // nil for the mesh's
	Pool     *ConnectionPool // of connections to the application
	Created  time.Time
}

// ProxyConfig says how the proxies of workloads run.
type ProxyConfig struct {
	Ref       Ref
	Namespace string            // "" for the mesh
	Selector  map[string]string // nil for the whole namespace
	// Concurrency is the number of cores that a proxy may use at a time; 0 for all, nil leaves it to others.
	Concurrency *uint32
	Created     time.Time
}

// Egress is a set of hosts, for one port or for all that no other Egress names.
type Egress struct {
	Port  uint16 // 0 for the others
	Hosts []EgressHost
	// Protocol is what the Sidecar says of the port; where services have it, their own word counts.
	Protocol Protocol
	// Bind is an address at which the hosts are reached too, at the port: by connections that are captured on their way there or, where
	// Open is set, that the proxy takes by listening there. The zero Addr is none.
	Bind netip.Addr
	Open bool
}

// EgressHost takes in hosts of services and of routes. Namespace is "*" for any; Host may be a wildcard. Excluded takes them out
// again.
type EgressHost struct {
	Namespace, Host string
	Excluded        bool
}

// Ingress is a port that a workload takes connections on.
type Ingress struct {
	Port     uint16
	Protocol Protocol
	// Endpoint is where connections are sent: "IP:port" of the workload's own network, "unix:///PATH", or ":port" for the address
	// that was called.
	Endpoint string
	Pool     *ConnectionPool // nil for the Sidecar's
	// Open has the proxy listen at the port itself, besides what is captured: at Bind, or at the workload's address where that is the zero
	// Addr.
	Open bool
	Bind netip.Addr
}

// OutboundPolicy is about destinations that a workload does not know.
type OutboundPolicy struct {
	RegistryOnly bool
	// Proxy takes all of them, where it is given.
	Proxy *WeightedDestination
}
