package compile

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// joinRules makes what there is for a host of its DestinationRules. Of several in one namespace, the oldest one's policy counts and
// subsets are gathered, as in Istio.
func (c *compiler) joinRules(u *unit) {
	type place struct{ namespace, selector string }
	first := map[place]*part{}
	var rules []*model.Destination
	records := c.ask(topic{about: onRule, a: u.name})
	for _, r := range records {
		p := c.own(r)
		c.resolveCredentials(p, []string{p.GetNamespace()})
		at := place{p.GetNamespace(), fmt.Sprint(p.Destination.Selector)} // maps print sorted
		if older := first[at]; older != nil {
			c.mergeDestination(older, p)
			continue
		}
		first[at] = p
		rules = append(rules, p.Destination)
		c.checkSubsetHost(p)
	}
	c.state.setRules(u, rules)
	if len(records) == 0 {
		delete(c.state.rules, u.name)
		u.gone = true
	}
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

func (c *compiler) mergeDestination(older, p *part) {
	const hint = "write one DestinationRule for each host"
	left := "its trafficPolicy has no effect and its new subsets are added"
	for _, s := range p.Destination.Subsets {
		if findSubset(older.Destination.Subsets, s.Name) {
			left = fmt.Sprintf("its trafficPolicy and its subset %q have no effect", s.Name)
			continue
		}
		older.Destination.Subsets = append(older.Destination.Subsets, s)
	}
	p.Warn("DuplicateHost", "spec.host", hint, "%s is older and for the same host: of this one, %s", older.Ref(), left)
	older.Warn("DuplicateHost", "spec.host", hint, "%s is for the same host: of that one, %s", p.Ref(), left)
}

func findSubset(list []model.Subset, name string) bool {
	for _, s := range list {
		if s.Name == name {
			return true
		}
	}
	return false
}

// checkSubsetHost reports a rule whose host is nowhere.
func (c *compiler) checkSubsetHost(p *part) {
	host := p.Destination.Host
	if strings.HasPrefix(host, "*") || c.service(host) != nil || c.wildcardService(host) != nil {
		return
	}
	p.Info("HostNotFound", "spec.host", c.hostHint(host, p.GetNamespace()), "there is no service %s: the rule has no effect until there is", host)
}
