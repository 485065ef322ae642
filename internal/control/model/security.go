package model

import (
	"net/netip"
	"time"
)

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
	TrustDomains, NotTrustDomains       []string
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
