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

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinRules makes what there is for a host of its DestinationRules, the oldest first. Clients merge those of one namespace that they see
// (see generate): the oldest one's policy and the subsets of all, as in Istio. Who writes several is told what has no effect.
func (c *compiler) joinRules(u *unit) {
	var rules []*model.Destination
	var groups []*ruleGroup
	records := c.ask(topic{about: onRule, a: u.name})
	for _, r := range records {
		p := c.own(r)
		c.resolveCredentials(p, []string{p.GetNamespace()})
		rules = append(rules, p.Destination)
		if like := mergedWith(groups, p); len(like) > 0 {
			tellMerged(like, p)
		} else {
			c.checkSubsetHost(p)
		}
		c.checkPorts(p)
		c.tellBackendTLS(p)
		groups = addRule(groups, p)
	}
	c.state.setRules(u, rules)
	if len(records) == 0 {
		delete(c.state.rules, u.name)
		u.gone = true
	}
}

// ruleGroup are rules of one namespace, for the same clients: what is merged with one of them is merged with all.
type ruleGroup struct {
	first   *part
	policy  bool            // some rule has one
	subsets map[string]bool // of all
}

// mergedWith gives the groups that some client merges a rule with, that of the oldest rule first.
func mergedWith(groups []*ruleGroup, p *part) (like []*ruleGroup) {
	for _, g := range groups {
		if merged(g.first.Destination, p.Destination) {
			like = append(like, g)
		}
	}
	return like
}

// addRule adds a rule to the group that it belongs to.
func addRule(groups []*ruleGroup, p *part) []*ruleGroup {
	d := p.Destination
	i := slices.IndexFunc(groups, func(g *ruleGroup) bool {
		o := g.first.Destination
		return sameClients(o, d) && reflect.DeepEqual(o.ExportTo, d.ExportTo)
	})
	if i < 0 {
		i, groups = len(groups), append(groups, &ruleGroup{first: p, subsets: map[string]bool{}})
	}
	groups[i].policy = groups[i].policy || !d.Policy.IsZero()
	for _, s := range d.Subsets {
		groups[i].subsets[s.Name] = true
	}
	return groups
}

// merged reports whether some client merges two rules for one host.
func merged(a, b *model.Destination) bool {
	if !sameClients(a, b) {
		return false
	}
	some := slices.Concat([]string{a.Ref.Namespace, ""}, a.ExportTo.Namespaces, b.ExportTo.Namespaces)
	return slices.ContainsFunc(some, func(ns string) bool {
		return a.ExportTo.VisibleFrom(a.Ref.Namespace, ns) && b.ExportTo.VisibleFrom(b.Ref.Namespace, ns)
	})
}

// sameClients reports whether two rules of one namespace select alike. A selector without labels is not none.
func sameClients(a, b *model.Destination) bool {
	return a.Ref.Namespace == b.Ref.Namespace && (a.Selector == nil) == (b.Selector == nil) && maps.Equal(a.Selector, b.Selector)
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
func tellMerged(like []*ruleGroup, p *part) {
	const hint = "write one DestinationRule for each host"
	var lost []string
	first := like[0].first
	if !p.Destination.Policy.IsZero() && slices.ContainsFunc(like, func(g *ruleGroup) bool { return g.policy }) {
		lost = append(lost, "its trafficPolicy")
	}
	for _, s := range p.Destination.Subsets {
		if slices.ContainsFunc(like, func(g *ruleGroup) bool { return g.subsets[s.Name] }) {
			lost = append(lost, fmt.Sprintf("its subset %q", s.Name))
		}
	}
	if len(lost) == 0 {
		return
	}
	left := strings.Join(lost, ", ") + " " + map[bool]string{true: "has", false: "have"}[len(lost) == 1] + " no effect"
	p.Warn("DuplicateHost", "spec.host", hint, "%s is %s, and for the same host: of this one, %s", first.Ref(), age(first.Object, p.Object), left)
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
	s := c.serviceFor(p.Destination.Host, p.GetNamespace())
	if !ok || s == nil {
		return
	}
	policy := func(t *networkingapi.TrafficPolicy, field string) {
		for i, pl := range t.GetPortLevelSettings() {
			if n := pl.GetPort().GetNumber(); n > 0 && n <= math.MaxUint16 && s.Port(uint16(n)) == nil {
				p.Warn("PortNotFound", parts.At(field+".trafficPolicy.portLevelSettings", i)+".port.number", "write the port of the service, not that of its workloads",
					"service %s has no port %d (it has %s): the settings have no effect", s.Host, n, portList(s))
			}
		}
	}
	policy(rule.Spec.TrafficPolicy, "spec")
	for i, subset := range rule.Spec.Subsets {
		policy(subset.TrafficPolicy, parts.At("spec.subsets", i))
	}
}

// checkSubsetHost reports a rule whose host is nowhere.
func (c *compiler) checkSubsetHost(p *part) {
	host := p.Destination.Host
	if s := c.serviceFor(host, p.GetNamespace()); s != nil {
		if behind := c.behind(s, p.GetNamespace()); behind != s {
			p.Warn("NoEffect", "spec.host", "write the rule for "+behind.Host, "%s is a further name of %s, whose rules count: this one has no effect", host, behind.Host)
		}
	}
	if strings.HasPrefix(host, "*") || c.service(host) != nil || c.wildcardService(host) != nil {
		return
	}
	p.Warn("HostNotFound", "spec.host", c.hostHint(host, p.GetNamespace()), "there is no service %s: the rule has no effect until there is", host)
}
