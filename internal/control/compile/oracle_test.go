package compile

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// compareMeshes gives what truly differs between two meshes, part by part, as a delta. It knows nothing of how they were made.
func compareMeshes(a, b *model.Mesh) model.Delta {
	d := newDelta()
	tables(&a.Services, &b.Services, func(host string, x, y *model.Service) {
		var ex, ey []*model.Endpoint
		if x != nil {
			ex = x.Endpoints
		}
		if y != nil {
			ey = y.Endpoints
		}
		if !(len(ex) == 0 && len(ey) == 0) && !reflect.DeepEqual(ex, ey) {
			d.Endpoints[host] = true
		}
		if !reflect.DeepEqual(accountsOf(ex), accountsOf(ey)) {
			d.Accounts[host] = true
		}
		if !sameService(x, y) {
			d.Services[host] = true
		}
	})
	tables(&a.ByAddress, &b.ByAddress, func(addr netip.Addr, _, _ []string) { d.Addresses[addr] = true })
	tables(&a.ByNetwork, &b.ByNetwork, func(n netip.Prefix, _, _ []string) { d.Networks[n] = true })
	tables(&a.Destinations, &b.Destinations, func(host string, _, _ []*model.Destination) { d.Destinations[host] = true })
	tables(&a.Workloads, &b.Workloads, func(name string, _, _ *model.Workload) { d.Workloads[name] = true })
	for _, pair := range [][2]*model.Mesh{{a, b}, {b, a}} {
		byHost, byGateway := routesByUser(pair[0])
		otherHost, otherGateway := routesByUser(pair[1])
		for host, sets := range byHost {
			d.Routes[host] = d.Routes[host] || !reflect.DeepEqual(sets, otherHost[host])
		}
		for ref, sets := range byGateway {
			d.Gateways[ref] = d.Gateways[ref] || !reflect.DeepEqual(sets, otherGateway[ref])
		}
		gateways, other := gatewaysByRef(pair[0]), gatewaysByRef(pair[1])
		for ref, g := range gateways {
			d.Gateways[ref] = d.Gateways[ref] || !reflect.DeepEqual(g, other[ref])
		}
		policies, others := policiesByNamespace(pair[0]), policiesByNamespace(pair[1])
		for ns, list := range policies {
			d.Policies[ns] = d.Policies[ns] || !reflect.DeepEqual(list, others[ns])
		}
		sidecars, theirs := sidecarsByNamespace(pair[0]), sidecarsByNamespace(pair[1])
		for ns, list := range sidecars {
			d.Sidecars[ns] = d.Sidecars[ns] || !reflect.DeepEqual(list, theirs[ns])
		}
	}
	return d
}

// tables calls differ for each key whose values are not equal.
func tables[K comparable, V any](a, b *model.Table[K, V], differ func(K, V, V)) {
	for k, x := range a.All() {
		if y, ok := b.Lookup(k); !ok || !reflect.DeepEqual(x, y) {
			differ(k, x, y)
		}
	}
	for k, y := range b.All() {
		if x, ok := a.Lookup(k); !ok {
			differ(k, x, y)
		}
	}
}

// routesByUser gives the route sets that a host's clients and a gateway's use, in order.
func routesByUser(m *model.Mesh) (byHost map[string][]*model.RouteSet, byGateway map[model.Ref][]*model.RouteSet) {
	byHost, byGateway = map[string][]*model.RouteSet{}, map[model.Ref][]*model.RouteSet{}
	for _, rs := range m.RouteSets {
		for _, h := range rs.Hosts {
			if rs.Mesh {
				byHost[h] = append(byHost[h], rs)
			}
		}
		for _, g := range rs.Gateways {
			ref := model.Ref{Kind: g.Kind, Namespace: g.Namespace, Name: g.Name}
			byGateway[ref] = append(byGateway[ref], rs)
		}
	}
	return byHost, byGateway
}

func gatewaysByRef(m *model.Mesh) map[model.Ref]*model.Gateway {
	byRef := map[model.Ref]*model.Gateway{}
	for _, g := range m.Gateways {
		byRef[g.Ref] = g
	}
	return byRef
}

