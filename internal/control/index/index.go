// Package index prepares a mesh for generation, and is the only way in which generation may read it.
//
// An Index is derived from the one before at the cost of what differs between their meshes. A Reader looks things up in it and notes
// each thing that was looked at, absent ones included, as a Key. A model.Delta names the same Keys, so that whoever keeps something
// that was made through a Reader knows when to make it again: Readers finds it.
//
// Code that wants more of the mesh than the Reader gives adds a method here, with the key that it notes. It must be one that the
// delta names whenever the answer may change; a condition that depends on many things notes a key for all of a kind.
package index

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weftmesh/weft/internal/control/model"
)

// Index is a mesh prepared for generation. It is immutable and safe for concurrent use.
type Index struct {
	mesh *model.Mesh
	// sets are the route sets of sidecars by host, those with a wildcard included; in the order of precedence.
	sets model.Table[string, []*model.RouteSet]
	// atGateway are the route sets by the gateways that they name.
	atGateway map[gatewayName][]*model.RouteSet
	// The hosts with a wildcard, the longest first, of route sets, services and destinations.
	wildcardSets, wildcardServices, wildcardDestinations []string
	// policies by namespace, the mesh's own included in each; that of "" is for namespaces without any.
	policies map[string]*policies
	// bySource is what decides about a route somewhere, byWorkload about a destination.
	bySource, byWorkload traits

	hosts *hostList
	// masks are the lengths of the ranges that services have, the longest first.
	masks []int
}

// hostList is the hosts of all services, sorted at first use. Indexes share it while no service comes or goes.
type hostList struct {
	once sync.Once
	list []string
}

func (x *Index) allHosts() []string {
	l := x.hosts
	l.once.Do(func() { l.list = slices.Sorted(x.mesh.Services.Keys()) })
	return l.list
}

// gatewayName is how references tell gateways apart: both kinds of Gateway may share a name.
type gatewayName struct{ kind, namespace, name string }

// gatewayKind takes the ways of writing Istio's own kind as one.
func gatewayKind(kind string) string { return strings.TrimSuffix(kind, ".istio") }

// policies are those that may select a workload of a namespace, in the order of the mesh.
type policies struct {
	peers, others []*model.PeerAuthentication

	rules  []*model.AuthorizationPolicy
	limits []*model.RateLimit
	// proxies and sidecars say how proxies run, and what they see.
	proxies  []*model.ProxyConfig
	sidecars []*model.Sidecar
}

// New prepares a mesh, which must not change afterwards.
func New(mesh *model.Mesh) *Index {
	x := &Index{mesh: mesh, hosts: &hostList{}}
	x.routes(nil)
	x.byWorkload.policy(&model.TrafficPolicy{Outlier: mesh.Settings.Outlier, Balancing: &model.Balancing{Locality: mesh.Settings.Locality}}, 1)
	for h, list := range mesh.Destinations.All() {
		x.wildcardDestinations = addWildcard(x.wildcardDestinations, h)
		for _, d := range list {
			x.byWorkload.destination(d, 1)
		}
	}
	for h, s := range mesh.Services.All() {
		x.byWorkload.service(s, 1)
		x.wildcardServices = addWildcard(x.wildcardServices, h)
	}
	for _, list := range []*[]string{&x.wildcardSets, &x.wildcardServices, &x.wildcardDestinations} {
		slices.SortFunc(*list, LongerFirst)
	}
	x.gateways()
	x.selectors()
	x.networks()
	return x
}

// Next prepares the mesh that follows, at the cost of what the delta names.
func (x *Index) Next(mesh *model.Mesh, d model.Delta) *Index {
	if d.All {
		return New(mesh)
	}
	next := *x
	next.mesh = mesh
	next.byWorkload, next.bySource = x.byWorkload.clone(), x.bySource.clone()
	if len(d.Services) > 0 {
		next.services(x.mesh, d.Services)
	}
	if len(d.Destinations) > 0 {
		next.destinations(x.mesh, d.Destinations)
	}
	if len(d.Routes) > 0 {
		next.routes(d.Routes)
	}
	if len(d.Gateways) > 0 {
		next.gateways()
	}
	if len(d.Policies)+len(d.Sidecars) > 0 {
		next.selectors()
	}
	if len(d.Networks) > 0 {
		next.networks()
	}
	return &next
}

func (x *Index) networks() {
	x.masks = nil
	for n := range x.mesh.ByNetwork.Keys() {
		if !slices.Contains(x.masks, n.Bits()) {
			x.masks = append(x.masks, n.Bits())
		}
	}
	slices.SortFunc(x.masks, func(a, b int) int { return b - a })
}

// Mesh is what was prepared. Generation does not read it directly, since nobody would know.
func (x *Index) Mesh() *model.Mesh { return x.mesh }

