package model

import "net/netip"

// Delta says what may differ between a mesh and the one before it. It may name too much, never too little: whatever is generated
// from a mesh has to be looked at again if it was made of something that is named here, and only then.
type Delta struct {
	// All: there was no mesh before, or something changed that decides about everything, such as the settings.
	All bool
	// Services are the hosts of services that came, went, or changed in more than their endpoints.
	Services map[string]bool
	// Endpoints are the hosts of services whose endpoints changed.
	Endpoints map[string]bool
	// Addresses are the keys of Mesh.ByAddress that now lead to other services.
	Addresses map[netip.Addr]bool
	// Routes are the hosts, as route sets name them, of route sets for sidecars that came, went or changed.
	Routes map[string]bool
	// Destinations are the hosts, as they write them, of DestinationRules that came, went or changed.
	Destinations map[string]bool
	// Workloads are "namespace/name" of workloads that came, went or changed.
	Workloads map[string]bool
	// Gateways are the gateways that came, went or changed, and those whose routes or credentials did.
	Gateways map[Ref]bool
	// Policies are the namespaces (Mesh-wide: "") of policies, limits and whatever else is chosen by selector that came, went or
	// changed.
	Policies map[string]bool
	// Sidecars are the namespaces (Mesh-wide: "") of Sidecars that came, went or changed.
	Sidecars map[string]bool
}
