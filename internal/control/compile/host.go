package compile

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinHost makes the service of a host, with its endpoints. A host belongs to the Kubernetes service of that name, else to the
// oldest ServiceEntry, to which younger ones of its namespace add.
func (c *compiler) joinHost(u *unit) {
	var first *record
	var s *model.Service
	nth := 0
	claimants := c.ask(topic{about: onHost, a: u.name})
	slices.SortStableFunc(claimants, func(a, b *record) int { return cmp.Compare(hostRank(a), hostRank(b)) })
	var added []addition
	for _, r := range claimants {
		for i, claimed := range r.part.Services {
			switch {
			case claimed.Host != u.name:
			case first == nil:
				own := *claimed
				s, first, nth = &own, r, i
			case addsTo(claimed, s, first):
				added = append(added, c.addPorts(s, first, claimed, r, i))
			default:
				c.about(r.Object).Warn("DuplicateHost", convert.At("spec.hosts", i), "keep one of them",
					"host %s already belongs to %s, which is older or a Kubernetes service: this one has no effect", s.Host, first.Ref())
				c.about(first.Object).Warn("DuplicateHost", "", "keep one of them", "host %s is also claimed by %s, which has no effect", s.Host, r.Ref())
			}
		}
	}
	if s == nil {
		c.state.setService(u, nil, seat{})
		c.state.leaveHost(u)
		return
	}
	c.claimNetworks(s, first)
	c.addBackendTLS(s)
	c.addEndpoints(s, first, added)
	c.state.setService(u, s, seat{first, nth})
}

// hostRank puts Kubernetes services first.
func hostRank(r *record) int {
	if r.Kind.Name == "Service" {
		return 0
	}
	return 1
}

// leaveHost ends the unit of a host that nobody claims any more.
func (k *Compiler) leaveHost(u *unit) {
	delete(k.hosts, u.name)
	u.gone = true
}

// seat is where a service was written: the object, and the place among its services.
type seat struct {
	by  *record
	nth int
}

// setService puts what came of a host into the mesh, and passes on what differs from before.
func (k *Compiler) setService(u *unit, s *model.Service, at seat) {
	old, moved := u.service, u.seat != at
	if old == nil && s == nil {
		return
	}
	same := sameService(old, s)
	sameEndpoints := shareEndpoints(old, s)
	u.seat = at
	if same && sameEndpoints && !moved {
		return
	}
	u.service = s
	if s == nil {
		k.mesh.Services.Delete(u.name)
	} else {
		k.mesh.Services.Put(u.name, s)
	}
	if !same || !sameEndpoints {
		k.moveLeads(u, old, s, same)
	}
	if !sameEndpoints {
		k.delta.Endpoints[u.name] = true
	}
	if !same || moved || s.Headless {
		k.moveAddresses(u, old, s)
	}
	if !same {
		k.delta.Services[u.name] = true
		k.rename(u.name, old, s)
		k.dirty(topic{about: onService, a: u.name})
	}
}

// sameService compares services in everything but their endpoints.
func sameService(a, b *model.Service) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Endpoints, y.Endpoints = nil, nil
	return reflect.DeepEqual(&x, &y)
}

// shareEndpoints puts the old service's endpoints in place of equal ones of the new, and reports whether the lists are the same then.
func shareEndpoints(old, s *model.Service) bool {
	if old == nil || s == nil {
		return (old == nil || len(old.Endpoints) == 0) && (s == nil || len(s.Endpoints) == 0)
	}
	same := len(old.Endpoints) == len(s.Endpoints)
	rest := old.Endpoints
	for i, ep := range s.Endpoints {
		for len(rest) > 0 && compareEndpoints(rest[0], ep) < 0 {
			rest = rest[1:]
		}
		if len(rest) > 0 && compareEndpoints(rest[0], ep) == 0 && reflect.DeepEqual(rest[0], ep) {
			s.Endpoints[i] = rest[0]
			rest = rest[1:]
			continue
		}
		same = false
	}
	return same
}

func compareEndpoints(a, b *model.Endpoint) int {
	return cmp.Or(strings.Compare(a.Address, b.Address), strings.Compare(a.Instance, b.Instance))
}

// rename keeps the list of hosts by short name.
func (k *Compiler) rename(host string, old, s *model.Service) {
	if old != nil && s != nil && old.Name == s.Name && old.Namespace == s.Namespace {
		return
	}
	if old != nil {
		k.named.remove(old.Name, host)
		k.dirty(topic{about: onNamed, a: old.Name})
	}
	if s != nil {
		k.named.add(s.Name, host)
		k.dirty(topic{about: onNamed, a: s.Name})
	}
}

// reached is who is reached by an address: services by virtual addresses of theirs, headless ones by those of their endpoints.
type reached struct{ virtual, headless []*unit }

// moveAddresses has the addresses of a host lead to it.
func (k *Compiler) moveAddresses(u *unit, old, s *model.Service) {
	touched := map[netip.Addr]bool{}
	change := func(s *model.Service, what func(list []*unit) []*unit) {
		if s == nil {
			return
		}
		for _, a := range s.VirtualAddresses() {
			touched[a] = true
			r := k.reached[a]
			r.virtual = what(r.virtual)
			k.reached[a] = r
		}
		if !s.Headless {
			return
		}
		for _, ep := range s.Endpoints {
			if a, err := netip.ParseAddr(ep.Address); err == nil {
				touched[a] = true
				r := k.reached[a]
				r.headless = what(r.headless)
				k.reached[a] = r
			}
		}
	}
	change(old, func(list []*unit) []*unit { return slices.DeleteFunc(list, func(x *unit) bool { return x == u }) })
	change(s, func(list []*unit) []*unit {
		if slices.Contains(list, u) {
			return list
		}
		return append(list, u)
	})
	for a := range touched {
		k.lead(a)
	}
	k.moveNetworks(u, old, s)
}

// lead puts into the mesh whom an address leads to: virtual addresses go first, Kubernetes services before ServiceEntries, older
// ones before younger ones.
func (k *Compiler) lead(a netip.Addr) {
	r := k.reached[a]
	slices.SortFunc(r.virtual, k.first)
	slices.SortFunc(r.headless, k.before)
	var hosts []string
	for _, u := range slices.Concat(r.virtual, r.headless) {
		if !slices.Contains(hosts, u.name) {
			hosts = append(hosts, u.name)
		}
	}
	if !leads(&k.mesh.ByAddress, a, hosts) {
		return
	}
	if len(hosts) == 0 {
		delete(k.reached, a)
	}
	k.delta.Addresses[a] = true
}

// leads has an address or a range lead to hosts, and reports whether it has led to others.
func leads[K comparable](table *model.Table[K, []string], at K, hosts []string) bool {
	if slices.Equal(hosts, table.Get(at)) {
		return false
	}
	if len(hosts) == 0 {
		table.Delete(at)
	} else {
		table.Put(at, hosts)
	}
	return true
}