func (x *Index) services(before *model.Mesh, changed map[string]bool) {
	x.hosts = &hostList{}
	for h := range changed {
		x.byWorkload.service(before.Services.Get(h), -1)
		s := x.mesh.Services.Get(h)
		x.byWorkload.service(s, 1)
		x.wildcardServices = setWildcard(x.wildcardServices, h, s != nil)
	}
}

func (x *Index) destinations(before *model.Mesh, changed map[string]bool) {
	for h := range changed {
		for _, d := range before.Destinations.Get(h) {
			x.byWorkload.destination(d, -1)
		}
		list := x.mesh.Destinations.Get(h)
		for _, d := range list {
			x.byWorkload.destination(d, 1)
		}
		x.wildcardDestinations = setWildcard(x.wildcardDestinations, h, len(list) > 0)
	}
}

// routes files the route sets of sidecars: those of the changed hosts, or all where that is nil.
func (x *Index) routes(changed map[string]bool) {
	found := map[string][]*model.RouteSet{}
	for _, s := range x.mesh.RouteSets {
		if !s.Mesh {
			continue
		}
		for i, h := range s.Hosts {
			if (changed == nil || changed[h]) && !slices.Contains(s.Hosts[:i], h) {
				found[h] = append(found[h], s)
			}
		}
	}
	if changed == nil {
		x.sets = model.TableOf(found)
		for h, sets := range found {
			x.bySource.sources(sets, 1)
			x.wildcardSets = addWildcard(x.wildcardSets, h)
		}
		return
	}
	x.sets = x.sets.Copy()
	for h := range changed {
		x.bySource.sources(x.sets.Get(h), -1)
		sets := found[h]
		x.bySource.sources(sets, 1)
		if len(sets) == 0 {
			x.sets.Delete(h)
		} else {
			x.sets.Put(h, sets)
		}
		x.wildcardSets = setWildcard(x.wildcardSets, h, len(sets) > 0)
	}
}

// gateways files the route sets that gateways use.
func (x *Index) gateways() {
	x.atGateway = map[gatewayName][]*model.RouteSet{}
	for _, s := range x.mesh.RouteSets {
		for i, r := range s.Gateways {
			name := gatewayName{gatewayKind(r.Kind), r.Namespace, r.Name}
			again := slices.ContainsFunc(s.Gateways[:i], func(o model.GatewayRef) bool {
				return gatewayName{gatewayKind(o.Kind), o.Namespace, o.Name} == name
			})
			if !again {
				x.atGateway[name] = append(x.atGateway[name], s)
			}
		}
	}
}

// selectors files what is chosen by selector.
func (x *Index) selectors() {
	x.policies = map[string]*policies{"": {}}
	of := func(namespace string) {
		if x.policies[namespace] == nil {
			x.policies[namespace] = &policies{}
		}
	}
	for _, p := range slices.Concat(x.mesh.PeerAuthentications, x.mesh.OtherPeers) {
		of(p.Namespace)
	}
	for _, p := range x.mesh.AuthorizationPolicies {
		of(p.Namespace)
	}
	for _, l := range x.mesh.RateLimits {
		of(l.Namespace)
	}
	for _, p := range x.mesh.ProxyConfigs {
		of(p.Namespace)
	}
	for _, s := range x.mesh.Sidecars {
		of(s.Namespace)
	}
	// What is the mesh's is in every list. Namespaces with policies of their own are few, and so are the mesh's.
	for _, p := range x.mesh.PeerAuthentications {
		x.forNamespace(p.Namespace, func(l *policies) { l.peers = append(l.peers, p) })
	}
	for _, p := range x.mesh.OtherPeers {
		x.forNamespace(p.Namespace, func(l *policies) { l.others = append(l.others, p) })
	}
	for _, p := range x.mesh.AuthorizationPolicies {
		x.forNamespace(p.Namespace, func(l *policies) { l.rules = append(l.rules, p) })
	}
	for _, p := range x.mesh.RateLimits {
		x.forNamespace(p.Namespace, func(l *policies) { l.limits = append(l.limits, p) })
	}
	for _, p := range x.mesh.ProxyConfigs {
		x.forNamespace(p.Namespace, func(l *policies) { l.proxies = append(l.proxies, p) })
	}
	for _, s := range x.mesh.Sidecars {
		x.forNamespace(s.Namespace, func(l *policies) { l.sidecars = append(l.sidecars, s) })
	}
}

func (x *Index) forNamespace(namespace string, add func(*policies)) {
	if namespace != "" {
		add(x.policies[namespace])
		return
	}
	for _, l := range x.policies {
		add(l)
	}
}

// of gives the policies of a namespace.
func (x *Index) of(namespace string) *policies { return cmp.Or(x.policies[namespace], x.policies[""]) }

