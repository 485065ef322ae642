package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/weftmesh/weft/internal/control/model"
)

// first orders the hosts that have an address or a range: Kubernetes services before ServiceEntries, older ones before younger ones.
func (k *Compiler) first(a, b *unit) int {
	return cmp.Or(cmp.Compare(hostRank(a.seat.by), hostRank(b.seat.by)), k.older(a.seat.by.Object, b.seat.by.Object),
		cmp.Compare(a.seat.nth, b.seat.nth))
}

// moveNetworks has the ranges of a host lead to it, once all is settled.
func (k *Compiler) moveNetworks(u *unit, old, s *model.Service) {
	for o := range old.All() {
		for _, n := range o.Networks {
			k.movedNetworks[n] = struct{}{}
			k.networks.remove(n, u)
		}
	}
	for o := range s.All() {
		for _, n := range o.Networks {
			k.movedNetworks[n] = struct{}{}
			k.networks.add(n, u)
		}
	}
}

// leadNetwork puts into the mesh whom a range leads to.
func (k *Compiler) leadNetwork(n netip.Prefix) {
	of := k.networks[n]
	var hosts []string
	for _, u := range slices.SortedFunc(of.all, k.first) {
		hosts = append(hosts, u.name)
	}
	if leads(&k.mesh.ByNetwork, n, hosts) {
		k.delta.Networks[n] = true
	}
}

// What is looked at and told of, of those that have an address or a range already.
const (
	maxRivals     = 100
	maxRivalsTold = 10
)

// claimNetworks reports ranges and addresses that another object has for the same port, those that the mesh gave too: the connections are
// those of the older one. What an object writes is claimed by the first of its hosts for all of them, of which there may be many thousands.
func (c *compiler) claimNetworks(own *claim) {
	s, by := own.service, own.by
	var networks []netip.Prefix
	if own.nth == 0 {
		networks = slices.Concat(s.Networks, entryAddresses(s))
	}
	if s.Allocated.IsValid() {
		networks = append(networks, netip.PrefixFrom(s.Allocated, s.Allocated.BitLen()))
	}
	for _, n := range networks {
		what := "range"
		if n.IsSingleIP() {
			what = "address"
		}
		for _, p := range s.Ports {
			place := topic{onPlace, "network", n.String(), strconv.Itoa(int(p.Number))}
			older, told := c.claim(&bid{place: place, object: by.Object}), 0
			for _, other := range older[:min(len(older), maxRivals)] {
				if other.unit == c.unit || other.object == by.Object || told == maxRivalsTold {
					continue // what others say of the host, or another host of the object
				}
				c.read(objectTopic(other.object.Ref()))
				t := c.service(other.unit.name)
				if t == nil || !meet(s, t) {
					continue
				}
				told++
				first, second := by.Object, other.object
				if c.state.older(second, first) < 0 {
					first, second = second, first
				}
				const hint = "keep one of them"
				c.about(second).Warn("DuplicateAddress", "spec.addresses", hint, what+" %s with port %d is that of %s too, which is %s, and gets the connections of clients that see both", rangeText(n), p.Number, first.Ref(), age(first, second))
				c.about(first).Warn("DuplicateAddress", "spec.addresses", hint, what+" %s with port %d is that of %s too, which gets no connections of clients that see both", rangeText(n), p.Number, second.Ref())
			}
		}
	}
}

// entryAddresses gives the single addresses of a ServiceEntry. Those of Kubernetes services are its own by what an API server sees to.
func entryAddresses(s *model.Service) (list []netip.Prefix) {
	if s.Ref.Kind != "ServiceEntry" {
		return nil
	}
	for _, a := range s.Addresses {
		list = append(list, netip.PrefixFrom(a, a.BitLen()))
	}
	return list
}

// rangeText is what a range is called: one of a single address by that.
func rangeText(n netip.Prefix) string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.String()
}

// meet reports whether some namespace sees both services.
func meet(a, b *model.Service) bool {
	some := append([]string{a.Namespace, b.Namespace, ""}, append(a.ExportTo.Namespaces, b.ExportTo.Namespaces...)...)
	return slices.ContainsFunc(some, func(ns string) bool {
		return a.ExportTo.VisibleFrom(a.Namespace, ns) && b.ExportTo.VisibleFrom(b.Namespace, ns)
	})
}
