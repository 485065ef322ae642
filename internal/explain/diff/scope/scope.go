// Package scope says which hosts, and which namespaces of clients, two meshes may treat differently, so that the rest need not be tried.
package scope

import (
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Scope says, from the models alone, which hosts the sides may treat differently, and which namespaces of clients may matter there.
// It may say too much, never too little: a part of the model that it does not know counts for everything.
type Scope struct {
	before, after *sources
	All           bool            // every host may be treated differently
	Namespaces    bool            // every namespace may matter
	hosts         map[string]bool // whose services or destination rules differ
	sets          map[*model.RouteSet]bool
}

// known are the fields of a mesh that scope looks at by itself, or that decide about nothing that workloads send.
var known = []string{"Settings", "Services", "ByAddress", "ByNetwork", "RouteSets", "Destinations", "Gateways", "Workloads", "PeerAuthentications",
	"AuthorizationPolicies", "RateLimits"}

// New compares the models of two meshes.
func New(before, after *model.Mesh) *Scope {
	s := &Scope{before: newSources(before), after: newSources(after), hosts: map[string]bool{}, sets: map[*model.RouteSet]bool{}}
	s.All = !reflect.DeepEqual(before.Settings, after.Settings) || !reflect.DeepEqual(before.PeerAuthentications, after.PeerAuthentications)
	b, a := reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem()
	for i := range b.NumField() {
		if slices.Contains(known, b.Type().Field(i).Name) {
			continue
		}
		s.Namespaces = s.Namespaces || !empty(b.Field(i)) || !empty(a.Field(i))
		s.All = s.All || !reflect.DeepEqual(b.Field(i).Interface(), a.Field(i).Interface())
	}
	if s.All {
		return s
	}
	differ(before.Services.Entries(), after.Services.Entries(), s.hosts)
	differ(before.Destinations.Entries(), after.Destinations.Entries(), s.hosts)
	same := map[model.Ref]*model.RouteSet{}
	for _, set := range before.RouteSets {
		same[set.Ref] = set
	}
	for i, set := range after.RouteSets {
		// Their order is that of precedence: where one moves, what follows it is looked at as well.
		if was := same[set.Ref]; was == nil || !reflect.DeepEqual(was, set) || i < len(before.RouteSets) && len(before.RouteSets) == len(after.RouteSets) && before.RouteSets[i].Ref != set.Ref {
			s.sets[set] = true
			continue
		}
		delete(same, set.Ref)
	}
	for _, set := range same {
		s.sets[set] = true
	}
	return s
}

// Alike reports whether nothing differs that decides about requests.
func (s *Scope) Alike() bool {
	b, a := s.before.mesh, s.after.mesh
	return !s.All && len(s.hosts)+len(s.sets) == 0 && reflect.DeepEqual(b.Gateways, a.Gateways) &&
		reflect.DeepEqual(b.AuthorizationPolicies, a.AuthorizationPolicies) && reflect.DeepEqual(b.RateLimits, a.RateLimits)
}

func empty(v reflect.Value) bool { return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 }

func differ[V any](before, after map[string]V, into map[string]bool) {
	for h, v := range after {
		if was, ok := before[h]; !ok || !reflect.DeepEqual(was, v) {
			into[h] = true
		}
	}
	for h := range before {
		if _, ok := after[h]; !ok {
			into[h] = true
		}
	}
}

// sources finds what decides about a host.
type sources struct {
	mesh    *model.Mesh
	byHost  map[string][]*model.RouteSet
	byRule  map[string][]*model.Destination
	starred []string // hosts of either that begin with a star
}

func newSources(m *model.Mesh) *sources {
	s := &sources{mesh: m, byHost: map[string][]*model.RouteSet{}, byRule: m.Destinations.Entries()}
	for _, set := range m.RouteSets {
		for _, h := range set.Hosts {
			s.byHost[h] = append(s.byHost[h], set)
		}
	}
	for h := range s.byHost {
		s.starred = star(s.starred, h)
	}
	for h := range s.byRule {
		s.starred = star(s.starred, h)
	}
	for h := range m.Services.All() {
		s.starred = star(s.starred, h)
	}
	return s
}

func star(list []string, h string) []string {
	if strings.HasPrefix(h, "*") && !slices.Contains(list, h) {
		return append(list, h)
	}
	return list
}

// names are the host as objects may write it: by itself, and by the stars that cover it.
func (s *sources) names(host string) []string {
	out := []string{host}
	for _, h := range s.starred {
		if strings.HasSuffix(host, h[1:]) {
			out = append(out, h)
		}
	}
	return out
}

// matters gives the route sets of a host, and all names of hosts that requests to it may concern.
func (s *sources) matters(host string) (sets []*model.RouteSet, names []string) {
	for _, h := range Aliases(s.mesh, host) {
		names = append(names, s.names(h)...)
	}
	for _, n := range names {
		sets = append(sets, s.byHost[n]...)
	}
	for _, set := range sets {
		for _, h := range targets(set) {
			names = append(names, s.names(h)...)
		}
	}
	return sets, names
}

// Aliases are a host and the hosts that it stands for one after the other, where it is an alias of services of the mesh.
func Aliases(m *model.Mesh, host string) []string {
	hosts := []string{host}
	for svc := m.Services.Get(host); svc != nil && svc.ExternalName != "" && !slices.Contains(hosts, svc.ExternalName); {
		if svc = m.Services.Get(svc.ExternalName); svc != nil {
			hosts = append(hosts, svc.Host)
		}
	}
	return hosts
}

// targets are the hosts that a route set sends to.
func targets(set *model.RouteSet) (hosts []string) {
	add := func(list []model.WeightedDestination) {
		for i := range list {
			hosts = append(hosts, list[i].Host)
		}
	}
	for i := range set.HTTP {
		add(set.HTTP[i].Destinations)
		for j := range set.HTTP[i].Mirrors {
			hosts = append(hosts, set.HTTP[i].Mirrors[j].Destination.Host)
		}
	}
	for i := range set.TCP {
		add(set.TCP[i].Destinations)
	}
	for i := range set.UDP {
		add(set.UDP[i].Destinations)
	}
	for i := range set.TLS {
		add(set.TLS[i].Destinations)
	}
	return hosts
}

// Touched reports whether the sides may treat requests to a host differently.
func (s *Scope) Touched(host string) bool {
	if s.All {
		return true
	}
	for _, side := range []*sources{s.before, s.after} {
		sets, names := side.matters(host)
		if slices.ContainsFunc(names, func(n string) bool { return s.hosts[n] }) || slices.ContainsFunc(sets, func(r *model.RouteSet) bool { return s.sets[r] }) {
			return true
		}
	}
	return false
}

// Concerned reports whether requests to a host may concern one of the hosts on either side.
func (s *Scope) Concerned(host string, hosts map[string]bool) bool {
	for _, side := range []*sources{s.before, s.after} {
		_, names := side.matters(host)
		if slices.ContainsFunc(names, func(n string) bool { return hosts[n] }) {
			return true
		}
	}
	return false
}

// Apart gives the namespaces whose clients may see a host in a way of their own; others see it alike. Nil means all of them.
func (s *Scope) Apart(host string) map[string]bool {
	if s.Namespaces {
		return nil
	}
	out := map[string]bool{}
	visibility := func(namespace string, v model.Visibility) {
		out[namespace] = true
		for _, n := range v.Namespaces {
			out[n] = true
		}
	}
	for _, side := range []*sources{s.before, s.after} {
		sets, names := side.matters(host)
		for _, n := range names {
			for svc := range side.mesh.Services.Get(n).All() {
				visibility(svc.Namespace, svc.ExportTo)
			}
			for _, d := range side.byRule[n] {
				visibility(d.Ref.Namespace, d.ExportTo)
			}
		}
		for _, set := range sets {
			visibility(set.Namespace, set.ExportTo)
			for _, n := range sourceNamespaces(set) {
				out[n] = true
			}
		}
	}
	return out
}

// sourceNamespaces are those that conditions on the client name.
func sourceNamespaces(set *model.RouteSet) (out []string) {
	for i := range set.HTTP {
		for j := range set.HTTP[i].Matches {
			out = append(out, set.HTTP[i].Matches[j].SourceNamespace)
		}
	}
	for i := range set.TCP {
		for j := range set.TCP[i].Matches {
			out = append(out, set.TCP[i].Matches[j].SourceNamespace)
		}
	}
	for i := range set.TLS {
		for j := range set.TLS[i].Matches {
			out = append(out, set.TLS[i].Matches[j].SourceNamespace)
		}
	}
	return out
}