// Class gives a key of what of a client decides about resources besides its namespace and its Sidecar: clients with equal keys, in one namespace and with one Sidecar,
// get equal clusters, endpoints and DNS tables; with sources, equal listeners and routes too.
func (x *Index) Class(labels map[string]string, locality string, sources bool) string {
	class := x.byWorkload.of(labels, locality)
	if sources {
		class += "|" + x.bySource.of(labels, locality)
	}
	return class
}

// SameClasses reports whether both indexes put every client into the same class. Clients that were found in one are then found in
// the other.
func (x *Index) SameClasses(as *Index) bool {
	return x.bySource.same(&as.bySource) && x.byWorkload.same(&as.byWorkload) && slices.Equal(x.mesh.Sidecars, as.mesh.Sidecars)
}

// IsWildcard reports whether a host stands for many.
func IsWildcard(host string) bool { return strings.HasPrefix(host, "*") }

// Covers reports whether a host with a wildcard ("*", "*.example.com") covers a host.
func Covers(wildcard, host string) bool {
	suffix := wildcard[1:]
	return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// LongerFirst orders hosts with wildcards, the most specific first.
func LongerFirst(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) }

func addWildcard(list []string, host string) []string {
	if IsWildcard(host) {
		return append(list, host)
	}
	return list
}

// setWildcard gives a list with or without a host; the one given stays as it is.
func setWildcard(list []string, host string, present bool) []string {
	if !IsWildcard(host) {
		return list
	}
	i, found := slices.BinarySearchFunc(list, host, LongerFirst)
	switch {
	case found && !present:
		return slices.Delete(slices.Clone(list), i, i+1)
	case !found && present:
		return slices.Insert(slices.Clone(list), i, host)
	}
	return list
}

// traits say what of a client decides about resources: labels by their keys, and the locality. They are counted, so that what no
// object asks for any more is forgotten.
type traits struct {
	labels   map[string]int
	locality int
	keys     []string // of labels, sorted
}

func (t *traits) clone() traits {
	return traits{labels: maps.Clone(t.labels), locality: t.locality, keys: t.keys}
}

func (t *traits) same(as *traits) bool {
	return (t.locality > 0) == (as.locality > 0) && slices.Equal(t.keys, as.keys)
}

func (t *traits) label(key string, n int) {
	if t.labels == nil {
		t.labels = map[string]int{}
	}
	before := t.labels[key]
	if t.labels[key] += n; t.labels[key] == 0 {
		delete(t.labels, key)
	}
	if (before == 0) != (t.labels[key] == 0) {
		t.keys = slices.Sorted(maps.Keys(t.labels))
	}
}

func (t *traits) all(labels map[string]string, n int) {
	for k := range labels {
		t.label(k, n)
	}
}

// service notes n times what a service reads.
func (t *traits) service(s *model.Service, n int) {
	if s != nil && s.Near {
		t.locality += n
	}
}

// destination notes what a rule reads.
func (t *traits) destination(d *model.Destination, n int) {
	t.all(d.Selector, n)
	t.policy(&d.Policy, n)
	for i := range d.Subsets {
		if p := d.Subsets[i].Policy; p != nil {
			t.policy(p, n)
		}
	}
}

func (t *traits) policy(p *model.TrafficPolicy, n int) {
	if p.Outlier != nil {
		t.locality += n
	}
	if p.Balancing != nil && p.Balancing.Locality != nil {
		t.locality += n
		for _, k := range p.Balancing.Locality.FailoverPriority {
			if key, _, fixed := strings.Cut(k, "="); !fixed {
				t.label(key, n)
			}
		}
	}
	for _, own := range p.Ports {
		t.policy(own, n)
	}
}

// sources notes the labels that conditions of routes read.
func (t *traits) sources(sets []*model.RouteSet, n int) {
	for _, s := range sets {
		for i := range s.HTTP {
			for j := range s.HTTP[i].Matches {
				t.all(s.HTTP[i].Matches[j].SourceLabels, n)
			}
		}
		for i := range s.TCP {
			for j := range s.TCP[i].Matches {
				t.all(s.TCP[i].Matches[j].SourceLabels, n)
			}
		}
		for i := range s.TLS {
			for j := range s.TLS[i].Matches {
				t.all(s.TLS[i].Matches[j].SourceLabels, n)
			}
		}
	}
}

// of gives what a client has of it.
func (t *traits) of(labels map[string]string, locality string) string {
	var b strings.Builder
	if t.locality > 0 {
		b.WriteString("|" + locality)
	}
	for _, k := range t.keys {
		if v, ok := labels[k]; ok {
			b.WriteString("|" + k + "=" + v)
		}
	}
	return b.String()
}
