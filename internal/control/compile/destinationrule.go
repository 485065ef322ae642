package compile

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"

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
	var made []*part
	records := c.ask(topic{about: onRule, a: u.name})
	for _, r := range records {
		p := c.own(r)
		c.resolveCredentials(p, []string{p.GetNamespace()})
		rules = append(rules, p.Destination)
		if like := c.mergedWith(groups, p); len(like) > 0 {
			tellMerged(like, p)
		} else {
			c.checkSubsetHost(p)
		}
		c.checkPorts(p)
		c.tellBackendTLS(p)
		groups, made = addRule(groups, p), append(made, p)
	}
	usage := sync.OnceValue(func() *usage { return c.usageOf(u.name, rules) })
	for _, p := range made {
		c.checkUsed(p, usage)
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
func (c *compiler) mergedWith(groups []*ruleGroup, p *part) (like []*ruleGroup) {
	for _, g := range groups {
		if c.merged(g.first.Destination, p.Destination) {
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

// merged reports whether some client merges two rules for one host. In the root namespace what it keeps to itself is apart.
func (c *compiler) merged(a, b *model.Destination) bool {
	if !sameClients(a, b) || a.Ref.Namespace == c.settings.RootNamespace && a.Selector == nil && a.ExportTo.Private != b.ExportTo.Private {
		return false
	}
	return slices.ContainsFunc(seers(a, b), func(ns string) bool { return sees(ns, a) && sees(ns, b) })
}

// seers gives the namespaces that may see two rules of one namespace otherwise than the rest does, for which "" stands.
func seers(a, b *model.Destination) []string {
	return slices.Concat([]string{a.Ref.Namespace, ""}, a.ExportTo.Namespaces, b.ExportTo.Namespaces)
}

func sees(namespace string, d *model.Destination) bool {
	return d.ExportTo.VisibleFrom(d.Ref.Namespace, namespace)
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
	if d := p.Destination; slices.ContainsFunc(seers(first.Destination, d), func(ns string) bool { return sees(ns, d) && !sees(ns, first.Destination) }) {
		left += " for clients that see both"
	}
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

// usage is which of the DestinationRules for a host count for which clients.
type usage struct {
	sorts    []client
	services []*model.Service       // what the host means to each; nil for nothing
	counting [][]*model.Destination // for each
	used     map[*model.Destination]bool
}

// usageOf finds it; nil where there are too many to compare. Rules of wildcards that cover the host are joined before it, since "*" comes
// before all letters.
func (c *compiler) usageOf(host string, rules []*model.Destination) *usage {
	lists := append([][]*model.Destination{rules}, c.rulesFor("*"+host[strings.IndexByte(host+".", '.'):])...)
	if crowded(lists) {
		return nil
	}
	us := &usage{used: map[*model.Destination]bool{}}
	var namespaces []string
	for s := range c.service(host).All() {
		namespaces = append(namespaces, s.Namespace)
	}
	us.sorts = c.sorts(lists, namespaces...)
	for _, who := range us.sorts {
		s := c.seenBy(&who, host)
		var counting []*model.Destination
		if s != nil {
			counting = c.countingFor(&who, s, lists)
		}
		us.services, us.counting = append(us.services, s), append(us.counting, counting)
		for _, d := range counting {
			us.used[d] = true
		}
	}
	return us
}

// checkUsed reports a rule for a host that no client uses, and namespaces to which one is exported in vain. Rules of wildcards are not looked
// at: they are for hosts that may come.
func (c *compiler) checkUsed(p *part, usage func() *usage) {
	d, root := p.Destination, c.settings.RootNamespace
	own := d.Ref.Namespace
	s := c.seenBy(&client{Client: model.Client{Namespace: own}}, d.Host)
	if strings.HasPrefix(d.Host, "*") || s == nil || c.behind(s, own) != s {
		return
	}
	if own != root && d.ExportTo.VisibleFrom(own, own) { // its own clients use it, and others where the service is of their namespace
		c.checkExports(p, s)
		return
	}
	us := usage()
	if us == nil || us.used[d] {
		return
	}
	var first []string
	for i, who := range us.sorts {
		t := us.services[i]
		if t == nil || !d.ExportTo.VisibleFrom(own, who.Namespace) || own != who.Namespace && own != t.Namespace && own != root || len(us.counting[i]) == 0 {
			continue
		}
		if ref := us.counting[i][0].Ref.String(); !slices.Contains(first, ref) {
			first = append(first, ref)
		}
	}
	if len(first) == 0 {
		p.Warn("NoEffect", "spec.exportTo", "add \".\" to it, or move the rule to namespace "+s.Namespace,
			"no client uses the rule: those of namespace %s alone look for it there, and it is not exported to them", own)
		return
	}
	slices.Sort(first)
	verb := map[bool]string{true: "goes", false: "go"}[len(first) == 1]
	p.Warn("NoEffect", "spec.host", "write its settings there", "no client uses the rule: %s %s before it for all to whom it is exported", enumerate(first), verb)
}

// checkExports reports namespaces to which a rule is exported whose clients do not look for it.
func (c *compiler) checkExports(p *part, s *model.Service) {
	rule, ok := p.Kube.(*networking.DestinationRule)
	own := p.GetNamespace()
	if !ok || len(p.Destination.ExportTo.Namespaces) == 0 {
		return
	}
	for i, ns := range rule.Spec.ExportTo {
		if ns == "." || ns == "*" || ns == own {
			continue
		}
		if t := c.seenBy(&client{Client: model.Client{Namespace: ns}}, s.Host); t != nil && t.Namespace != own {
			p.Warn("NoEffect", parts.At("spec.exportTo", i), "move it to "+t.Namespace,
				"clients of namespace %s do not use the rule: it is neither of their namespace nor of that of the service (%s)", ns, t.Namespace)
		}
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
