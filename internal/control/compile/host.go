package compile

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinHost makes the service of a host, with its endpoints. A host belongs to the Kubernetes service of that name, else to the
// oldest ServiceEntry, to which younger ones of its namespace add; clients of other namespaces that have their own use that.
func (c *compiler) joinHost(u *unit) {
	claimants := c.ask(topic{about: onHost, a: u.name})
	slices.SortStableFunc(claimants, func(a, b *record) int { return cmp.Compare(hostRank(a), hostRank(b)) })
	var claims []*claim
	for _, r := range claimants {
		for _, i := range r.nths[u.name] {
			claims = c.take(claims, r.part.Services[i], seat{r, i})
		}
	}
	if len(claims) == 0 {
		c.state.setService(u, nil, seat{})
		c.state.leaveHost(u)
		return
	}
	for _, own := range claims {
		c.claimNetworks(own)
		c.addBackendTLS(own.service)
		c.checkNames(own.service, own.by)
		c.addEndpoints(own.service, own.by, own.added)
	}
	s := claims[0].service
	for _, other := range claims[1:] {
		s.Others = append(s.Others, other.service)
	}
	c.state.setService(u, s, claims[0].seat)
}

// checkNames reports endpoints by names of services that there are none of: nothing is found by them.
func (c *compiler) checkNames(s *model.Service, by *record) {
	if s.Resolution != model.DNS && s.Resolution != model.DNSRoundRobin {
		return
	}
	for i, ep := range s.Endpoints {
		name := strings.ToLower(strings.TrimSuffix(ep.Address, "."))
		short, ours := strings.CutSuffix(name, ".svc."+c.settings.ClusterDomain)
		if !ours || strings.Count(short, ".") != 1 || c.claimed(name) {
			continue
		}
		field := parts.At("spec.endpoints", i) + ".address"
		if s.ExternalName != "" {
			field = "spec.externalName"
		}
		c.about(by.Object).Warn("HostNotFound", field, "make the Service, or write the name of another", "there is no service %s, which would be found by this name: requests for it get 503", name)
	}
}

// claimed reports whether some object says that it is a host's service.
func (c *compiler) claimed(host string) bool {
	t := topic{about: onHost, a: host}
	c.read(t)
	s := c.state.members[t]
	return s.len() > 0
}

// claim is what a namespace says of a host.
type claim struct {
	seat
	service *model.Service
	added   []addition
}

// take adds what an object says of a host to what others say: of two in one namespace the older one counts, unless they add up. Of two in
// different ones, clients get that of their own; who is anywhere else and sees both is reported.
func (c *compiler) take(claims []*claim, claimed *model.Service, at seat) []*claim {
	const hint = "keep one of them"
	i := slices.IndexFunc(claims, func(o *claim) bool { return o.service.Namespace == claimed.Namespace })
	if i < 0 {
		own := *claimed
		for _, older := range claims {
			if !seenElsewhere(older.service, &own) {
				continue
			}
			c.about(at.by.Object).Warn("DuplicateHost", parts.At("spec.hosts", at.nth), "keep one of them, or say in exportTo for whom each is",
				"host %s also belongs to %s, which is older or a Kubernetes service: this one is for clients of namespace %s alone where others see both", own.Host, older.by.Ref(), own.Namespace)
			c.about(older.by.Object).Warn("DuplicateHost", "", "keep one of them, or say in exportTo for whom each is",
				"host %s is also claimed by %s, which clients of namespace %s use in place of this one", own.Host, at.by.Ref(), own.Namespace)
			break
		}
		return append(claims, &claim{seat: at, service: &own})
	}
	first := claims[i]
	if addsTo(claimed, first.service, first.by) {
		first.added = append(first.added, c.addPorts(first.service, first.by, claimed, at.by, at.nth))
		return claims
	}
	c.about(at.by.Object).Warn("DuplicateHost", parts.At("spec.hosts", at.nth), hint,
		"host %s already belongs to %s, which is older or a Kubernetes service: this one has no effect", claimed.Host, first.by.Ref())
	c.about(first.by.Object).Warn("DuplicateHost", "", hint, "host %s is also claimed by %s, which has no effect", claimed.Host, at.by.Ref())
	return claims
}

