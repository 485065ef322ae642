package model

import (
	"maps"
	"net/netip"
)

// Delta says what may differ between a mesh and the one before it. It may name too much, never too little: whatever is generated
// from a mesh has to be looked at again if it was made of something that is named here, and only then.
type Delta struct {
	// All: there was no mesh before, or something changed that decides about everything, such as the settings.
	All bool
	// Services are the hosts of services that came, went, or changed in more than their endpoints.
	Services map[string]bool
	// Endpoints are the hosts of services whose endpoints changed.
	Endpoints map[string]bool
	// Accounts are those of them whose endpoints have other Accounts.
	Accounts map[string]bool
	// Addresses are the keys of Mesh.ByAddress that now lead to other services.
	Addresses map[netip.Addr]bool
	// Networks are the keys of Mesh.ByNetwork that now lead to other services.
	Networks map[netip.Prefix]bool
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

// Add takes in what another delta names, that of the next mesh: together they say what may differ over both steps.
func (d *Delta) Add(o Delta) {
	d.All = d.All || o.All
	d.Services = union(d.Services, o.Services)
	d.Endpoints = union(d.Endpoints, o.Endpoints)
	d.Accounts = union(d.Accounts, o.Accounts)
	d.Addresses = union(d.Addresses, o.Addresses)
	d.Networks = union(d.Networks, o.Networks)
	d.Routes = union(d.Routes, o.Routes)
	d.Destinations = union(d.Destinations, o.Destinations)
	d.Workloads = union(d.Workloads, o.Workloads)
	d.Gateways = union(d.Gateways, o.Gateways)
	d.Policies = union(d.Policies, o.Policies)
	d.Sidecars = union(d.Sidecars, o.Sidecars)
}

func union[K comparable](a, b map[K]bool) map[K]bool {
	if len(a) == 0 {
		return b
	}
	maps.Copy(a, b)
	return a
}

// Empty reports whether nothing differs.
func (d *Delta) Empty() bool {
	return !d.All && len(d.Services)+len(d.Endpoints)+len(d.Accounts)+len(d.Addresses)+len(d.Networks)+len(d.Routes)+len(d.Destinations)+
		len(d.Workloads)+len(d.Gateways)+len(d.Policies)+len(d.Sidecars) == 0
}
