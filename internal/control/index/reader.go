package index

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// Kind of a Key: what was looked at.
type Kind uint8

// The kinds. A Key without a name stands for all of its kind, but for Policies and Sidecars, where it stands for the mesh's own.
const (
	// Services are looked up by host. A host also stands for the wildcards that cover it.
	Services Kind = iota
	// Endpoints of a service, by its host.
	Endpoints
	// Accounts of a service's endpoints, by its host.
	Accounts
	// Addresses lead to services. A range, which is a key of deltas alone, stands for the addresses in it.
	Addresses
	// Routes of sidecars, by host; as Services.
	Routes
	// Destinations are DestinationRules, by the service's host; as Services.
	Destinations
	// Workloads by namespace/name.
	Workloads
	// Gateways, always all.
	Gateways
	// Policies, and all else that is chosen by selector, of a namespace.
	Policies
	// Sidecars of a namespace; as Policies.
	Sidecars

	kinds = iota
)

// Key is something of a mesh that was looked at, there or not.
type Key struct {
	Kind Kind
	Name string
}

// Reader looks things up in an index for one client. One that traces is not safe for concurrent use, any other is.
type Reader struct {
	index  *Index
	choose func(*model.Service) *model.Service
	seen   map[Key]struct{} // nil where nothing is noted
	many   [kinds]int
}

// Choose says which of the services that a host has the client sees; it is asked of hosts with several, and before anything is read.
func (r *Reader) Choose(choose func(*model.Service) *model.Service) { r.choose = choose }

// get finds the service of a host that the client sees.
func (r *Reader) get(host string) *model.Service {
	s := r.index.mesh.Services.Get(host)
	if s == nil || len(s.Others) == 0 || r.choose == nil {
		return s
	}
	return r.choose(s)
}

// Read gives a reader that notes nothing.
func (x *Index) Read() *Reader { return &Reader{index: x} }

// Trace gives a reader that notes what is looked at.
func (x *Index) Trace() *Reader { return &Reader{index: x, seen: map[Key]struct{}{}} }

// Index is what is read.
func (r *Reader) Index() *Index { return r.index }

// maxOfKind bounds the keys of one kind that are told apart; beyond it all of the kind count.
const maxOfKind = 200

func (r *Reader) note(kind Kind, name string) {
	if r.seen == nil || r.many[kind] > maxOfKind {
		return
	}
	k := Key{kind, name}
	if _, ok := r.seen[k]; ok {
		return
	}
	r.seen[k] = struct{}{}
	if bySelector(kind) {
		return // its nameless key is not for all; namespaces are few
	}
	if r.many[kind]++; name == "" || r.many[kind] > maxOfKind {
		r.seen[Key{Kind: kind}] = struct{}{}
		r.many[kind] = maxOfKind + 1
	}
}

func bySelector(k Kind) bool { return k == Policies || k == Sidecars }

