package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// client stands for all clients that rules do not tell apart from it. Its namespace is "" for all those that nothing names.
type client struct {
	model.Client
	selected bool // by the labels, which a DestinationRule picks
	gateway  bool
}

// anywhere reports whether it stands for the clients of all namespaces that nothing names.
func (c *client) anywhere() bool { return c.Namespace == "" && !c.gateway }

func (c *client) equal(o *client) bool {
	return c.Namespace == o.Namespace && c.selected == o.selected && c.gateway == o.gateway && maps.Equal(c.Labels, o.Labels)
}

// rulesFor gives the DestinationRules that may be for a host: those that name it, then those of wildcards, the most specific first.
func (c *compiler) rulesFor(host string) (lists [][]*model.Destination) {
	for _, h := range covering(host) {
		if list := c.destinations(h); len(list) > 0 {
			lists = append(lists, list)
		}
	}
	return lists
}

// crowded reports whether there are too many rules to find out for which clients each of them counts.
func crowded(lists [][]*model.Destination) bool {
	const enough = 1000
	n := 0
	for _, list := range lists {
		n += len(list)
	}
	return n > enough
}

// countingFor gives those that count for a client.
func (c *compiler) countingFor(who *client, s *model.Service, lists [][]*model.Destination) []*model.Destination {
	return who.Rules(c.settings.RootNamespace, s.Namespace, slices.Values(lists))
}

// seenBy finds what a host means to a client; nil when that is nothing.
func (c *compiler) seenBy(who *client, host string) *model.Service {
	s := c.service(host)
	if s == nil {
		s = c.wildcardService(host)
	}
	if who.gateway {
		s = s.ForGateway(who.Namespace)
	} else {
		s = s.For(who.Namespace, nil)
	}
	if s == nil || !s.ExportTo.VisibleFrom(s.Namespace, who.Namespace) {
		return nil
	}
	return s
}

// sorts gives the clients among which DestinationRules, and whatever names some namespaces, may tell apart.
func (c *compiler) sorts(lists [][]*model.Destination, namespaces ...string) (sorts []client) {
	namespaces = append(namespaces, "", c.settings.RootNamespace)
	for _, list := range lists {
		for _, d := range list {
			namespaces = append(append(namespaces, d.Ref.Namespace), d.ExportTo.Namespaces...)
			if d.Selector != nil {
				sorts = append(sorts, client{Client: model.Client{Namespace: d.Ref.Namespace, Labels: d.Selector}, selected: true})
			}
		}
	}
	slices.Sort(namespaces)
	for _, ns := range slices.Compact(namespaces) {
		if ns != "*" {
			sorts = append(sorts, client{Client: model.Client{Namespace: ns}})
		}
	}
	slices.SortStableFunc(sorts, func(a, b client) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(parts.LabelList(a.Labels), parts.LabelList(b.Labels)))
	})
	return slices.CompactFunc(sorts, func(a, b client) bool { return a.equal(&b) })
}

// followers gives the clients that a rule of a route set is for: sidecars of some sorts, and the gateways that it names.
func (c *compiler) followers(rs *model.RouteSet, matches []model.L4Match, sorts []client) (list []client) {
	add := func(who client, m *model.L4Match) {
		if m.SourceNamespace != "" && m.SourceNamespace != who.Namespace || !meetable(m.SourceLabels, who.Labels) || !seenFrom(rs, who.Namespace) {
			return
		}
		if len(m.SourceLabels) > 0 {
			labels := maps.Clone(m.SourceLabels)
			maps.Copy(labels, who.Labels)
			who.Labels = labels
		}
		if !slices.ContainsFunc(list, func(o client) bool { return who.equal(&o) }) {
			list = append(list, who)
		}
	}
	for i := range matches {
		m := &matches[i]
		if rs.Mesh && (len(m.Gateways) == 0 || m.Mesh) {
			for _, who := range sorts {
				add(who, m)
			}
		}
		gateways, any := rs.Gateways, *m
		if m.Mesh || len(m.Gateways) > 0 {
			gateways, any = m.Gateways, model.L4Match{} // as in Istio, naming gateways makes it say nothing of labels
		}
		for _, g := range gateways {
			ref := model.Ref{Kind: g.Kind, Namespace: g.Namespace, Name: g.Name}
			if made := c.gateway(g); made != nil {
				for _, ns := range c.state.homes[ref] {
					add(client{Client: model.Client{Namespace: ns, Labels: made.Selector}, gateway: true}, &any)
				}
			}
		}
	}
	return list
}