func policiesByNamespace(m *model.Mesh) map[string][]any {
	byNamespace := map[string][]any{}
	for _, p := range m.PeerAuthentications {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	for _, p := range m.AuthorizationPolicies {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	for _, l := range m.RateLimits {
		byNamespace[l.Namespace] = append(byNamespace[l.Namespace], l)
	}
	for _, p := range m.ProxyConfigs {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	return byNamespace
}

func sidecarsByNamespace(m *model.Mesh) map[string][]*model.Sidecar {
	byNamespace := map[string][]*model.Sidecar{}
	for _, s := range m.Sidecars {
		byNamespace[s.Namespace] = append(byNamespace[s.Namespace], s)
	}
	return byNamespace
}

func accountsOf(endpoints []*model.Endpoint) map[string]bool {
	out := map[string]bool{}
	for _, e := range endpoints {
		if e.ServiceAccount != "" {
			out[e.Namespace+"/"+e.ServiceAccount] = true
		}
	}
	return out
}

// uncovered gives what is in a true delta and not in one that was told.
func uncovered(truth, told model.Delta) (missing []string) {
	if told.All {
		return nil
	}
	a, b := reflect.ValueOf(truth), reflect.ValueOf(told)
	for i := range a.NumField() {
		if a.Field(i).Kind() != reflect.Map {
			continue
		}
		for _, k := range a.Field(i).MapKeys() {
			v := b.Field(i).MapIndex(k)
			if a.Field(i).MapIndex(k).Bool() && (!v.IsValid() || !v.Bool()) {
				missing = append(missing, fmt.Sprintf("%s %v", a.Type().Field(i).Name, k))
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// count gives how many parts a delta names.
func count(d model.Delta) (n int) {
	v := reflect.ValueOf(d)
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Map {
			continue
		}
		for _, k := range v.Field(i).MapKeys() {
			if v.Field(i).MapIndex(k).Bool() {
				n++
			}
		}
	}
	return n
}

// fullDump renders all of a mesh, so that any change of it shows.
func fullDump(m *model.Mesh) string {
	var b strings.Builder
	b.WriteString(dump(m))
	var lines []string
	for a, hosts := range m.ByAddress.All() {
		lines = append(lines, fmt.Sprintf("%s %v\n", a, hosts))
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	return b.String()
}

var fingerprintSeed = maphash.MakeSeed()

// fingerprint tells whether anything in a mesh has changed, at less cost than fullDump.
func fingerprint(m *model.Mesh) uint64 {
	var sum uint64 // of entries, whose order is not defined
	entry := func(key string, v any) {
		var h maphash.Hash
		h.SetSeed(fingerprintSeed)
		h.WriteString(key)
		mark(&h, reflect.ValueOf(v))
		sum += h.Sum64()
	}
	for k, v := range m.Services.All() {
		entry(k, v)
	}
	for k, v := range m.ByAddress.All() {
		entry(k.String(), v)
	}
	for k, v := range m.Destinations.All() {
		entry(k, v)
	}
	for k, v := range m.Workloads.All() {
		entry(k, v)
	}
	entry("routes", m.RouteSets)
	entry("gateways", m.Gateways)
	entry("peers", m.PeerAuthentications)
	entry("policies", m.AuthorizationPolicies)
	entry("limits", m.RateLimits)
	entry("sidecars", m.Sidecars)
	entry("proxies", m.ProxyConfigs)
	entry("settings", m.Settings)
	return sum
}

// mark writes a value into a hash.
func mark(h *maphash.Hash, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			h.WriteByte(0)
			return
		}
		mark(h, v.Elem())
	case reflect.Struct:
		if x, ok := v.Interface().(fmt.Stringer); ok && v.Type().NumField() > 0 && !v.Type().Field(0).IsExported() { // times and addresses
			h.WriteString(x.String())
			return
		}
		for i := range v.NumField() {
			mark(h, v.Field(i))
		}
	case reflect.Map:
		var sum uint64
		for it := v.MapRange(); it.Next(); {
			var e maphash.Hash
			e.SetSeed(fingerprintSeed)
			mark(&e, it.Key())
			mark(&e, it.Value())
			sum += e.Sum64()
		}
		maphash.WriteComparable(h, sum)
	case reflect.Slice:
		maphash.WriteComparable(h, v.Len())
		for i := range v.Len() {
			mark(h, v.Index(i))
		}
	case reflect.String:
		h.WriteString(v.String())
		h.WriteByte(0)
	default:
		maphash.WriteComparable(h, v.Interface())
	}
}