// Seen gives what was looked at, sorted. Where all of a kind count, single ones are left out.
func (r *Reader) Seen() []Key {
	keys := make([]Key, 0, len(r.seen))
	for k := range r.seen {
		if bySelector(k.Kind) || k.Name == "" || r.many[k.Kind] <= maxOfKind {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// Settings of the mesh. They are not noted: a delta with other settings says that everything may differ.
func (r *Reader) Settings() *model.Settings { return &r.index.mesh.Settings }

// Service gives the service of exactly that host; nil when there is none.
func (r *Reader) Service(host string) *model.Service {
	r.note(Services, host)
	return r.get(host)
}

// ServicesFor gives the services that a host may mean: the one of exactly that host, then wildcards that cover it, the longest first.
func (r *Reader) ServicesFor(host string) iter.Seq[*model.Service] {
	r.note(Services, host)
	x := r.index
	return func(yield func(*model.Service) bool) {
		if s := r.get(host); s != nil && !yield(s) {
			return
		}
		for _, w := range x.wildcardServices {
			if Covers(w, host) && !yield(r.get(w)) {
				return
			}
		}
	}
}

// AllServices gives every service, by host.
func (r *Reader) AllServices() iter.Seq[*model.Service] {
	r.note(Services, "")
	x := r.index
	return func(yield func(*model.Service) bool) {
		for _, h := range x.allHosts() {
			if !yield(r.get(h)) {
				return
			}
		}
	}
}

// Endpoints gives a service's endpoints. Its field must not be read instead: they change without the service.
func (r *Reader) Endpoints(s *model.Service) []*model.Endpoint {
	r.note(Endpoints, s.Host)
	return s.Endpoints
}

// Accounts gives those that a service's endpoints run under. They change more rarely than the endpoints.
func (r *Reader) Accounts(s *model.Service) []model.Account {
	r.note(Accounts, s.Host)
	return s.Accounts()
}

// ServicesAt gives the services of an address, then those of the ranges that hold it, the longest first.
func (r *Reader) ServicesAt(a netip.Addr) []*model.Service {
	r.note(Addresses, a.String())
	var list []*model.Service
	for _, host := range r.index.mesh.ByAddress.Get(a) {
		if s := r.Service(host); s != nil && (!r.chosen(host) || s.Headless || slices.Contains(s.VirtualAddresses(), a)) {
			list = append(list, s)
		}
	}
	for _, bits := range r.index.masks {
		n, err := a.Prefix(bits)
		if err != nil {
			continue // longer than the address
		}
		for _, host := range r.index.mesh.ByNetwork.Get(n) {
			if s := r.Service(host); s != nil && (!r.chosen(host) || slices.Contains(s.Networks, n)) {
				list = append(list, s)
			}
		}
	}
	return list
}

// chosen reports whether a host has several services, whose addresses may differ.
func (r *Reader) chosen(host string) bool { return len(r.index.mesh.Services.Get(host).Others) > 0 }

// RouteSets gives the route sets that may decide about a host in a sidecar, by the host that they name it by: itself, then wildcards
// that cover it, the longest first. Those of one host are in the order of precedence.
func (r *Reader) RouteSets(host string) iter.Seq2[string, []*model.RouteSet] {
	r.note(Routes, host)
	x := r.index
	return func(yield func(string, []*model.RouteSet) bool) {
		if sets := x.sets.Get(host); len(sets) > 0 && !yield(host, sets) {
			return
		}
		for _, w := range x.wildcardSets {
			if Covers(w, host) && !yield(w, x.sets.Get(w)) {
				return
			}
		}
	}
}

// AllRouteSets gives the hosts that route sets of sidecars name, those with a wildcard included, each with its sets, by host.
func (r *Reader) AllRouteSets() iter.Seq2[string, []*model.RouteSet] {
	r.note(Routes, "")
	sets := r.index.sets
	return func(yield func(string, []*model.RouteSet) bool) {
		for _, h := range slices.Sorted(sets.Keys()) {
			if !yield(h, sets.Get(h)) {
				return
			}
		}
	}
}

// Destinations gives the DestinationRules that may be for a service's host: those that name it, then those of wildcards that cover
// it, the longest first.
func (r *Reader) Destinations(host string) iter.Seq[[]*model.Destination] {
	r.note(Destinations, host)
	x := r.index
	return func(yield func([]*model.Destination) bool) {
		if list := x.mesh.Destinations.Get(host); len(list) > 0 && !yield(list) {
			return
		}
		for _, w := range x.wildcardDestinations {
			if Covers(w, host) && !yield(x.mesh.Destinations.Get(w)) {
				return
			}
		}
	}
}

// Workload gives the workload of a namespace and a name; nil when there is none.
func (r *Reader) Workload(namespace, name string) *model.Workload {
	key := namespace + "/" + name
	r.note(Workloads, key)
	return r.index.mesh.Workloads.Get(key)
}

// Gateways gives all gateways.
func (r *Reader) Gateways() []*model.Gateway {
	r.note(Gateways, "")
	return r.index.mesh.Gateways
}

// RouteSetsAt gives the route sets that name a gateway, whichever of its servers, in the order of precedence.
func (r *Reader) RouteSetsAt(gateway model.Ref) []*model.RouteSet {
	r.note(Gateways, "")
	return r.index.atGateway[gatewayName{gatewayKind(gateway.Kind), gateway.Namespace, gateway.Name}]
}

func (r *Reader) policies(namespace string) *policies {
	r.note(Policies, "")
	r.note(Policies, namespace)
	return r.index.of(namespace)
}

// PeerAuthentications gives the mesh's own and those of a namespace.
func (r *Reader) PeerAuthentications(namespace string) []*model.PeerAuthentication {
	return r.policies(namespace).peers
}

// OtherPeerAuthentications gives those at the other end of a change that is under way, and whether one is.
func (r *Reader) OtherPeerAuthentications(namespace string) ([]*model.PeerAuthentication, bool) {
	return r.policies(namespace).others, r.index.mesh.Changing
}

// AuthorizationPolicies gives the mesh's own and those of a namespace.
func (r *Reader) AuthorizationPolicies(namespace string) []*model.AuthorizationPolicy {
	return r.policies(namespace).rules
}

// RateLimits gives the mesh's own and those of a namespace, oldest first.
func (r *Reader) RateLimits(namespace string) []*model.RateLimit { return r.policies(namespace).limits }

// ProxyConfigs gives the mesh's own and those of a namespace, oldest first.
func (r *Reader) ProxyConfigs(namespace string) []*model.ProxyConfig {
	return r.policies(namespace).proxies
}

// Sidecars gives the mesh's own and those of a namespace, oldest first.
func (r *Reader) Sidecars(namespace string) []*model.Sidecar {
	r.note(Sidecars, "")
	r.note(Sidecars, namespace)
	return r.index.of(namespace).sidecars
}