// tellHidden reports subsets that routes lead to and some of their clients do not have, though a DestinationRule defines them: for those
// clients another one goes before it, or it does not count.
func (c *compiler) tellHidden(sets []*model.RouteSet) {
	for _, rs := range sets {
		vs, ok := c.unit.rec.Kube.(*networking.VirtualService)
		if !ok {
			return // others name no subsets
		}
		for i := range rs.HTTP {
			r := &rs.HTTP[i]
			matches := l4Matches(r)
			for j, d := range r.Destinations {
				c.tellHiddenFrom(rs, matches, d, r.Object, parts.At(r.Field+".route", j)+".destination", unavailable)
			}
			for j, m := range r.Mirrors {
				if r.Object == (model.Ref{}) {
					c.tellHiddenFrom(rs, matches, m.Destination, r.Object, mirrorField(vs, r.Field, j), unmirrored)
				}
			}
		}
		for i := range rs.TCP {
			r := &rs.TCP[i]
			for j, d := range r.Destinations {
				c.tellHiddenFrom(rs, orAll(r.Matches), d, model.Ref{}, parts.At(r.Field+".route", j)+".destination", closed)
			}
		}
		for i := range rs.TLS {
			r := &rs.TLS[i]
			for j, d := range r.Destinations {
				c.tellHiddenFrom(rs, orAll(r.Matches), d, model.Ref{}, parts.At(r.Field+".route", j)+".destination", closed)
			}
		}
	}
}

// l4Matches are the conditions of a rule for requests on who sends them.
func l4Matches(r *model.HTTPRoute) (list []model.L4Match) {
	for i := range r.Matches {
		list = append(list, l4Match(&r.Matches[i]))
	}
	return orAll(list)
}

func l4Match(m *model.HTTPMatch) model.L4Match {
	return model.L4Match{Port: m.Port, SourceLabels: m.SourceLabels, SourceNamespace: m.SourceNamespace, Gateways: m.Gateways, Mesh: m.Mesh}
}

func orAll(list []model.L4Match) []model.L4Match {
	if len(list) == 0 {
		return []model.L4Match{{}}
	}
	return list
}

// mirrorField is the field of a mirror of the rule that a field is.
func mirrorField(vs *networking.VirtualService, rule string, n int) string {
	for i, r := range vs.Spec.Http {
		if parts.At("spec.http", i) == rule && r.Mirror != nil {
			return rule + ".mirror"
		}
	}
	return parts.At(rule+".mirrors", n) + ".destination"
}

// shadow is why clients do not have a subset.
type shadow struct {
	why, hint string
	of        []client
}

// tellHiddenFrom does so for one destination of a rule, which stands in another object where that is not zero.
func (c *compiler) tellHiddenFrom(rs *model.RouteSet, matches []model.L4Match, d model.WeightedDestination, object model.Ref, field, fate string) {
	if d.Subset == "" {
		return
	}
	object = cmp.Or(object, rs.Ref)
	s := c.seenBy(&client{Client: model.Client{Namespace: object.Namespace}}, d.Host)
	if s == nil {
		return
	}
	if behind := c.behind(s, object.Namespace); behind != s {
		d.Host = behind.Host
	}
	definer := c.definer(d, object.Namespace)
	if definer == nil {
		return // which linkDestination says
	}
	lists := c.rulesFor(d.Host)
	if crowded(lists) {
		return
	}
	namespaces := append([]string{object.Namespace, rs.Namespace, s.Namespace}, rs.ExportTo.Namespaces...)
	for _, m := range matches {
		namespaces = append(namespaces, m.SourceNamespace)
	}
	all := c.followers(rs, matches, c.sorts(lists, namespaces...))
	for _, sh := range c.shadows(rs, all, d, definer, lists) {
		if o := c.object(object); o != nil {
			c.about(o).Warn("SubsetNotFound", field+".subset", sh.hint, "for %s, %s: %s", clientText(sh.of, all), sh.why, fate)
		}
	}
}

