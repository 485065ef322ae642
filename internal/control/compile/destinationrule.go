package compile

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinRules makes what there is for a host of its DestinationRules, the oldest first. Clients merge those of one namespace that they see
// (see generate): the oldest one's policy and the subsets of all, as in Istio. Who writes several is told what has no effect.
func (c *compiler) joinRules(u *unit) {
	var rules []*model.Destination
	var parts []*part
	records := c.ask(topic{about: onRule, a: u.name})
	for _, r := range records {
		p := c.own(r)
		c.resolveCredentials(p, []string{p.GetNamespace()})
		rules = append(rules, p.Destination)
		if older := firstLike(parts, p); older != nil {
			tellMerged(older, p, parts)
		} else {
			c.checkSubsetHost(p)
		}
		c.checkPorts(p)
		parts = append(parts, p)
	}
	c.state.setRules(u, rules)
	if len(records) == 0 {
		delete(c.state.rules, u.name)
		u.gone = true
	}
}

// firstLike gives the oldest rule that some client merges with another; nil for none.
func firstLike(parts []*part, p *part) *part {
	for _, older := range parts {
		if merged(older.Destination, p.Destination) {
			return older
		}
	}
	return nil
}

// merged reports whether some client merges two rules for one host.
func merged(a, b *model.Destination) bool {
	if a.Ref.Namespace != b.Ref.Namespace || !maps.Equal(a.Selector, b.Selector) {
		return false
	}
	some := slices.Concat([]string{a.Ref.Namespace, ""}, a.ExportTo.Namespaces, b.ExportTo.Namespaces)
	return slices.ContainsFunc(some, func(ns string) bool {
		return a.ExportTo.VisibleFrom(a.Ref.Namespace, ns) && b.ExportTo.VisibleFrom(b.Ref.Namespace, ns)
	})
}

// setRules puts a host's rules into the mesh.
func (k *Compiler) setRules(u *unit, rules []*model.Destination) {
	if reflect.DeepEqual(u.rules, rules) {
		return
	}
	u.rules = rules
	if len(rules) == 0 {
		k.mesh.Destinations.Delete(u.name)
	} else {
		k.mesh.Destinations.Put(u.name, rules)
	}
	k.delta.Destinations[u.name] = true
	k.dirty(topic{about: onDestination, a: u.name})
}

// tellMerged says of a rule, and of the oldest that it is merged with, what of it has no effect.
func tellMerged(first, p *part, older []*part) {
	const hint = "write one DestinationRule for each host"
	var lost []string
	like := slices.DeleteFunc(slices.Clone(older), func(o *part) bool { return !merged(o.Destination, p.Destination) })
	if !p.Destination.Policy.IsZero() && slices.ContainsFunc(like, func(o *part) bool { return !o.Destination.Policy.IsZero() }) {
		lost = append(lost, "its trafficPolicy")
	}
	for _, s := range p.Destination.Subsets {
		if slices.ContainsFunc(like, func(o *part) bool { return findSubset(o.Destination.Subsets, s.Name) }) {
			lost = append(lost, fmt.Sprintf("its subset %q", s.Name))
		}
	}
	if len(lost) == 0 {
		return
	}
	left := strings.Join(lost, ", ") + " " + map[bool]string{true: "has", false: "have"}[len(lost) == 1] + " no effect"
	p.Warn("DuplicateHost", "spec.host", hint, "%s is older and for the same host: of this one, %s", first.Ref(), left)
	first.Warn("DuplicateHost", "spec.host", hint, "%s is for the same host: of that one, %s", p.Ref(), left)
}

func findSubset(list []model.Subset, name string) bool {
	for _, s := range list {
		if s.Name == name {
			return true
		}
	}
	return false
}

// checkPorts reports settings of ports that the host lacks.
func (c *compiler) checkPorts(p *part) {
	rule, ok := p.Kube.(*networking.DestinationRule)
	s := c.service(p.Destination.Host)
	if !ok || s == nil {
		return
	}
	policy := func(t *networkingapi.TrafficPolicy, field string) {
		for i, pl := range t.GetPortLevelSettings() {
			if n := pl.GetPort().GetNumber(); n > 0 && n <= math.MaxUint16 && s.Port(uint16(n)) == nil {
				p.Warn("PortNotFound", convert.At(field+".trafficPolicy.portLevelSettings", i)+".port.number", "write the port of the service, not that of its workloads",
					"service %s has no port %d (it has %s): the settings have no effect", s.Host, n, portList(s))
			}
		}
	}
	policy(rule.Spec.TrafficPolicy, "spec")
	for i, subset := range rule.Spec.Subsets {
		policy(subset.TrafficPolicy, convert.At("spec.subsets", i))
	}
}

// checkSubsetHost reports a rule whose host is nowhere.
func (c *compiler) checkSubsetHost(p *part) {
	host := p.Destination.Host
	if strings.HasPrefix(host, "*") || c.service(host) != nil || c.wildcardService(host) != nil {
		return
	}
	p.Warn("HostNotFound", "spec.host", c.hostHint(host, p.GetNamespace()), "there is no service %s: the rule has no effect until there is", host)
}
