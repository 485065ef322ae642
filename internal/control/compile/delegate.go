package compile

import (
	"cmp"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// delegate puts in place of each rule that delegates the rules of the VirtualService that it names. A rule's conditions are both's;
// what it does is the delegate's, and where that says nothing the delegating rule's. Rules whose conditions contradict are left
// out, as in Istio.
func (c *compiler) delegate(root *part, spec *networkingapi.VirtualService) {
	if len(root.Delegates) == 0 {
		return
	}
	var merged []model.HTTPRoute
	for i := range root.Routes.HTTP {
		ref, delegates := root.Delegates[i]
		if !delegates {
			merged = append(merged, root.Routes.HTTP[i])
			continue
		}
		field := parts.At("spec.http", i) + ".delegate"
		d := c.part(ref)
		switch {
		case d == nil:
			root.Warn("DelegateNotFound", field, "", "there is no valid %s: the rule has no effect", ref)
		case len(d.Routes.Hosts) > 0:
			root.Warn("DelegateHasHosts", field, "remove its spec.hosts", "%s has hosts of its own: the rule has no effect", ref)
		case !d.Routes.ExportTo.VisibleFrom(ref.Namespace, root.GetNamespace()):
			root.Warn("DelegateNotExported", field, "add the namespace to its spec.exportTo", "%s is not exported to namespace %s: the rule has no effect",
				ref, root.GetNamespace())
		default:
			merged = append(merged, c.mergeRules(root, i, spec.Http[i], d)...)
		}
	}
	routes := *root.Routes
	routes.HTTP = merged
	root.Routes = &routes
}

// mergeRules gives the rules of a delegate as those of rule i of a VirtualService. Sharing between the two is fine: what is
// compiled is never changed.
func (c *compiler) mergeRules(root *part, i int, spec *networkingapi.HTTPRoute, d *part) []model.HTTPRoute {
	outer := &root.Routes.HTTP[i]
	vs, _ := d.Kube.(*networking.VirtualService)
	var out []model.HTTPRoute
	for j := range d.Routes.HTTP {
		inner := d.Routes.HTTP[j]
		matches, ok := mergeMatches(outer.Matches, inner.Matches)
		if !ok {
			c.about(d.Object).Warn("DelegateConflict", inner.Field, "each match has to narrow one of the delegating rule's, by exact or prefix",
				"the rule has no effect for %s: its matches contradict those of %s there", root.Ref(), outer.Field)
			continue
		}
		own := vs.Spec.Http[j]
		inner.Matches, inner.Object, inner.Name = matches, d.Ref(), joinNames(outer.Name, inner.Name)
		inner.Rewrite = cmp.Or(inner.Rewrite, outer.Rewrite)
		inner.Retries = cmp.Or(inner.Retries, outer.Retries)
		inner.Fault = cmp.Or(inner.Fault, outer.Fault)
		inner.CORS = cmp.Or(inner.CORS, outer.CORS)
		if own.Timeout == nil {
			inner.Timeout = outer.Timeout
		}
		if len(inner.Mirrors) == 0 {
			inner.Mirrors = outer.Mirrors
		}
		if own.Headers == nil {
			inner.Request, inner.Response = outer.Request, outer.Response
		}
		out = append(out, inner)
	}
	return out
}

// joinNames gives both names, as Istio writes them.
func joinNames(outer, inner string) string {
	if outer == "" || inner == "" {
		return outer + inner
	}
	return outer + "-" + inner
}

// mergeMatches gives each inner match narrowed by every outer one that it agrees with; false when an inner one agrees with none.
func mergeMatches(outer, inner []model.HTTPMatch) ([]model.HTTPMatch, bool) {
	switch {
	case len(outer) == 0:
		return inner, true
	case len(inner) == 0:
		inner = []model.HTTPMatch{{}} // its place is the rule's
	}
	var out []model.HTTPMatch
	for _, in := range inner {
		before := len(out)
		for _, o := range outer {
			if agree(&o, &in) {
				out = append(out, narrowed(o, in))
			}
		}
		if len(out) == before {
			return nil, false
		}
	}
	return out, true
}

// agree reports whether every condition of an inner match can hold beside the outer's of the same kind.
func agree(outer, inner *model.HTTPMatch) bool {
	if outer.Port != 0 && inner.Port != 0 && outer.Port != inner.Port {
		return false
	}
	return within(outer.Path, inner.Path) && within(outer.Scheme, inner.Scheme) && within(outer.Method, inner.Method) &&
		within(outer.Authority, inner.Authority) && allWithin(outer.Headers, inner.Headers) &&
		allWithin(outer.WithoutHeaders, inner.WithoutHeaders) && allWithin(outer.Query, inner.Query)
}

// within reports whether what an inner condition takes is part of what the outer takes. Of regular expressions, and of presence
// beside anything, it is not believed.
func within(outer, inner model.StringMatch) bool {
	switch {
	case outer.IsZero() || inner.IsZero():
		return true
	case outer.Regex+inner.Regex != "" || outer.Present || inner.Present || outer.IgnoreCase != inner.IgnoreCase:
		return false
	case outer.IsExact:
		return inner.IsExact && inner.Exact == outer.Exact
	}
	return strings.HasPrefix(inner.Exact+inner.Prefix, outer.Prefix)
}

func allWithin(outer, inner []model.NamedMatch) bool {
	for _, in := range inner {
		for _, o := range outer {
			if o.Name == in.Name && !within(o.Match, in.Match) {
				return false
			}
		}
	}
	return true
}

// narrowed gives both matches in one. Clients and gateways are the outer's to say; the place is the inner's.
func narrowed(outer, inner model.HTTPMatch) model.HTTPMatch {
	inner.Name = joinNames(outer.Name, inner.Name)
	for _, m := range []struct{ to, from *model.StringMatch }{{&inner.Path, &outer.Path}, {&inner.Scheme, &outer.Scheme},
		{&inner.Method, &outer.Method}, {&inner.Authority, &outer.Authority}} {
		if m.to.IsZero() {
			*m.to = *m.from
		}
	}
	inner.Headers = both(outer.Headers, inner.Headers)
	inner.WithoutHeaders = both(outer.WithoutHeaders, inner.WithoutHeaders)
	inner.Query = both(outer.Query, inner.Query)
	inner.Port = cmp.Or(inner.Port, outer.Port)
	inner.StatPrefix = cmp.Or(inner.StatPrefix, outer.StatPrefix)
	inner.SourceLabels, inner.SourceNamespace, inner.Gateways, inner.Mesh = outer.SourceLabels, outer.SourceNamespace, outer.Gateways, outer.Mesh
	return inner
}

// both joins conditions by name, the inner's where both have one.
func both(outer, inner []model.NamedMatch) []model.NamedMatch {
	out := slices.Clone(inner)
	for _, o := range outer {
		if !slices.ContainsFunc(inner, func(n model.NamedMatch) bool { return n.Name == o.Name }) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b model.NamedMatch) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// undelegated tells of a VirtualService without hosts that nobody delegates to.
func (c *compiler) undelegated(p *part) {
	if len(c.ask(topic{about: onDelegate, a: p.GetNamespace(), b: p.GetName()})) == 0 {
		p.Warn("NotDelegated", "spec", "add spec.hosts, or a rule with delegate to another VirtualService",
			"it has no hosts and no other VirtualService delegates to it: it has no effect")
	}
}