// shadows gives why clients of a rule do not have the subset of a destination, each reason with all that it is one for.
func (c *compiler) shadows(rs *model.RouteSet, all []client, d model.WeightedDestination, definer *model.Destination, lists [][]*model.Destination) (list []*shadow) {
	for _, who := range all {
		s := c.seenBy(&who, d.Host)
		if s == nil {
			continue
		}
		rules := c.countingFor(&who, s, lists)
		if slices.ContainsFunc(rules, func(r *model.Destination) bool { return findSubset(r.Subsets, d.Subset) }) || !c.leads(rs, &who) {
			continue
		}
		why, hint := c.whyHidden(&who, s, d, definer, rules)
		i := slices.IndexFunc(list, func(sh *shadow) bool { return sh.why == why })
		if i < 0 {
			i, list = len(list), append(list, &shadow{why: why, hint: hint})
		}
		list[i].of = append(list[i].of, who)
	}
	return list
}

// whyHidden says why a client does not have a subset of the rule that defines it, but what some others say.
func (c *compiler) whyHidden(who *client, s *model.Service, d model.WeightedDestination, definer *model.Destination, rules []*model.Destination) (why, hint string) {
	subject := fmt.Sprintf("%s, which defines subset %q of %s, does not count: ", definer.Ref, d.Subset, d.Host)
	own := definer.Ref.Namespace
	switch {
	case !definer.ExportTo.VisibleFrom(own, who.Namespace):
		return subject + "it is not exported to them", "name their namespaces in its exportTo"
	case own != who.Namespace && own != s.Namespace && own != c.settings.RootNamespace:
		return subject + "it is neither of their namespace nor of the service's", "move it to namespace " + s.Namespace
	case !who.SelectedBy(definer):
		return subject + "its workloadSelector leaves them out", ""
	case len(rules) == 0: // not to be: it counts itself
		return strings.TrimSuffix(subject, ": "), ""
	}
	return fmt.Sprintf("%s goes before %s, and does not define subset %q of %s", rules[0].Ref, definer.Ref, d.Subset, d.Host), "define it there too"
}

// leads reports whether a client follows the rules of a set for one of its hosts, and not those that go before them.
func (c *compiler) leads(rs *model.RouteSet, who *client) bool {
	return who.gateway || slices.ContainsFunc(rs.Hosts, func(host string) bool {
		return !slices.ContainsFunc(c.rulers(host), func(b *bid) bool {
			return b.routes.Ref != rs.Ref && seenFrom(b.routes, who.Namespace) && b.routes.CompareIn(who.Namespace, rs) < 0
		})
	})
}

// clientText names some of all clients that something is for.
func clientText(some, all []client) string {
	if len(some) == len(all) && slices.ContainsFunc(all, func(who client) bool { return !who.gateway }) {
		return "all clients"
	}
	var words []string
	if slices.ContainsFunc(some, func(who client) bool { return who.anywhere() }) {
		words = append(words, "clients of all namespaces"+but(namespacesBut(all, some)))
	} else if named := namespacesBut(some, nil); len(named) > 0 {
		words = append(words, "clients of "+noun("namespace", named)+" "+enumerate(named))
	}
	for i := range some {
		switch who := &some[i]; {
		case who.gateway:
			words = append(words, "gateways of namespace "+who.Namespace)
		case who.selected:
			words = append(words, "clients of namespace "+who.Namespace+" with labels "+parts.LabelList(who.Labels))
		}
	}
	return enumerate(words)
}

// namespacesBut gives the namespaces of clients that are named by them alone, without those of others.
func namespacesBut(list, others []client) (names []string) {
	for i := range list {
		who := &list[i]
		if who.gateway || who.selected || who.Namespace == "" || slices.Contains(names, who.Namespace) ||
			slices.ContainsFunc(others, func(o client) bool { return o.Namespace == who.Namespace && !o.gateway && !o.selected }) {
			continue
		}
		names = append(names, who.Namespace)
	}
	return names
}

func but(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " but " + enumerate(names)
}

func noun(word string, list []string) string {
	if len(list) == 1 {
		return word
	}
	return word + "s"
}

// enumerate names the first of a list, and how many more there are.
func enumerate(list []string) string {
	const shown = 4
	if len(list) > shown {
		list = append(slices.Clone(list[:shown-1]), fmt.Sprintf("%d more", len(list)-shown+1))
	}
	if n := len(list) - 1; n > 0 {
		return strings.Join(list[:n], ", ") + " and " + list[n]
	}
	return strings.Join(list, "")
}