// seenElsewhere reports whether some namespace that has neither of two services sees both.
func seenElsewhere(a, b *model.Service) bool {
	some := append([]string{""}, append(a.ExportTo.Namespaces, b.ExportTo.Namespaces...)...)
	return slices.ContainsFunc(some, func(ns string) bool {
		return ns != a.Namespace && ns != b.Namespace && a.ExportTo.VisibleFrom(a.Namespace, ns) && b.ExportTo.VisibleFrom(b.Namespace, ns)
	})
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
		if !sameAccounts(old, s) {
			k.delta.Accounts[u.name] = true
		}
		k.dirty(topic{about: onEndpoints, a: u.name})
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
	x.Endpoints, y.Endpoints, x.Others, y.Others = nil, nil, nil, nil
	return reflect.DeepEqual(&x, &y) && slices.EqualFunc(a.Others, b.Others, sameService)
}

// shareEndpoints puts the old service's endpoints in place of equal ones of the new, and reports whether the lists are the same then.
func shareEndpoints(old, s *model.Service) bool {
	if old == nil || s == nil {
		return !hasEndpoints(old) && !hasEndpoints(s)
	}
	same := len(old.Endpoints) == len(s.Endpoints)
	for i := range max(len(old.Others), len(s.Others)) {
		same = shareEndpoints(nth(old.Others, i), nth(s.Others, i)) && same
	}
	rest := old.Endpoints
	for i, ep := range s.Endpoints {
		for len(rest) > 0 && workloads.Compare(rest[0], ep) < 0 {
			rest = rest[1:]
		}
		if len(rest) > 0 && workloads.Compare(rest[0], ep) == 0 && reflect.DeepEqual(rest[0], ep) {
			s.Endpoints[i] = rest[0]
			rest = rest[1:]
			continue
		}
		same = false
	}
	return same
}

// sameAccounts compares who services' endpoints may be.
func sameAccounts(a, b *model.Service) bool {
	if a == nil || b == nil {
		return !hasEndpoints(a) && !hasEndpoints(b)
	}
	for i := range max(len(a.Others), len(b.Others)) {
		if !sameAccounts(nth(a.Others, i), nth(b.Others, i)) {
			return false
		}
	}
	return slices.Equal(a.Accounts(), b.Accounts())
}

func hasEndpoints(s *model.Service) bool {
	for o := range s.All() {
		if len(o.Endpoints) > 0 {
			return true
		}
	}
	return false
}

// nth gives one of a list, nil beyond its end.
func nth(list []*model.Service, i int) *model.Service {
	if i < len(list) {
		return list[i]
	}
	return nil
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
type reached struct{ virtual, headless set[*unit] }

// moveAddresses has the addresses of a host lead to it, once all is settled.
func (k *Compiler) moveAddresses(u *unit, old, s *model.Service) {
	change := func(s *model.Service, what func(*set[*unit], *unit)) {
		at := func(a netip.Addr) *reached {
			r := k.reached[a]
			if r == nil {
				r = &reached{}
				k.reached[a] = r
			}
			k.movedAddresses[a] = struct{}{}
			return r
		}
		for o := range s.All() {
			for _, a := range o.VirtualAddresses() {
				what(&at(a).virtual, u)
			}
		}
		if s == nil || !s.Headless {
			return
		}
		for _, ep := range s.Endpoints {
			if a, err := netip.ParseAddr(ep.Address); err == nil {
				what(&at(a).headless, u)
			}
		}
	}
	change(old, (*set[*unit]).remove)
	change(s, (*set[*unit]).add)
	k.moveNetworks(u, old, s)
}

// leadAll puts into the mesh whom the addresses and ranges lead to that have moved. Of one address there may be many thousands of hosts.
func (k *Compiler) leadAll() {
	for a := range k.movedAddresses {
		k.lead(a)
	}
	clear(k.movedAddresses)
	for n := range k.movedNetworks {
		k.leadNetwork(n)
	}
	clear(k.movedNetworks)
}

// lead puts into the mesh whom an address leads to: virtual addresses go first, Kubernetes services before ServiceEntries, older
// ones before younger ones.
func (k *Compiler) lead(a netip.Addr) {
	r := k.reached[a]
	var hosts []string
	for _, u := range slices.SortedFunc(r.virtual.all, k.first) {
		hosts = append(hosts, u.name)
	}
	for _, u := range slices.SortedFunc(r.headless.all, k.before) {
		if !r.virtual.has(u) {
			hosts = append(hosts, u.name)
		}
	}
	if len(hosts) == 0 {
		delete(k.reached, a)
	}
	if leads(&k.mesh.ByAddress, a, hosts) {
		k.delta.Addresses[a] = true
	}
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
