package compile

import (
	"fmt"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// addDestinations puts DestinationRules into the mesh. Of several in one namespace for one host, the oldest one's policy counts
// and subsets are gathered, as in Istio.
func (c *compiler) addDestinations() {
	type place struct{ namespace, host, selector string }
	first := map[place]*part{}
	placeOf := func(p *part) place {
		return place{p.GetNamespace(), p.Destination.Host, fmt.Sprint(p.Destination.Selector)} // maps print sorted
	}
	for _, p := range c.byKind["DestinationRule"] {
		c.resolveCredentials(p, []string{p.GetNamespace()})
		older := first[placeOf(p)]
		if older == nil {
			first[placeOf(p)] = p
			c.mesh.Destinations.Put(p.Destination.Host, append(c.mesh.Destinations.Get(p.Destination.Host), p.Destination))
			c.checkSubsetHost(p)
			continue
		}
		c.mergeDestination(older, p)
	}
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
	if strings.HasPrefix(host, "*") || c.mesh.Services.Get(host) != nil || c.wildcardService(host) != nil {
		return
	}
	p.Info("HostNotFound", "spec.host", c.hostHint(host, p.GetNamespace()), "there is no service %s: the rule has no effect until there is", host)
}
